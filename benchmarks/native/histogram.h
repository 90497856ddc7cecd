// Histogram of durations in microseconds, log-linear: 64 steps per power of two, so a value is kept
// to 1.6 %, and counting one costs a few instructions and no memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace bench {

class Histogram {
 public:
  void add(int64_t us) {
    const uint64_t value = us < 0 ? 0 : static_cast<uint64_t>(us);
    ++counts_[slot(value)];
    ++count_;
    sum_ += static_cast<double>(value);
    max_ = std::max(max_, value);
  }

  void clear() {
    std::fill(counts_.begin(), counts_.end(), 0);
    count_ = max_ = 0;
    sum_ = 0;
  }

  // The least value that a share `q` of all does not exceed, 0 when empty.
  uint64_t quantile(double q) const {
    const auto rank = static_cast<uint64_t>(q * static_cast<double>(count_));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i)
      if ((seen += counts_[i]) > rank) return std::min(upper(i), max_);
    return max_;
  }

  // Milliseconds, as JSON.
  std::string json() const {
    char text[256];
    const auto ms = [](double us) { return us / 1000; };
    std::snprintf(text, sizeof text,
                  R"({"count":%llu,"mean":%.3f,"p50":%.3f,"p90":%.3f,"p99":%.3f,"p999":%.3f,"max":%.3f})",
                  static_cast<unsigned long long>(count_),
                  count_ ? ms(sum_ / static_cast<double>(count_)) : 0.0, at(0.5), at(0.9), at(0.99),
                  at(0.999), ms(static_cast<double>(max_)));
    return text;
  }

  // How many there are in each range, as JSON: pairs of a bound in microseconds, which none of them
  // reaches, and a count. Four ranges per power of two, as a relay counts its ticks.
  std::string ranges_json() const {
    std::string out = "[";
    uint64_t bound = 0, count = 0;
    const auto write = [&] {
      if (count > 0)
        out += (out.size() > 1 ? ",[" : "[") + std::to_string(bound) + "," + std::to_string(count) + "]";
    };
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] == 0) continue;
      const uint64_t value = i == 0 ? 0 : upper(i - 1) + 1;
      const unsigned power = value < 4 ? 0 : static_cast<unsigned>(std::bit_width(value)) - 3;
      const uint64_t next = ((value >> power) + 1) << power;
      if (next != bound) write(), count = 0;
      bound = next;
      count += counts_[i];
    }
    write();
    return out + "]";
  }

 private:
  static constexpr unsigned kBits = 6;  // 64 steps per power of two
  static constexpr unsigned kSteps = 1u << kBits;
  static constexpr unsigned kSlots = kSteps * 40;  // to 2^45 us: a year

  static size_t slot(uint64_t value) {
    if (value < kSteps) return value;
    const unsigned power = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
    const size_t index = kSteps * power + (value >> power);
    return std::min<size_t>(index, kSlots - 1);
  }
  static uint64_t upper(size_t slot) {
    if (slot < kSteps) return slot;
    const auto power = static_cast<unsigned>(slot / kSteps) - 1;
    return ((slot % kSteps + kSteps + 1) << power) - 1;
  }
  double at(double q) const { return static_cast<double>(quantile(q)) / 1000; }

  std::vector<uint32_t> counts_ = std::vector<uint32_t>(kSlots);
  uint64_t count_ = 0, max_ = 0;
  double sum_ = 0;
};

}  // namespace bench
