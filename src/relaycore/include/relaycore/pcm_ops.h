// The sample loops: interleave, deinterleave, convert, mix, meter. One table of functions per
// instruction set; the table that this CPU runs best is found once and used for everything.
//
// A plane is the samples of one channel, one after another. "Interleaved" is sample after sample,
// each with all its channels. Planes are aligned to their type; interleaved data (`void*`) may
// start at any byte, because it is written into and read from messages. Sizes are in samples per
// channel (n) and may be anything from 0; so may the number of channels. Output never overlaps
// input, and no function touches a byte outside what it is given. None allocates, locks or keeps
// a pointer; all may be called from any thread. Fastest are planes aligned to 64 bytes whose
// distance is no multiple of 4096 bytes (those share few cache lines: up to twice the time).
//
// Numbers: 16-bit full scale is 2^15 both ways. To 16 bits: times 32768, round half to even (in
// the default rounding mode), saturate, no dither, NaN becomes 0. From 16 bits: divide by 32768,
// which is exact, so 16 bits -> float -> 16 bits gives back what it was given.
//
// All tables give the same bits, on every machine, with two exceptions that nobody can hear: the
// sum of `levels` is added up in another order, and of a NaN only that it is one is the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace relaycore {

struct PcmOps {
  const char* name;  // "scalar", "sse2", "avx2", "avx512" or "neon"

  // planes[channels][n] -> out[n][channels]
  void (*interleave_f32)(const float* const* planes, unsigned channels, size_t n,
                         void* out) noexcept;
  void (*interleave_s16)(const float* const* planes, unsigned channels, size_t n,
                         void* out) noexcept;  // converts float to 16 bits
  void (*interleave_s16_s16)(const int16_t* const* planes, unsigned channels, size_t n,
                             void* out) noexcept;

  // in[n][channels] -> planes[channels][n]; a plane that is nullptr is left out.
  void (*deinterleave_f32)(const void* in, unsigned channels, size_t n,
                           float* const* planes) noexcept;
  void (*deinterleave_s16)(const void* in, unsigned channels, size_t n,
                           float* const* planes) noexcept;  // converts 16 bits to float
  void (*deinterleave_s16_s16)(const void* in, unsigned channels, size_t n,
                               int16_t* const* planes) noexcept;

  // n samples one after another.
  void (*s16_to_f32)(const void* in, size_t n, float* out) noexcept;
  void (*f32_to_s16)(const float* in, size_t n, void* out) noexcept;

  // out[o][i] = sum over c, in ascending order, of gains[o * channels + c] * planes[c][i].
  // A gain of 0 leaves its channel out altogether: what is muted adds nothing, not even its NaNs.
  void (*mix)(const float* const* planes, unsigned channels, size_t n, const float* gains,
              unsigned outputs, float* const* out) noexcept;
  // The same with gains that move in a straight line: sample i has from + (to - from) * i / n, so
  // the ramp that starts where this one ends goes on without a step. Left out: both gains 0.
  void (*mix_ramp)(const float* const* planes, unsigned channels, size_t n, const float* from,
                   const float* to, unsigned outputs, float* const* out) noexcept;

  // The largest magnitude and the sum of squares of n samples; NaN counts as 0.
  void (*levels)(const float* in, size_t n, float* peak, double* sum_squares) noexcept;
};

// The table in use: the best one that this CPU runs, unless another is forced.
const PcmOps& pcm_ops() noexcept;

// The tables that this CPU runs, best first; the last one is "scalar".
std::span<const PcmOps* const> pcm_ops_available() noexcept;

// Uses the table `name` from now on, in all threads; nullptr goes back to the best. False, and
// nothing changes, if it isn't available. For tests and measurements.
bool force_pcm_ops(const char* name) noexcept;

}  // namespace relaycore
