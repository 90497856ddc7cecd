// What replaces audio that did not come: the sound around the gap goes on, fading, by linear
// prediction. No allocation, no state; bounded time.
#pragma once

#include <cstddef>

namespace relaycore {

// Writes to `out` how the signal `history` (oldest first, n >= 1 samples) would go on for `count`
// samples: an all-pole model of it (Burg's method), run on from its last samples. Too short a
// history, or one that is not finite, gives its last sample held, or silence. Never exceeds the
// history's peak. Cost: about 5 us at 48 kHz, whatever the input.
void extrapolate(const float* history, std::size_t n, float* out, std::size_t count) noexcept;

// How much history is of use, in samples.
inline constexpr std::size_t kExtrapolateHistory = 512;

}  // namespace relaycore
