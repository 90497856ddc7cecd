// What joins a source's connection to its room, whichever threads the two are on: the channel
// rings and a few flags.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

#include "relaycore/channel_ring.h"
#include "relaycore/counters.h"
#include "relaycore/packet.h"
#include "relaycore/ref.h"

namespace relaycore {

class SourceLink final : public Shared {
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

  // Set by the writer when a packet did not fit, before it looks at the rings once more; the
  // reader takes it back after it has drained them. seq_cst on both sides: either the writer sees
  // the room that was made, or the reader sees that it waits.
  std::atomic<bool> writer_waits{false};
  // relaxed: told by the room's thread when the stream is over; the writer drops what still comes.
  std::atomic<bool> cut{false};
  // relaxed: figures for the source's report.
  std::atomic<bool> has_capture_offset{false};
  std::atomic<int64_t> capture_offset_us{0};
  // A report is on its way to the control plane. acq_rel keeps one report's end before the next.
  std::atomic<bool> report_waits{false};

  static void destroy(SourceLink* link) noexcept { delete link; }

 private:
  SourceLink(const SourceFormat& format, uint64_t connection, uint64_t room,
             Ref<RoomCounters> counters) noexcept
      : format(format), connection(connection), room(room), counters(std::move(counters)) {}

  std::unique_ptr<ChannelRing[]> rings_;
};

}  // namespace relaycore
