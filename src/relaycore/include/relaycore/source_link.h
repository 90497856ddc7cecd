// What joins a source's connection to its room, whichever threads the two are on: the channel
// rings and a few flags.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

#include "relaycore/channel_ring.h"
#include "relaycore/counters.h"
#include "relaycore/live_objects.h"
#include "relaycore/packet.h"
#include "relaycore/ref.h"

namespace relaycore {

class SourceLink final : public Shared, Counted<"SourceLink"> {
 public:
  // Rings for about a third of a second; a source that is ahead of that waits. nullptr: no memory.
  static Ref<SourceLink> create(const SourceFormat& format, uint64_t connection, uint64_t room,
                                Ref<RoomCounters> counters) {
    auto link = Ref<SourceLink>::adopt(
        new (std::nothrow) SourceLink(format, connection, room, std::move(counters)));
    if (!link) return {};
    link->rings_.reset(new (std::nothrow) ChannelRing[format.channels]);
    if (!link->rings_) return {};
    for (unsigned c = 0; c < format.channels; ++c)
      if (!link->rings_[c].init(format.sample_rate / 3)) return {};
    return link;
  }

  ChannelRing& ring(unsigned channel) noexcept { return rings_[channel]; }

  const SourceFormat format;
  const uint64_t connection;
  const uint64_t room;
  const Ref<RoomCounters> counters;

  // Set by the writer when a packet did not fit, before it looks at the rings once more; taken back
  // by the reader after it has drained them. Both exchange, with acq_rel: if the reader's exchange
  // comes second it finds the flag set; if the writer's does, it acquires what the reader released,
  // so that the look that follows sees the space, if there was any to make. A plain store on either
  // side, sequentially consistent or not, would leave a third possibility, in which both wait.
  std::atomic<bool> writer_waits{false};
  // relaxed: told by the room's thread when the stream is over; the writer drops what still comes.
  // One that waits for space is woken through its thread's queue, which brings the flag along.
  std::atomic<bool> cut{false};
  // For the source's report. The offset is relaxed, the flag released behind it and acquired: who
  // sees it set sees an offset that was measured, if not the latest.
  std::atomic<bool> has_capture_offset{false};
  std::atomic<int64_t> capture_offset_us{0};
  // A report is on its way to the control plane. It is set with acquire and taken back with
  // release, so that the end of one report comes before the beginning of the next.
  std::atomic<bool> report_waits{false};

  static void destroy(SourceLink* link) noexcept { delete link; }

 private:
  SourceLink(const SourceFormat& format, uint64_t connection, uint64_t room,
             Ref<RoomCounters> counters) noexcept
      : format(format), connection(connection), room(room), counters(std::move(counters)) {}

  std::unique_ptr<ChannelRing[]> rings_;
};

}  // namespace relaycore
