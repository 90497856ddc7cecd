// The relay as the control plane sees it. Linux; elsewhere start() says unavailable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "relaycore/events.h"
#include "relaycore/packet.h"
#include "relaycore/status.h"
#include "relaycore/subscription.h"

namespace relaycore {

struct RelayConfig {
  unsigned threads = 1;
  bool realtime = true;
  int64_t max_lag_ns = 500'000'000;
  int64_t evict_after_ns = 15'000'000'000;
  int64_t register_timeout_ns = 10'000'000'000;
  int64_t ping_interval_ns = 1'000'000'000;
  int64_t source_timeout_ns = 10'000'000'000;
  int64_t silence_timeout_ns = 2'000'000'000;
  int64_t watchdog_ns = 500'000'000;  // 0: none
  size_t max_text_bytes = 65'536;
  size_t max_binary_bytes = 2 << 20;
  size_t max_queued_bytes = 1 << 20;  // messages that wait to be sent, per connection
  unsigned max_packets_per_s = 50'000;
};

struct ThreadFigures {
  uint64_t connections, listeners, rooms, ticks, tick_late_ns_max, frames_sent, frames_dropped,
      frames_built, bytes_sent, bytes_received, sends, packets, evicted, stalls;
  std::vector<uint64_t> tick_late;  // ticks in each bucket of a LatenessHistogram
};

struct RoomFigures {
  uint64_t room, blocks, packets, frames_sent, frames_dropped, bytes_sent, listeners;
};

struct SourceBinding {
  uint64_t connection;
  uint64_t room;
  uint16_t stream;
  SourceFormat format;
  unsigned frame_ms;
  double buffer_ms;  // ≤ 0: adaptive
  std::string_view announce;
};

// Any thread may call any method; poll() one thread at a time. No call waits for a relay thread
// but close(). Ids are never used again; those of what is gone already are passed over in silence.
class Relay {
 public:
  static Status start(const RelayConfig& config, std::unique_ptr<Relay>& relay) noexcept;
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  int event_fd() const noexcept;
  // Up to `limit` events, which live until the next poll(); with it the texts among them count as
  // processed.
  Status poll(size_t limit, std::vector<Event*>& events) noexcept;

  Status attach(int fd, std::string_view response, std::string_view greeting, bool deliver_binary,
                uint64_t& id) noexcept;
  Status open_room(uint64_t& room) noexcept;
  Status close_room(uint64_t room, std::string_view text, uint16_t code) noexcept;
  Status bind_source(const SourceBinding& binding, std::string_view reply) noexcept;
  Status unbind_source(uint64_t connection) noexcept;
  Status bind_listener(uint64_t connection, uint64_t room, const Subscription& subscription,
                       std::string_view reply, uint16_t known_stream, uint32_t burst_ms,
                       uint64_t from_timestamp) noexcept;
  Status subscribe(uint64_t connection, const Subscription& subscription,
                   std::string_view reply) noexcept;
  Status send(uint64_t connection, std::string_view data, bool is_text, bool stamp) noexcept;
  Status send_room(uint64_t room, std::string_view text) noexcept;
  // A second measure of a listener's lag: what its player says.
  Status report_lag(uint64_t connection, int64_t lag_ns) noexcept;
  Status close_connection(uint64_t connection, uint16_t code, std::string_view detail,
                          std::string_view text) noexcept;
  // Answered by one RoomReportEvent of every thread that has listeners of the room.
  Status inspect(uint64_t room) noexcept;

  int64_t clock_us() const noexcept;
  std::vector<ThreadFigures> thread_figures() const;
  std::vector<RoomFigures> room_figures() const;

  // Says 1001 to everyone, waits up to `timeout_ns` until it has gone out, ends the threads.
  void close(std::string_view text, int64_t timeout_ns) noexcept;

 private:
  struct Impl;
  explicit Relay(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relaycore
