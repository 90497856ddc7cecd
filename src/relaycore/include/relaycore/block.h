// What the room's clock takes out of the jitter buffer at a tick: planar samples of every channel.
// A block is what travels between threads; frames are made of it where their listeners are.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "relaycore/live_objects.h"
#include "relaycore/ref.h"
#include "relaycore/task.h"
#include "relaycore/text.h"

namespace relaycore {

constexpr unsigned kMaxChannels = 64;
constexpr unsigned kMaxFrameSamples = 96'000 * 60 / 1000;  // 60 ms at 96 kHz
constexpr unsigned kRetainMs = 2000;  // how much of its past a room keeps
constexpr unsigned kMostRetainedBlocks = kRetainMs / 5;  // of the shortest frames, 5 ms

// One source session of a room ("stream" on the wire). Immutable once its first block is out.
struct StreamInfo final : Shared, Counted<"StreamInfo"> {
  uint16_t stream = 0;
  uint16_t frame_ms = 20;
  uint16_t channels = 0;
  uint32_t sample_rate = 0;
  Ref<Text> announce;  // streamStarted, due to every listener before the stream's first frame

  unsigned retained_blocks() const noexcept { return kRetainMs / frame_ms; }
  // Levels are told about ten times a second: at the end of every so many frames.
  unsigned level_period() const noexcept { return (100 + frame_ms - 1) / frame_ms; }

  static void destroy(StreamInfo* info) noexcept { delete info; }
};

class Block;

// Carries a reference to a block into another thread's queue. There is one for each thread in the
// block itself, so that publishing allocates nothing.
struct BlockPost final : Task {
  void run(RelayThread& thread) override;
  void dispose() noexcept override;

  Block* block = nullptr;
  uint64_t room = 0;
};

// A block's samples are written by the room's thread before it is published and by nobody after;
// once every other reference is gone the room's thread fills it anew.
class Block final : public Shared, Counted<"Block"> {
 public:
  static constexpr size_t kAlignment = 64;

  // `threads`: how many there are to publish it to.
  static Ref<Block> create(unsigned channels, unsigned samples, unsigned threads) {
    size_t stride = (samples + 15) & ~size_t{15};
    auto block = Ref<Block>::adopt(new Block(channels, stride));
    block->posts = std::make_unique<BlockPost[]>(threads);
    block->samples_ = static_cast<float*>(
        ::operator new(channels * stride * sizeof(float), std::align_val_t{kAlignment}));
    return block;
  }

  bool fits(unsigned channels, unsigned samples) const noexcept {
    return channels <= capacity_ && samples <= stride_;
  }
  float* plane(unsigned channel) noexcept { return samples_ + channel * stride_; }
  const float* plane(unsigned channel) const noexcept { return samples_ + channel * stride_; }

  static void destroy(Block* block) noexcept { delete block; }
  ~Block() { ::operator delete(samples_, std::align_val_t{kAlignment}); }

  Ref<StreamInfo> stream;
  uint64_t number = 0;     // +1 per block of the room, over all its streams
  uint64_t index = 0;      // +1 per block of the stream: the frame's sequence number
  uint64_t timestamp = 0;  // first sample on the room's timeline
  uint64_t time_us = 0;    // the tick's deadline on the server's clock
  uint64_t concealed = 0;  // bit c: channel c has samples that never came
  uint32_t samples = 0;
  bool discontinuity = false;
  std::unique_ptr<BlockPost[]> posts;  // by thread

 private:
  Block(unsigned channels, size_t stride) noexcept : capacity_(channels), stride_(stride) {}

  float* samples_ = nullptr;
  unsigned capacity_;
  size_t stride_;
};

// The last blocks of a room, by number. One thread's own.
class BlockRing {
 public:
  // Numbers in [oldest(), head()) are held.
  uint64_t oldest() const noexcept { return oldest_; }
  uint64_t head() const noexcept { return head_; }

  const Ref<Block>& operator[](uint64_t number) const noexcept {
    return slots_[number & (kSlots - 1)];
  }

  // Blocks come in order; one that is not the next means that what lies between is lost.
  void append(Ref<Block> block) noexcept {
    if (block->number != head_) {
      clear();
      oldest_ = head_ = block->number;
    }
    while (is_full_for(*block->stream)) take_oldest();
    held_ms_ += block->stream->frame_ms;
    slots_[head_++ & (kSlots - 1)] = std::move(block);
  }

  // An empty ring's first number.
  void begin_at(uint64_t number) noexcept {
    if (oldest_ == head_) oldest_ = head_ = number;
  }

  // Whether a block of that stream needs the place of the oldest one.
  bool is_full_for(const StreamInfo& stream) const noexcept {
    return held_ms_ + stream.frame_ms > kRetainMs;
  }
  bool is_older_than(uint64_t ms, int64_t now_us) const noexcept {
    return oldest_ != head_ &&
           (*this)[head_ - 1]->time_us + ms * 1000 < static_cast<uint64_t>(now_us);
  }

  Ref<Block> take_oldest() noexcept {
    Ref<Block> block = std::move(slots_[oldest_++ & (kSlots - 1)]);
    held_ms_ -= block->stream->frame_ms;
    return block;
  }

  void clear() noexcept {
    while (oldest_ != head_) take_oldest();
  }

 private:
  static constexpr size_t kSlots = 512;
  static_assert(kSlots >= kMostRetainedBlocks && (kSlots & (kSlots - 1)) == 0);

  uint64_t oldest_ = 0;
  uint64_t head_ = 0;
  uint64_t held_ms_ = 0;
  std::unique_ptr<Ref<Block>[]> slots_ = std::make_unique<Ref<Block>[]>(kSlots);
};

}  // namespace relaycore
