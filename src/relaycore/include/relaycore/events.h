// What the relay tells the control plane.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "relaycore/jitter_buffer.h"
#include "relaycore/live_objects.h"
#include "relaycore/mpsc_queue.h"
#include "relaycore/source_link.h"
#include "relaycore/task.h"

namespace relaycore {

struct Connection;

enum class EventKind : uint8_t {
  text,
  binary,
  closed,
  stream_live,
  stream_buffering,
  stream_ended,
  source_report,
  room_report,
  thread_stall,
};

// Why a connection ended. The numbers are those of relaycore.events.CloseReason, in order.
enum class CloseReason : uint8_t {
  peer_closed,
  peer_lost,
  protocol_error,
  too_big,
  rate_limited,
  not_registered,
  too_slow,
  source_silent,
  closed,
  room_closed,
  shutdown,
};

struct Event : QueueNode, Counted<"Event"> {
  explicit Event(EventKind kind, uint64_t subject) noexcept : subject(subject), kind(kind) {}
  uint64_t subject;  // connection, room or thread
  EventKind kind;    // last, so that small members of what derives from it fill the gap behind
};

struct MessageEvent final : Event {
  // Lets the connection be read again. A part of the event, so that it can't be lost for want of
  // memory; the event goes with it.
  struct Resume final : Task {
    explicit Resume(MessageEvent& event) noexcept : event(event) {}
    void run(RelayThread& thread) override;
    void dispose() noexcept override { delete &event; }
    MessageEvent& event;
  };

  MessageEvent(EventKind kind, uint64_t subject) noexcept : Event(kind, subject), resume(*this) {}
  Resume resume;
  Connection* connection = nullptr;  // lives until its ClosedEvent has been polled
  int64_t received_us = 0;
  std::string data;
};

// Embedded in its connection, so that it can't be lost for want of memory. Every connection has one
// all its life, so it is small.
struct ClosedEvent final : Event {
  ClosedEvent(uint64_t id, Connection* connection) noexcept
      : Event(EventKind::closed, id), connection(connection) {}
  CloseReason reason = CloseReason::peer_lost;
  uint16_t code = 1006;
  float lag_ms = 0;
  Connection* const connection;  // whose record goes with this event; what it counted is final

  // Why, in words for people; most have none.
  std::string_view detail() const noexcept { return detail_ ? *detail_ : std::string_view{}; }
  void set_detail(std::string_view text) {
    detail_ = text.empty() ? nullptr : std::make_unique<std::string>(text);
  }

 private:
  std::unique_ptr<std::string> detail_;
};

struct StreamEvent final : Event {
  using Event::Event;
  uint16_t stream = 0;
  uint64_t timestamp = 0;  // stream_live: first sample of the stream's timeline
  bool drained = false;    // stream_ended: played out after unbind_source
};

struct SourceReportEvent final : Event {
  using Event::Event;
  Ref<SourceLink> link;  // which has no second report under way
  uint64_t connection = 0;
  uint16_t stream = 0;
  double fill_ms = 0, target_ms = 0, jitter_ms = 0, drift_ppm = 0;
  bool has_capture_offset = false;
  int64_t capture_offset_us = 0;
  std::vector<ChannelCounters> channels;
};

struct ListenerFigures {
  uint64_t connection;
  uint64_t layout;
  uint64_t frames_sent, frames_dropped, bytes_sent;
  uint32_t frames_behind;
  double lag_ms, round_trip_ms;
};

struct LayoutFigures {
  uint64_t layout;
  uint32_t listeners;
  uint64_t frames_built, frames_sent;
};

// A relay thread did not come round when it was due, or does again.
struct ThreadStallEvent final : Event {
  using Event::Event;
  double late_ms = 0;
  bool over = false;
};

// One thread's part of a room.
struct RoomReportEvent final : Event {
  using Event::Event;
  unsigned thread = 0;
  std::vector<ListenerFigures> listeners;
  std::vector<LayoutFigures> layouts;
};

}  // namespace relaycore
