// One send: what goes into it, and what is left to do for what went out.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "relay_thread.h"

namespace relaycore {

// Whether it listens and knows from which block on.
inline bool holds_frames(const Connection& connection) noexcept {
  return connection.role == PeerRole::listener && !connection.join_pending;
}

// What a queued message costs, the small ones' overhead included: with a change of the mix that is
// mostly the layout. What is shared counts in full. No message is longer than 2^30 bytes, nor may more
// be queued, so that the sum fits 32 bits.
inline uint32_t outbox_cost(const OutboxEntry& entry) noexcept {
  size_t text = entry.text ? sizeof(Text) + entry.text->size() : 0;
  size_t layout = entry.change.layout ? sizeof(Layout) : 0;
  return static_cast<uint32_t>(sizeof entry + text + layout);
}
constexpr size_t kReadBytes = 256 * 1024;    // read at once; one buffer per thread
constexpr size_t kReadBytesOfOthers = 16 * 1024;  // than sources: what they say may have to wait, and is kept

// What is put together for one sendmsg, in wire order. One per thread, used over and over.
struct RelayThread::SendPlan {
  static constexpr int kMaxItems = 96;
  static constexpr size_t kMaxBytes = 512 * 1024;  // more is not offered at once

  enum class Kind : uint8_t { partial, message, announce, frame, levels, ping };

  struct Item {
    Kind kind;
    FrameRef frame;           // frame, levels
    OutboxEntry* entry;       // message
    const Block* block;       // frame, announce
    bool owes_levels;         // frame: levels stand behind it
  };

  void clear() noexcept {
    for (int i = 0; i < count; ++i) items[i].frame = {};
    count = 0;
    bytes = 0;
  }
  bool full() const noexcept { return count >= kMaxItems || bytes >= kMaxBytes; }
  Item& add(Kind kind, const void* data, size_t size) noexcept {
    parts[count].iov_base = const_cast<void*>(data);
    parts[count].iov_len = size;
    bytes += size;
    Item& item = items[count++];
    item = {kind, {}, nullptr, nullptr, false};
    return item;
  }
  void add_ping(int64_t now_ns) noexcept {
    ping[0] = 0x80 | static_cast<uint8_t>(WsOpcode::ping);
    ping[1] = 8;
    std::memcpy(ping + 2, &now_ns, 8);
    add(Kind::ping, ping, sizeof ping);
  }

  iovec parts[kMaxItems];
  Item items[kMaxItems];
  int count = 0;
  size_t bytes = 0;

  // The listener as it will be when everything up to here has gone out.
  uint64_t cursor = 0;
  uint16_t stream = 0;
  Delivery delivery;
  Layout* ramp_from = nullptr;

  uint8_t ping[2 + 8];
  // Frames that nobody shares are rendered into these, again and again.
  std::vector<FrameRef> private_frames;
  size_t private_used = 0;
};

}  // namespace relaycore
