// A jitter buffer with one thread that pushes, one that pops, and any number that look on.
//
// Packets go through a ring per channel to the popping thread, which alone owns the buffer and its
// counters. Nothing blocks or allocates after create(). Overlapping calls of the same role are
// found and refused.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "relaycore/channel_ring.h"
#include "relaycore/jitter_buffer.h"
#include "relaycore/live_objects.h"
#include "relaycore/role.h"
#include "relaycore/spsc_ring.h"

namespace relaycore {

// What a JitterBuffer tells about itself, all at one moment.
struct JitterStats {
  bool live = false;
  bool ended = false;
  double fill_ms = 0;
  double target_ms = 0;
  double jitter_ms = 0;
  double drift_ppm = 0;
  std::int64_t next_deadline_ns = 0;
  std::uint64_t end_timestamp = 0;
};

class JitterPort : Counted<"JitterPort"> {
 public:
  enum class Pushed { ok, full, finished, busy };
  enum class Popped { none, frame, busy };

  // nullptr: a value out of its range, or no memory.
  static std::unique_ptr<JitterPort> create(const JitterConfig& config) noexcept;

  // ---- pushing thread ----

  // One packet: `channels` planes from `first_channel` on (all must exist), n samples each, plane
  // after plane at `samples`. All of it goes in, or, when a ring has no room, nothing.
  Pushed push(unsigned first_channel, unsigned channels, std::uint64_t timestamp,
              std::int64_t arrival_ns, const float* samples, std::size_t n) noexcept;
  Pushed push_s16(unsigned first_channel, unsigned channels, std::uint64_t timestamp,
                  std::int64_t arrival_ns, const void* samples, std::size_t n) noexcept;

  // ---- popping thread ----

  // Takes in what was pushed, but for what is to wait (JitterBuffer::drain); then plays a frame, if
  // one is due and there are planes for it.
  Popped pop(std::int64_t now_ns, float* const* planes, FrameInfo& info) noexcept;

  // ---- any thread ----

  // What was pushed before this call is played out; later pushes are refused.
  void finish() noexcept;
  // As of the last pop().
  JitterStats stats() const noexcept;
  ChannelCounters counters(unsigned channel) const noexcept;

  unsigned channels() const noexcept { return config_.channels; }
  unsigned max_frame_samples() const noexcept { return buffer_->max_frame_samples(); }
  const JitterConfig& config() const noexcept { return config_; }

 private:
  static constexpr std::size_t kStatWords = 8;
  static constexpr std::size_t kCounterWords = 6;
  static constexpr std::size_t kMaxChannels = 64;

  explicit JitterPort(const JitterConfig& config) noexcept : config_(config) {}
  template <class Push>
  Pushed push_planes(unsigned first_channel, unsigned channels, std::size_t n,
                     Push&& push) noexcept;
  void publish() noexcept;
  void write(std::size_t word, std::uint64_t value) noexcept;
  template <std::size_t N>
  std::array<std::uint64_t, N> read(std::size_t first) const noexcept;

  const JitterConfig config_;
  std::unique_ptr<JitterBuffer> buffer_;
  std::unique_ptr<ChannelRing[]> rings_;
  std::atomic<bool> finishing_{false};
  alignas(kCacheLine) Role pushing_;
  alignas(kCacheLine) Role popping_;
  // A sequence lock: the popping thread writes, any thread reads and tries again when it was
  // disturbed. The words are atomics, so a torn read is no data race, only a wasted one.
  std::atomic<std::uint64_t> version_{0};
  std::array<std::atomic<std::uint64_t>, kStatWords + kCounterWords * kMaxChannels> words_{};
};

}  // namespace relaycore
