#include "relaycore/conceal.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace relaycore {
namespace {

constexpr std::size_t kOrder = 16;
constexpr std::size_t kLanes = 8;  // partial sums, so that the compiler may use vectors

// Two sums over the same range: sum(a*b) and sum(a*a + b*b).
void correlate(const float* a, const float* b, std::size_t n, double& cross, double& energy) {
  std::array<float, kLanes> ab{};
  std::array<float, kLanes> aa_bb{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) {
      ab[k] += a[i + k] * b[i + k];
      aa_bb[k] += a[i + k] * a[i + k] + b[i + k] * b[i + k];
    }
  }
  for (; i < n; ++i) {
    ab[0] += a[i] * b[i];
    aa_bb[0] += a[i] * a[i] + b[i] * b[i];
  }
  cross = 0;
  energy = 0;
  for (std::size_t k = 0; k < kLanes; ++k) {
    cross += ab[k];
    energy += aa_bb[k];
  }
}

// Burg's method: x[t] ~ sum(coefficients[k] * x[t - 1 - k]). Reflection coefficients stay inside
// (-1, 1), so the model never grows. Returns the order that was reached.
std::size_t burg(const float* x, std::size_t n, std::array<double, kOrder>& coefficients) {
  std::array<float, kExtrapolateHistory> forward;
  std::array<float, kExtrapolateHistory> backward;
  std::copy_n(x, n, forward.begin());
  std::copy_n(x, n, backward.begin());
  const std::size_t order = std::min(kOrder, n / 3);
  double floor = 0;
  for (std::size_t m = 0; m < order; ++m) {
    // At this stage forward[m + 1 ..] goes with backward[m .. n - 2].
    const std::size_t count = n - m - 1;
    float* f = forward.data() + m + 1;
    float* b = backward.data() + m;
    double cross;
    double energy;
    correlate(f, b, count, cross, energy);
    if (m == 0) floor = 1e-10 * energy;
    if (!(energy > floor)) return m;  // predicted perfectly, or silence
    const double reflection = std::clamp(2 * cross / energy, -0.99999, 0.99999);
    const auto r = static_cast<float>(reflection);
    for (std::size_t i = 0; i < count; ++i) {
      const float f_i = f[i];
      f[i] = f_i - r * b[i];
      b[i] = b[i] - r * f_i;
    }
    std::array<double, kOrder> previous = coefficients;
    coefficients[m] = reflection;
    for (std::size_t k = 0; k < m; ++k) {
      coefficients[k] = previous[k] - reflection * previous[m - 1 - k];
    }
  }
  return order;
}

}  // namespace

void extrapolate(const float* history, std::size_t n, float* out, std::size_t count) noexcept {
  if (n > kExtrapolateHistory) {
    history += n - kExtrapolateHistory;
    n = kExtrapolateHistory;
  }
  float peak = 0;
  bool finite = true;
  for (std::size_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(history[i]);
    peak = std::max(peak, std::abs(history[i]));
  }
  // Squares of larger values would overflow; such a signal is noise of the caller's anyway.
  if (!finite || peak > 1e15f) {
    std::fill_n(out, count, 0.0f);
    return;
  }
  std::array<double, kOrder> coefficients{};
  const std::size_t order = n < 3 || peak < 1e-15f ? 0 : burg(history, n, coefficients);
  if (order == 0) {
    std::fill_n(out, count, history[n - 1]);
    return;
  }
  std::array<float, kOrder> weights{};
  for (std::size_t k = 0; k < order; ++k) weights[k] = static_cast<float>(coefficients[k]);
  // Newest first, twice the order long, so that the newest kOrder are always contiguous.
  std::array<float, 2 * kOrder> recent{};
  std::size_t newest = kOrder;
  for (std::size_t k = 0; k < order; ++k) recent[newest + k] = history[n - 1 - k];
  for (std::size_t i = 0; i < count; ++i) {
    std::array<float, 4> sum{};
    for (std::size_t k = 0; k < kOrder; ++k) sum[k % 4] += weights[k] * recent[newest + k];
    const float next = std::clamp((sum[0] + sum[1]) + (sum[2] + sum[3]), -peak, peak);
    if (newest == 0) {
      std::copy_n(recent.begin(), kOrder, recent.begin() + kOrder);
      newest = kOrder;
    }
    recent[--newest] = next;
    out[i] = next;
  }
}

}  // namespace relaycore
