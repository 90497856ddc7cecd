// A room on the two kinds of threads it lives on: its home, where the source's samples are put on
// the timeline and the clock ticks; and a view wherever somebody listens.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "relaycore/block.h"
#include "relaycore/connection.h"
#include "relaycore/counters.h"
#include "relaycore/jitter_buffer.h"
#include "relaycore/layout.h"
#include "relaycore/live_objects.h"
#include "relaycore/source_link.h"

namespace relaycore {

class RelayThread;

// All that a source session brings along. Made on the control plane, so that the memory is there
// before a relay thread hears of it.
struct SourceSession {
  Ref<SourceLink> link;
  Ref<StreamInfo> info;
  std::unique_ptr<JitterBuffer> jitter;
  std::string announce;  // streamStarted, cut where the timestamp belongs
};

// Home side; the home thread's own.
class Room : Counted<"Room"> {
 public:
  Room(RelayThread& thread, uint64_t id, Ref<RoomCounters> counters)
      : id(id), thread_(thread), counters_(std::move(counters)) {}

  void begin_stream(SourceSession session);
  // The source says goodbye (or is gone): what is buffered is played out.
  void finish_stream(const SourceLink* link, bool drained);
  // Cuts the stream off where it is.
  void end_stream();

  // Moves what the source wrote into the jitter buffer; whether all of it.
  bool drain_rings();
  // Makes the blocks that are due. Returns when it wants to be called again; 0: there is no stream.
  int64_t tick(int64_t now_ns);

  // The connection it hears; 0: none.
  uint64_t source() const noexcept { return session_ ? session_->link->connection : 0; }

  void forget_past(int64_t now_ns);

  void subscribe(unsigned thread);
  void unsubscribe(unsigned thread) { subscribers_ &= ~(uint64_t{1} << thread); }

  const uint64_t id;
  bool scheduled = false;  // stands in the thread's heap of deadlines

 private:
  Block* spare_block();
  void publish(Ref<Block> block);
  void tell_pause();
  void report(int64_t now_ns);
  void post_stream_event(EventKind kind, bool drained = false);

  RelayThread& thread_;
  Ref<RoomCounters> counters_;
  uint64_t subscribers_ = 0;  // bit t: thread t has a view
  BlockRing blocks_;
  Ref<Block> spare_;

  std::unique_ptr<SourceSession> session_;
  bool was_live_ = false;
  bool finishing_ = false;
  bool source_waited_ = false;  // for room in the rings, when they were drained last
  bool drained_ = false;
  uint64_t origin_ = 0;        // first timestamp of the stream
  uint64_t timeline_end_ = 0;  // first timestamp that no stream of this room has used
  int64_t next_report_ns_ = 0;
};

// Where in the audio a listener begins: at `from`, a timestamp, as far as it is still kept; else so
// far in the past; else with what comes next.
struct JoinPoint {
  uint64_t from = 0;
  uint32_t burst_ms = 0;
};

// Listeners' side; its thread's own.
class RoomView : Counted<"RoomView"> {
 public:
  RoomView(RelayThread& thread, uint64_t room, Ref<RoomCounters> counters)
      : room(room), counters(std::move(counters)), thread_(thread) {}

  void add(Connection& connection, JoinPoint join);
  void remove(Connection& connection);

  // The layout of that key, with one more reference.
  Layout* acquire_layout(const LayoutKey& key);
  void release_layout(Layout* layout);

  // A block from the room's home; one that came already is passed over.
  void accept(Ref<Block> block);
  // What the home kept from before the view was there.
  void accept_past(const BlockRing& past);
  // The pass comes to the first listener.
  void begin_round() noexcept;
  // No block follows for a while: what grouping holds back goes out.
  void flush();
  // Drops audio of a room that has long been silent.
  void forget_past(int64_t now_ns);

  bool levels_end_with(const Block& block) const noexcept {
    return (block.index + 1) % block.stream->level_period() == 0;
  }
  // Levels that end with block `number`, or nothing when they aren't due there.
  FrameRef levels_after(uint64_t number);

  const uint64_t room;
  const Ref<RoomCounters> counters;
  BlockRing blocks;
  std::vector<Connection*> listeners;
  std::unordered_multimap<uint64_t, std::unique_ptr<Layout>> layouts;
  bool synced = false;       // the past has come
  bool live = false;         // blocks keep coming
  bool in_pass = false;      // stands in the thread's queue of passes
  size_t pass_position = 0;  // who is visited next
  size_t visits_due = 0;     // how many more
  bool cut_short = false;    // frames were given up for want of time, in this round of the pass
  bool outpaced = false;     // in the last one, and no standstill was the reason
  int64_t came_late_ns = 0;  // when a block came that long was due: some thread had stood still
  uint64_t flush_before = 0;  // blocks below go out whatever the interval

 private:
  bool last_was_late_ = false;

  void schedule_pass();
  // The listener's place when it joins.
  void place(Connection& connection, JoinPoint join);

  RelayThread& thread_;
  std::unique_ptr<FrameCache> levels_;
  std::vector<JoinPoint> joins_;  // of the listeners, in their order, until the past has come
};

}  // namespace relaycore
