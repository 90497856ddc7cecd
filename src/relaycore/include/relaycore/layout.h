// A layout (bus): how a block becomes a frame, and the frames its listeners share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "relaycore/block.h"
#include "relaycore/frame.h"
#include "relaycore/live_objects.h"
#include "relaycore/subscription.h"

namespace relaycore {

// Scratch for rendering, one per thread.
struct RenderScratch {
  alignas(64) float left[kMaxFrameSamples];
  alignas(64) float right[kMaxFrameSamples];
};

// Payload bytes of the frame that `key` makes of `block`.
size_t frame_payload_bytes(const LayoutKey& key, const Block& block) noexcept;

// Renders the frame into `frame`, which has room for it. `from`: the mix that was heard until now,
// from which the gains move to those of `key` over this frame; nullptr: no ramp.
void render_frame(const LayoutKey& key, const LayoutKey* from, const Block& block,
                  RenderScratch& scratch, Frame& frame) noexcept;

// Levels (kind 3) of the blocks [first, last] of one stream.
void render_levels(const BlockRing& blocks, uint64_t first, uint64_t last, Frame& frame) noexcept;
inline size_t levels_payload_bytes(const Block& block) noexcept {
  return block.stream->channels * 2 * sizeof(float);
}

// The last frames of a layout by block number, rendered when first asked for. A slot's memory is
// used again unless a listener still holds the frame half-sent.
class FrameCache {
 public:
  explicit FrameCache(size_t slots) : slots_(std::make_unique<FrameRef[]>(slots)), count_(slots) {}

  // The frame of that number, or room for it (`fresh` tells) with space for the payload. Of the slots
  // only so many are used as `most` says.
  FrameRef& slot(uint64_t number, size_t payload_bytes, bool& fresh, size_t most = SIZE_MAX) {
    FrameRef& frame = slots_[number % std::min(count_, most)];
    fresh = !frame || frame->number != number;
    if (fresh) {
      if (!frame || !frame->unique() || !frame->fits(payload_bytes))
        frame = FrameRef::adopt(Frame::create(payload_bytes));
      frame->number = number;
    }
    return frame;
  }

 private:
  std::unique_ptr<FrameRef[]> slots_;
  size_t count_;
};

// One thread's own; lives while a listener uses it or still has a ramp from it to play.
class Layout : Counted<"Layout"> {
 public:
  Layout(const LayoutKey& key, uint64_t hash) noexcept : key_(key), hash_(hash) {}

  const LayoutKey& key() const noexcept { return key_; }
  uint64_t hash() const noexcept { return hash_; }
  bool is_mix() const noexcept { return key_.mode == Mode::mix; }

  // With one listener nothing is kept: its frames are rendered when their turn comes.
  bool is_shared() const noexcept { return listeners > 1; }

  // The shared frame of `block`.
  const FrameRef& frame(const Block& block, RenderScratch& scratch) {
    if (!cache_) cache_ = std::make_unique<FrameCache>(kMostRetainedBlocks);
    size_t payload_bytes = frame_payload_bytes(key_, block);
    // As many as blocks are kept, but of large ones fewer: anybody may ask for a layout of 64 channels,
    // and for hundreds of them. For who is further behind frames are rendered anew.
    size_t most = std::max(kLeastFrames, kCacheBytes / (payload_bytes + 1));
    bool fresh;
    FrameRef& frame = cache_->slot(block.number, payload_bytes, fresh,
                                   std::min<size_t>(most, block.stream->retained_blocks()));
    if (fresh) {
      render_frame(key_, nullptr, block, scratch, *frame.get());
      ++frames_built;
    }
    return frame;
  }

  void forget_frames() noexcept { cache_.reset(); }

  void lose_listener() noexcept {
    --listeners;
    if (!is_shared()) forget_frames();
  }

  uint32_t refs = 0;       // listeners, ramps and switches on their way
  uint32_t listeners = 0;  // those it is in force for
  uint64_t frames_built = 0;
  uint64_t frames_sent = 0;

 private:
  static constexpr size_t kCacheBytes = 2 << 20, kLeastFrames = 4;

  LayoutKey key_;
  uint64_t hash_;
  std::unique_ptr<FrameCache> cache_;
};

}  // namespace relaycore
