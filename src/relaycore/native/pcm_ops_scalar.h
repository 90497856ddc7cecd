// The kernels as plain loops over the samples [begin, end): what the scalar table consists of, and
// what the vector variants finish with where less than a vector is left.
//
// Everything is in an anonymous namespace: the objects that include this are compiled with flags of
// their own, and a function shared between them would run on machines that lack its instructions.
// For the same reason no inline function of the standard library is used here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace relaycore::scalar {
namespace {

constexpr float kFullScale = 32768.0f;

// Interleaved data may start at any byte.
template <class T>
inline T load(const void* at, size_t index) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(at) + index * sizeof(T), sizeof(T));
  return value;
}
template <class T>
inline void store(void* at, size_t index, T value) {
  std::memcpy(static_cast<uint8_t*>(at) + index * sizeof(T), &value, sizeof(T));
}

inline int16_t to_s16(float x) {
  const float scaled = x * kFullScale;
  if (scaled >= 32767.0f) return 32767;
  if (scaled <= -32768.0f) return -32768;
  if (scaled != scaled) return 0;
  return static_cast<int16_t>(__builtin_lrintf(scaled));
}
inline float to_f32(int16_t x) { return static_cast<float>(x) * (1.0f / kFullScale); }

// A sample of type In as one of type Out.
template <class Out, class In>
inline Out convert(In x) {
  if constexpr (sizeof(Out) == sizeof(In)) return x;
  else if constexpr (sizeof(Out) == sizeof(int16_t)) return to_s16(x);
  else return to_f32(x);
}

template <class Out, class In>
inline void interleave(const In* const* planes, unsigned channels, size_t begin, size_t end,
                       void* out) {
  for (size_t i = begin; i < end; ++i)
    for (unsigned c = 0; c < channels; ++c)
      store<Out>(out, i * channels + c, convert<Out>(planes[c][i]));
}

template <class In, class Out>
inline void deinterleave(const void* in, unsigned channels, size_t begin, size_t end,
                         Out* const* planes) {
  for (unsigned c = 0; c < channels; ++c)
    if (planes[c])
      for (size_t i = begin; i < end; ++i)
        planes[c][i] = convert<Out>(load<In>(in, i * channels + c));
}

inline void s16_to_f32(const void* in, size_t begin, size_t end, float* out) {
  for (size_t i = begin; i < end; ++i) out[i] = to_f32(load<int16_t>(in, i));
}

inline void f32_to_s16(const float* in, size_t begin, size_t end, void* out) {
  for (size_t i = begin; i < end; ++i) store<int16_t>(out, i, to_s16(in[i]));
}

inline void mix(const float* const* planes, unsigned channels, size_t begin, size_t end,
                const float* gains, unsigned outputs, float* const* out) {
  for (unsigned o = 0; o < outputs; ++o, gains += channels) {
    for (size_t i = begin; i < end; ++i) {
      float sum = 0;
      for (unsigned c = 0; c < channels; ++c)
        if (gains[c] != 0) sum += gains[c] * planes[c][i];
      out[o][i] = sum;
    }
  }
}

inline void mix_ramp(const float* const* planes, unsigned channels, size_t n, size_t begin,
                     size_t end, const float* from, const float* to, unsigned outputs,
                     float* const* out) {
  const float step = 1.0f / static_cast<float>(n);
  for (unsigned o = 0; o < outputs; ++o, from += channels, to += channels) {
    for (size_t i = begin; i < end; ++i) {
      const float along = static_cast<float>(static_cast<int32_t>(i)) * step;
      float sum = 0;
      for (unsigned c = 0; c < channels; ++c)
        if (from[c] != 0 || to[c] != 0)
          sum += (from[c] + (to[c] - from[c]) * along) * planes[c][i];
      out[o][i] = sum;
    }
  }
}

// Adds to what *peak and *sum_squares hold.
inline void levels(const float* in, size_t begin, size_t end, float* peak, double* sum_squares) {
  for (size_t i = begin; i < end; ++i) {
    const float x = in[i] == in[i] ? in[i] : 0.0f;
    const float magnitude = __builtin_fabsf(x);
    if (magnitude > *peak) *peak = magnitude;
    *sum_squares += static_cast<double>(x) * x;
  }
}

}  // namespace
}  // namespace relaycore::scalar
