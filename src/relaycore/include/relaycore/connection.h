// One WebSocket connection as its thread sees it.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "relaycore/events.h"
#include "relaycore/frame.h"
#include "relaycore/layout.h"
#include "relaycore/live_objects.h"
#include "relaycore/slots.h"
#include "relaycore/source_link.h"
#include "relaycore/text.h"
#include "relaycore/ws_codec.h"

// Connections have slots of their own, but not under a sanitizer, which would not see the use of one
// that is gone: its memory must have come from malloc and go back there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RELAYCORE_CONNECTION_SLOTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RELAYCORE_CONNECTION_SLOTS 0
#endif
#endif
#ifndef RELAYCORE_CONNECTION_SLOTS
#define RELAYCORE_CONNECTION_SLOTS 1
#endif

namespace relaycore {

class RoomView;
struct Connection;

// At so many texts not yet processed a connection is not read from until some are.
constexpr uint32_t kMaxTextsPending = 16;
// A fault of the peer counts as so many texts more: whatever came before it, one text or fifteen,
// the last of them to be processed brings the sum below the limit, and the close follows.
constexpr uint32_t kFaultWeight = kMaxTextsPending - 1;

enum class PeerRole : uint8_t { unregistered, listener, source };

// Where a connection is on its way out.
enum class Closing : uint8_t {
  open,
  queued,   // a close frame stands in the outbox
  sent,     // it is written; the peer's answer is awaited
  replied,  // both have said it: the socket goes as soon as ours is written
};

// What a subscription sets for a listener besides its mix; takes effect at a frame boundary.
struct Delivery {
  Layout* layout = nullptr;
  uint16_t interval_ms = 0;
  bool levels = false;
};

// A message that waits for its turn, and the change of delivery that goes with it.
struct OutboxEntry : Counted<"OutboxEntry"> {
  Ref<Text> text;               // may be empty when there is a change
  uint64_t not_before = 0;      // frames with a lower block number go first
  Delivery change;              // layout == nullptr: none
  bool is_close = false;
  std::unique_ptr<OutboxEntry> next;
};

// The part of a source packet that did not fit into the rings.
struct PendingPacket {
  std::unique_ptr<uint8_t[]> message;
  SourcePacket packet;  // points into `message`
  uint32_t offset = 0;  // samples per channel that are through
  int64_t arrival_ns = 0;
};

// Bytes that were read while the connection may not be listened to.
struct Backlog {
  std::unique_ptr<uint8_t[]> data;
  uint32_t size = 0;
  uint32_t offset = 0;
};

struct SourceState : Counted<"SourceState"> {
  Ref<SourceLink> link;
  PendingPacket pending;
  int64_t last_received_ns = 0;
  int64_t rate_window_ns = 0;
  uint32_t packets_in_window = 0;
};

// Where a connection stands in a ConnectionQueue.
struct ConnectionLink {
  Connection* previous = nullptr;
  Connection* next = nullptr;  // of the last one: itself; nullptr: it is in no queue
};

// What a send touches comes first, so that it is two cache lines and not six: after each send the
// kernel has driven most of ours out of the caches. There are thousands: what only some need, or
// only for a while, is kept elsewhere.
struct alignas(64) Connection : Counted<"Connection"> {
  Connection(uint64_t id, int fd) noexcept : fd(fd), closed_event(id, this) {}
  ~Connection() {
    if (fd >= 0) ::close(fd);  // only of one that never came to its thread
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  uint64_t id() const noexcept { return closed_event.subject; }

#if RELAYCORE_CONNECTION_SLOTS
  static void* operator new(size_t);
  static void operator delete(void* connection) noexcept;
#endif

  int fd;
  PeerRole role = PeerRole::unregistered;
  Closing closing = Closing::open;
  bool deliver_binary : 1 = false;
  bool is_tcp : 1 = false;
  bool blocked : 1 = false;        // the socket took less than was offered; EPOLLOUT will come
  bool read_paused : 1 = false;    // for texts not yet processed, or a source ahead of its room
  bool readable : 1 = false;       // more may be waiting in the socket
  bool read_to_end : 1 = false;    // the peer has ended its side: read until 0 comes
  bool doomed : 1 = false;         // messages piled up: reset at the next turn
  bool deaf : 1 = false;           // its framing is broken: it is closed once its texts are processed
  bool is_slow : 1 = false;        // its layout is: see RelayThread::tune_socket
  bool join_pending : 1 = false;   // the view has no blocks yet: position comes with them
  bool catching_up : 1 = false;    // everything due goes at once, whatever the interval
  bool owes_group : 1 = false;     // frames that were grouped are on their way: all of them go at once
  bool ping_outstanding : 1 = false;
  bool measures_lag : 1 = false;
  bool lagging : 1 = false;        // nothing is sent until the pong comes
  bool paused : 1 = false;         // nothing is sent until `paused_until_ns`: its player lags
  bool owes_frame : 1 = false;     // a change was answered: the frame it was for comes next
  bool owes_levels : 1 = false;    // the frame they belong behind has gone, they have not
  bool talks : 1 = false;          // it is among RelayThread's talkers

  // Listening.
  uint16_t stream = 0;          // whose format the listener has been told
  uint32_t partial_offset = 0;
  RoomView* view = nullptr;
  uint64_t cursor = 0;  // number of the next block it is due
  Delivery delivery;
  std::unique_ptr<OutboxEntry> outbox;
  FrameRef partial;  // went out half; finished before anything else, also over a jump
  Layout* ramp_from = nullptr;  // the mix of the last frame, until the next one has gone
  int64_t next_ping_ns = 0;
  int64_t ping_sent_ns = 0;
  int64_t last_progress_ns = 0;  // it took or sent something
  uint64_t frames_sent = 0;
  uint64_t bytes_sent = 0;
  uint32_t lowat = 0;
  uint32_t outbox_bytes = 0;
  int64_t round_trip_ns = 0;  // smallest seen; 0: none yet

  // Less often touched from here on.
  uint32_t view_slot = 0;
  uint32_t slot = 0;  // in the thread's list
  // What its player says; see RelayThread::report_lag.
  int64_t reported_lag_ns = 0;  // by its last report; 0: within bounds
  int64_t next_report_ns = 0;   // those before are not heeded
  int64_t next_pause_ns = 0;
  int64_t paused_until_ns = 0;
  uint64_t frames_dropped = 0;
  OutboxEntry* outbox_tail = nullptr;
  int32_t outq_seen = 0;

  // Reading.
  // Texts handed to the control plane and not yet processed; it counts down from its own thread.
  // relaxed: it carries no data. It is one atomic, so every time it has come up to 16 somebody
  // counts it down from there; who does posts the resume through a queue, behind the pause.
  std::atomic<uint32_t> texts_pending{0};
  WsParser parser;
  Backlog backlog;
  std::unique_ptr<SourceState> source;
  uint64_t bytes_received = 0;
  // What it says in a second that began at `read_window_ns`: see RelayThread::time_to_read.
  int64_t read_window_ns = 0;
  uint32_t read_lately = 0;  // bytes
  uint32_t read_quota = 0;   // bytes that are read at most

  ConnectionLink ready;    // to be sent to
  ConnectionLink reading;  // to be read from
  ConnectionLink held;     // to be read from when the next sweep has come
  int64_t deadline_ns = 0;  // to register, for a fault to be told, or to finish closing
  ClosedEvent closed_event;
};

#if RELAYCORE_CONNECTION_SLOTS
namespace detail {
inline constinit Slots<sizeof(Connection), alignof(Connection)> connection_slots;
}
inline void* Connection::operator new(size_t) { return detail::connection_slots.take(); }
inline void Connection::operator delete(void* connection) noexcept {
  detail::connection_slots.give(connection);
}
#endif

static_assert(kCountsObjects || sizeof(Connection) <= 384, "there are thousands");

// Connections in the order in which they came, each once. It takes no memory of its own, and whoever
// is in it may leave at any time.
template <ConnectionLink Connection::*kLink>
class ConnectionQueue {
 public:
  bool empty() const noexcept { return !head_; }

  void push(Connection& connection) noexcept {
    ConnectionLink& link = connection.*kLink;
    if (link.next) return;
    link = {tail_, &connection};
    (tail_ ? (tail_->*kLink).next : head_) = &connection;
    tail_ = &connection;
  }

  void remove(Connection& connection) noexcept {
    ConnectionLink& link = connection.*kLink;
    if (!link.next) return;
    Connection* next = link.next == &connection ? nullptr : link.next;
    if (link.previous) (link.previous->*kLink).next = next ? next : link.previous;
    else head_ = next;
    (next ? (next->*kLink).previous : tail_) = link.previous;
    link = {};
  }

  // Takes out the first one; there must be one.
  Connection& pop() noexcept {
    Connection& first = *head_;
    remove(first);
    return first;
  }

 private:
  Connection* head_ = nullptr;
  Connection* tail_ = nullptr;
};

}  // namespace relaycore
