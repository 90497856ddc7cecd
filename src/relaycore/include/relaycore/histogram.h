// Histogram of durations in microseconds, log-linear: 64 steps per power of two, so a value is kept
// to 1.6 %, and counting one costs a few instructions and no memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace relaycore {

class Histogram {
 public:
  void add(int64_t us) noexcept {
    const uint64_t value = us < 0 ? 0 : static_cast<uint64_t>(us);
    ++counts_[slot(value)];
    ++count_;
    sum_ += static_cast<double>(value);
    max_ = std::max(max_, value);
  }

  void clear() noexcept {
    std::fill(counts_.begin(), counts_.end(), 0);
    count_ = max_ = 0;
    sum_ = 0;
  }

  void add(const Histogram& other) noexcept {
    for (size_t i = 0; i < kSlots; ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    sum_ += other.sum_;
    max_ = std::max(max_, other.max_);
  }

  uint64_t count() const noexcept { return count_; }
  uint64_t max_us() const noexcept { return max_; }
  double mean_us() const noexcept {
    return count_ != 0 ? sum_ / static_cast<double>(count_) : 0.0;
  }

  // The least value that a share `q` of all does not exceed, 0 when empty.
  uint64_t quantile_us(double q) const noexcept {
    const auto rank = static_cast<uint64_t>(q * static_cast<double>(count_));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i)
      if ((seen += counts_[i]) > rank) return std::min(upper(i), max_);
    return max_;
  }

  struct Range {
    uint64_t bound_us;  // none of them reaches it
    uint64_t count;     // of those that are not under the bound before
  };
  // The ranges in which there are any, four per power of two, as a relay counts its ticks.
  std::vector<Range> ranges() const {
    std::vector<Range> out;
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] == 0) continue;
      const uint64_t value = i == 0 ? 0 : upper(i - 1) + 1;
      const unsigned power = value < 4 ? 0 : static_cast<unsigned>(std::bit_width(value)) - 3;
      const uint64_t bound = ((value >> power) + 1) << power;
      if (out.empty() || out.back().bound_us != bound) out.push_back({bound, 0});
      out.back().count += counts_[i];
    }
    return out;
  }

 private:
  static constexpr unsigned kBits = 6;  // 64 steps per power of two
  static constexpr unsigned kSteps = 1u << kBits;
  static constexpr unsigned kSlots = kSteps * 40;  // to 2^45 us: a year

  static size_t slot(uint64_t value) noexcept {
    if (value < kSteps) return value;
    const unsigned power = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
    const size_t index = kSteps * power + (value >> power);
    return std::min<size_t>(index, kSlots - 1);
  }
  static uint64_t upper(size_t slot) noexcept {
    if (slot < kSteps) return slot;
    const auto power = static_cast<unsigned>(slot / kSteps) - 1;
    return ((slot % kSteps + kSteps + 1) << power) - 1;
  }

  std::vector<uint64_t> counts_ = std::vector<uint64_t>(kSlots);
  uint64_t count_ = 0, max_ = 0;
  double sum_ = 0;
};

}  // namespace relaycore
