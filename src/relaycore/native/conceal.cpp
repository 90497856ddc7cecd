#include "relaycore/conceal.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace relaycore {
namespace {

// So many samples, spread evenly, stand for the last twelfth of the history when it is looked for
// further back.
constexpr std::size_t kPoints = 16;
constexpr std::size_t kAtOnce = 4;
constexpr std::size_t kTemplateShare = 12;
// The shift is let go over this share of the history.
constexpr std::size_t kShiftShare = 24;
constexpr std::size_t kLeastHistory = kTemplateShare * kPoints;

// How far back, from `nearest` to `farthest` samples, the history was most like at its end.
std::size_t best_lag(const float* history, std::size_t n, std::size_t nearest,
                     std::size_t farthest, std::size_t stride) {
  std::array<float, kMaxSoundHistory> distance;
  const std::size_t lags = farthest - nearest + 1;
  std::fill_n(distance.begin(), lags, 0.0f);
  for (std::size_t p = 0; p < kPoints; p += kAtOnce) {
    std::array<float, kAtOnce> wanted;
    std::array<const float*, kAtOnce> found;
    for (std::size_t k = 0; k < kAtOnce; ++k) {
      const std::size_t at = n - 1 - (p + k) * stride;
      wanted[k] = history[at];
      // distance[i] belongs to the lag `farthest - i`, so that both run through memory upwards.
      found[k] = history + (at - farthest);
    }
    for (std::size_t i = 0; i < lags; ++i) {
      float sum = 0;
      for (std::size_t k = 0; k < kAtOnce; ++k) {
        const float difference = wanted[k] - found[k][i];
        sum += difference * difference;
      }
      distance[i] += sum;
    }
  }
  const auto least = std::min_element(distance.begin(),
                                      distance.begin() + static_cast<std::ptrdiff_t>(lags));
  return farthest - static_cast<std::size_t>(least - distance.begin());
}

}  // namespace

void extrapolate(const float* history, std::size_t n, float* out, std::size_t count) noexcept {
  if (n > kMaxSoundHistory) {
    history += n - kMaxSoundHistory;
    n = kMaxSoundHistory;
  }
  float peak = 0;
  int sane = 1;
  for (std::size_t i = 0; i < n; ++i) {
    const float size = std::abs(history[i]);
    // Squares of larger values would overflow; no audio has them. NaN is not smaller either.
    sane &= static_cast<int>(size < 1e15f);
    peak = size > peak ? size : peak;
  }
  if (sane == 0) {
    std::fill_n(out, count, 0.0f);
    return;
  }
  const float last = history[n - 1];
  if (n < kLeastHistory) {
    std::fill_n(out, count, last);
    return;
  }

  const std::size_t stride = n / (kTemplateShare * kPoints);
  // One more than the points span: the sample before the piece is what it adjoins.
  const std::size_t farthest = n - 1 - kPoints * stride;
  // No nearer than the piece is long, if there is enough history: else it would be repeated.
  const std::size_t nearest = std::min(count, farthest / 2);
  const std::size_t lag = best_lag(history, n, nearest, farthest, stride);

  const float* piece = history + (n - lag);
  for (std::size_t i = 0, j = 0; i < count; ++i) {
    out[i] = piece[j];
    if (++j == lag) j = 0;
  }
  const float shift = last - history[n - 1 - lag];
  const std::size_t eased = std::min(count, n / kShiftShare);
  RaisedCosine falling(0, eased);
  for (std::size_t i = 0; i < eased; ++i) {
    out[i] = std::clamp(out[i] + falling.next() * shift, -peak, peak);
  }
}

}  // namespace relaycore
