// What replaces audio that did not come: the sound beside the gap goes on. No allocation, no state;
// bounded time.
#pragma once

#include <cmath>
#include <cstddef>
#include <numbers>

namespace relaycore {

// Raised cosine from (nearly) 1 to (nearly) 0 over `length` samples, from sample `at` on. A falling
// one and a rising one (next() of the distance from the end) over the same samples add up to 1.
class RaisedCosine {
 public:
  RaisedCosine(std::size_t at, std::size_t length) noexcept {
    const double step = std::numbers::pi / static_cast<double>(length + 1);
    twice_ = 2 * std::cos(step);
    now_ = std::cos(step * static_cast<double>(at + 1));
    before_ = std::cos(step * static_cast<double>(at));
  }

  float next() noexcept {
    const auto weight = static_cast<float>(0.5 + 0.5 * now_);
    const double after = twice_ * now_ - before_;
    before_ = now_;
    now_ = after;
    return weight;
  }

 private:
  double twice_;
  double now_;
  double before_;
};

// The most history that is used, in samples: 32 ms at 96 kHz.
inline constexpr std::size_t kMaxSoundHistory = 3072;

// Writes to `out` how the sound `history` (oldest first, n >= 1 samples) might go on for `count`
// samples: a piece of it again, the one whose beginnings are most like the last samples, shifted so
// that it adjoins them and let go from the shift within a millisecond. A tone goes on in phase; a
// history that is too short goes on as its last sample, one that is not finite as silence. Never
// exceeds the history's peak.
//
// With count = 10 ms, n = 32 ms catches tones down to 50 Hz. Cost: 5 to 10 us at 48 kHz.
void extrapolate(const float* history, std::size_t n, float* out, std::size_t count) noexcept;

}  // namespace relaycore
