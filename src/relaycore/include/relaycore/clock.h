// The clock that makes the tick follow the source: measurement, target and loop.
//
// Nothing here reads a clock. Every function is a pure function of its state and its arguments, so
// a day is simulated in the time its arithmetic takes. Single-threaded; no allocation.
//
// The level that is held is not the number of samples that happen to be buffered, which saws up and
// down by a packet's length, but the delay between the source and the playout:
//   transit of a packet = its arrival - the time at which its last sample was due, in samples
//   mean transit        = the transit averaged over some seconds
//   fill(t)             = source position reached at t by the mean transit - position played at t
// With steady packets fill is constant, just before a packet comes it is what is buffered plus one
// packet, and it needs to be a packet, a frame and the lateness of late packets to play whole.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace relaycore {

// Differences of timestamps and clocks are taken modulo 2^64, so that no input overflows.
inline std::int64_t wrapping_difference(std::uint64_t a, std::uint64_t b) noexcept {
  return static_cast<std::int64_t>(a - b);
}
inline std::int64_t elapsed_ns(std::int64_t from, std::int64_t to) noexcept {
  return wrapping_difference(static_cast<std::uint64_t>(to), static_cast<std::uint64_t>(from));
}
inline std::int64_t later_by(std::int64_t time_ns, std::int64_t ns) noexcept {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(time_ns) +
                                   static_cast<std::uint64_t>(ns));
}

// Delay-locked loop: from how far the fill is above its target, how much faster to play. A
// critically damped second-order loop of 33 s time constant: a clock that is off by 200 ppm moves
// the fill by less than 3 ms until its drift is learned; afterwards not at all.
class ClockLoop {
 public:
  static constexpr double kMaxSpeed = 1000e-6;

  // error_s: fill above target; dt_s since the last update. Returns the speed, within +-kMaxSpeed.
  double update(double error_s, double dt_s) noexcept {
    // The drift is learned from small errors only: a large one comes from a new target or a new
    // network path and says nothing about the source's clock.
    const double small = std::clamp(error_s, -kSmallError, kSmallError);
    drift_ = std::clamp(drift_ + kIntegral * small * dt_s, -kMaxSpeed, kMaxSpeed);
    return std::clamp(drift_ + kProportional * error_s, -kMaxSpeed, kMaxSpeed);
  }

  // How much faster than ours the source's clock runs, as far as it is known.
  double drift() const noexcept { return drift_; }

 private:
  static constexpr double kFrequency = 0.03;  // rad/s
  static constexpr double kProportional = 2 * kFrequency;
  static constexpr double kIntegral = kFrequency * kFrequency;
  static constexpr double kSmallError = 5e-3;

  double drift_ = 0;
};

// The largest value of the last 30 to 40 s.
class PeakHold {
 public:
  void put(double value) noexcept { slots_[0] = std::max(slots_[0], value); }

  double peak() const noexcept { return *std::max_element(slots_.begin(), slots_.end()); }

  void advance(std::int64_t now_ns) noexcept {
    if (!started_ || elapsed_ns(since_ns_, now_ns) < 0) {
      started_ = true;
      since_ns_ = now_ns;
      return;
    }
    for (std::size_t i = 0; i < slots_.size() && elapsed_ns(since_ns_, now_ns) >= kSlotNs; ++i) {
      std::move_backward(slots_.begin(), slots_.end() - 1, slots_.end());
      slots_[0] = 0;
      since_ns_ = i + 1 < slots_.size() ? later_by(since_ns_, kSlotNs) : now_ns;
    }
  }

 private:
  static constexpr std::int64_t kSlotNs = 10'000'000'000;

  std::array<double, 4> slots_{};
  std::int64_t since_ns_ = 0;
  bool started_ = false;
};

// When packets come, compared with when their samples were due. All values in samples.
class ArrivalClock {
 public:
  explicit ArrivalClock(double sample_rate) noexcept : rate_(sample_rate) {}

  // The source's positions start anew; what was learned about its packets stays.
  void anchor(std::uint64_t source_timestamp, std::int64_t arrival_ns) noexcept {
    reference_timestamp_ = source_timestamp;
    reference_ns_ = arrival_ns;
    folds_ = 0;
    mean_ = 0;
    weight_ = 0;
    sum_ = 0;
    last_arrival_ns_ = arrival_ns;
  }

  // One packet that brought something new; `end` is the timestamp behind its last sample.
  void packet(std::uint64_t end, std::int64_t arrival_ns, std::size_t length) noexcept {
    const double samples = static_cast<double>(length);
    const double transit = at(arrival_ns) - position(end);
    if (folds_ == 0 && weight_ == 0) mean_ = transit;
    sum_ += transit * samples;
    weight_ += samples;
    last_arrival_ns_ = arrival_ns;
    const double late = transit - mean_;
    length_.put(samples);
    late_.put(late);
    need_.put(samples + late);
  }

  // Once a tick: takes what came since the last call into the mean.
  void fold(std::int64_t now_ns) noexcept {
    length_.advance(now_ns);
    late_.advance(now_ns);
    need_.advance(now_ns);
    if (weight_ == 0) return;
    const double dt =
        folds_ == 0 ? 0 : std::clamp(1e-9 * static_cast<double>(elapsed_ns(folded_ns_, now_ns)),
                                     0.0, 1.0);
    folded_ns_ = now_ns;
    if (folds_ < kWarmUp) ++folds_;
    const double gain = std::max(dt / (kMeanSeconds + dt), 1.0 / folds_);
    mean_ += gain * (sum_ / weight_ - mean_);
    sum_ = 0;
    weight_ = 0;
  }

  // How far the source is ahead of `timestamp` at `time_ns`, by the mean transit.
  double ahead_of(std::uint64_t timestamp, std::int64_t time_ns) const noexcept {
    return at(time_ns) - mean_ - position(timestamp);
  }

  // The same by the packet alone that it was anchored with, taken to be as long as the longest.
  double ahead_since_anchor(std::uint64_t timestamp, std::int64_t time_ns) const noexcept {
    return at(time_ns) + longest_packet() - position(timestamp);
  }

  std::int64_t last_arrival_ns() const noexcept { return last_arrival_ns_; }
  double longest_packet() const noexcept { return length_.peak(); }
  double lateness() const noexcept { return late_.peak(); }
  // Fill that lets the worst packet of the last half minute come in time, without the frame.
  double need() const noexcept { return need_.peak(); }

 private:
  static constexpr double kMeanSeconds = 4;
  static constexpr int kWarmUp = 1 << 20;

  double at(std::int64_t time_ns) const noexcept {
    return 1e-9 * static_cast<double>(elapsed_ns(reference_ns_, time_ns)) * rate_;
  }
  double position(std::uint64_t timestamp) const noexcept {
    return static_cast<double>(wrapping_difference(timestamp, reference_timestamp_));
  }

  double rate_;
  std::uint64_t reference_timestamp_ = 0;
  std::int64_t reference_ns_ = 0;
  std::int64_t folded_ns_ = 0;
  std::int64_t last_arrival_ns_ = 0;
  int folds_ = 0;
  double mean_ = 0;
  double sum_ = 0;
  double weight_ = 0;
  PeakHold length_;
  PeakHold late_;
  PeakHold need_;
};

}  // namespace relaycore
