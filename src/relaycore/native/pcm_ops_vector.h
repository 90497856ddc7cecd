// The kernels, written once over a vector type V that each instruction set provides.
//
// V::F and V::I are a vector of kFloats floats and the same bits as integers. Vectors are seen as
// 128-bit lanes, since that is how instruction sets without cheap shuffles across lanes see them:
// pack and zip work within each lane. V provides
//   load, store            whole vectors (F or I by name), any address
//   pack(a, b)             int32 to saturated int16, each lane's lower half from a, upper from b
//   pack_in_order(a, b)    the same, a before b as a whole
//   zip_lo/hi16, 32        elements of the lower / upper half of each lane alternately from a and b
//   widen_lo/hi(i)         four int16 of each lane to floats, over 32768
//   load_widened(p)        kFloats int16 to floats, over 32768
//   high_to_float(i)       int32 whose upper half is a sample to floats, over 2^31
//   round(f)               f to int32, half to even; garbage where `wild` would be true
//   load_rows<N>, store_rows<N>  16-byte rows (of memory) as lanes: lane L of r[k] is row N * L + k
//
// Interleaving is a transposition inside lanes. Number the elements of the N registers by bits,
// register number first, then the place in the lane. One zip round over pairs (k, k + N/2) rotates
// these bits left by one. With channel bits in front and sample bits behind, as loading planes
// gives them, log2(channels) rounds bring the sample bits in front: each lane then holds
// neighbouring channels of one sample, a row of the interleaved block. Deinterleaving rotates on.
//
// Where channels or samples don't fill the last block, it is moved back so that it does, and what
// it shares with the one before is written twice with the same values.
//
// Everything is in an anonymous namespace, for the reason given in pcm_ops_scalar.h.
#pragma once

#include "pcm_ops_scalar.h"
#include "relaycore/pcm_ops.h"

#define RELAYCORE_INLINE [[gnu::always_inline]] static inline

namespace relaycore {
namespace {

constexpr unsigned log2_of(unsigned x) { return x > 1 ? 1 + log2_of(x / 2) : 0; }

template <class V>
struct Kernels {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr size_t kBytes = sizeof(I);
  static constexpr size_t kFloats = V::kFloats;

  // Calls block(i) so that blocks of `Step` samples cover [0, n), in ascending order. Returns how
  // many samples are covered: n, or none if n is less than one block.
  template <size_t Step, class Block>
  RELAYCORE_INLINE size_t each_block(size_t n, Block block) {
    if (n < Step) return 0;
    for (size_t i = 0; i < n; i += Step) {
      if (i > n - Step) i = n - Step;
      block(i);
    }
    return n;
  }

  template <class T>
  RELAYCORE_INLINE I zip_lo(I a, I b) {
    if constexpr (sizeof(T) == 2) return V::zip_lo16(a, b);
    else return V::zip_lo32(a, b);
  }
  template <class T>
  RELAYCORE_INLINE I zip_hi(I a, I b) {
    if constexpr (sizeof(T) == 2) return V::zip_hi16(a, b);
    else return V::zip_hi32(a, b);
  }

  // `Rounds` zip rounds: rotates the element numbers of r left by as many bits.
  template <class T, unsigned Rounds, unsigned N>
  RELAYCORE_INLINE void rotate(I (&r)[N]) {
    if constexpr (Rounds > 0) {
      I next[N];
#pragma GCC unroll 8
      for (unsigned k = 0; k < N / 2; ++k) {
        next[2 * k] = zip_lo<T>(r[k], r[k + N / 2]);
        next[2 * k + 1] = zip_hi<T>(r[k], r[k + N / 2]);
      }
#pragma GCC unroll 8
      for (unsigned k = 0; k < N; ++k) r[k] = next[k];
      rotate<T, Rounds - 1>(r);
    }
  }

  // Floats to int32 by the rules of pcm_ops.h; `pack` saturates what is left over. Only values far
  // over full scale and NaNs need care, so all are looked at together: one bit tells.
  template <unsigned N>
  RELAYCORE_INLINE void to_ints(F (&x)[N], I (&out)[N]) {
    static_assert(N % 2 == 0);
    if constexpr (V::kRoundNeedsCare) {
      I seen = V::either(V::bits(x[0]), V::bits(x[0]), V::bits(x[1]));
#pragma GCC unroll 8
      for (unsigned k = 2; k < N; k += 2)
        seen = V::either(seen, V::bits(x[k]), V::bits(x[k + 1]));
      if (V::wild(seen)) [[unlikely]] {
#pragma GCC unroll 8
        for (unsigned k = 0; k < N; ++k) x[k] = V::tame(x[k]);
      }
    }
#pragma GCC unroll 8
    for (unsigned k = 0; k < N; ++k) out[k] = V::round(V::mul(x[k], V::set(scalar::kFullScale)));
  }

  // ---- interleave ----

  // A unit is C channels of which one or more samples fill a 16-byte row; a block of it is as many
  // samples as a vector holds of one plane, and that makes kRegs vectors of rows.
  template <class In, class Out, unsigned C>
  struct Unit {
    static constexpr unsigned kPerLane = 16 / sizeof(In);  // samples of a plane in a lane
    static constexpr unsigned kSamples = kBytes / sizeof(In);
    static constexpr unsigned kRegs = C * kPerLane * sizeof(Out) / 16;
  };
  template <class Out>
  static constexpr unsigned kFullUnit = 16 / sizeof(Out);  // one sample to a row

  template <class In, class Out, unsigned C>
  RELAYCORE_INLINE void make_rows(const In* const* planes, size_t i,
                                  I (&r)[Unit<In, Out, C>::kRegs]) {
    if constexpr (sizeof(In) == sizeof(Out)) {
#pragma GCC unroll 8
      for (unsigned c = 0; c < C; ++c) r[c] = V::load_i(planes[c] + i);
    } else {
      F x[C];
      I whole[C];
#pragma GCC unroll 8
      for (unsigned c = 0; c < C; ++c) x[c] = V::load_f(planes[c] + i);
      to_ints(x, whole);
#pragma GCC unroll 8
      for (unsigned k = 0; k < C / 2; ++k) r[k] = V::pack(whole[2 * k], whole[2 * k + 1]);
    }
    rotate<Out, log2_of(C)>(r);
  }

  // Channels that fill 16-byte rows exactly: rows follow one another without gaps.
  template <class Out, unsigned C, class In>
  static void interleave_packed(const In* const* planes, size_t n, void* out) {
    using U = Unit<In, Out, C>;
    const size_t done = each_block<U::kSamples>(n, [=](size_t i) {
      I r[U::kRegs];
      make_rows<In, Out, C>(planes, i, r);
      V::store_rows(static_cast<uint8_t*>(out) + i * C * sizeof(Out), 16, r);
    });
    scalar::interleave<Out>(planes, C, done, n, out);
  }

  // Fewer channels than fill a row: rows are written whole in ascending order, so that each one
  // overwrites what the row before has written too much. The last few are left to the scalar loop.
  template <class Out, class In>
  static void interleave_few(const In* const* planes, unsigned channels, size_t n, void* out) {
    constexpr unsigned kUnit = kFullUnit<Out>;
    using U = Unit<In, Out, kUnit>;
    const In* padded[kUnit];
    for (unsigned c = 0; c < kUnit; ++c) padded[c] = planes[c < channels ? c : 0];
    const size_t row = channels * sizeof(Out);
    const size_t done = each_block<U::kSamples>(whole_rows(n, row), [&, out](size_t i) {
      I r[U::kRegs];
      make_rows<In, Out, kUnit>(padded, i, r);
      V::store_rows(static_cast<uint8_t*>(out) + i * row, row, r);
    });
    scalar::interleave<Out>(planes, channels, done, n, out);
  }

  // How many of n rows have 16 bytes before the end of the last one.
  RELAYCORE_INLINE size_t whole_rows(size_t n, size_t row) {
    const size_t short_rows = (16 + row - 1) / row - 1;
    return n > short_rows ? n - short_rows : 0;
  }

  template <class Out, class In>
  static void interleave_many(const In* const* planes, unsigned channels, size_t n, void* out) {
    constexpr unsigned kUnit = kFullUnit<Out>;
    using U = Unit<In, Out, kUnit>;
    const size_t row = channels * sizeof(Out);
    const size_t done = each_block<U::kSamples>(n, [=](size_t i) {
      uint8_t* at = static_cast<uint8_t*>(out) + i * row;
      unsigned c = 0;
      if constexpr (U::kRegs == 4) {  // two units at once fit the registers: half as many stores
        for (; c + 2 * kUnit <= channels; c += 2 * kUnit) {
          I a[U::kRegs], b[U::kRegs];
          make_rows<In, Out, kUnit>(planes + c, i, a);
          make_rows<In, Out, kUnit>(planes + c + kUnit, i, b);
          V::store_rows(at + c * sizeof(Out), row, a, b);
        }
      }
      for (; c < channels; c += kUnit) {
        if (c > channels - kUnit) c = channels - kUnit;
        I r[U::kRegs];
        make_rows<In, Out, kUnit>(planes + c, i, r);
        V::store_rows(at + c * sizeof(Out), row, r);
      }
    });
    scalar::interleave<Out>(planes, channels, done, n, out);
  }

  // Stereo to 16 bits: zipping packed left with packed right gives frames in order.
  static void interleave_stereo_s16(const float* const* planes, size_t n, void* out) {
    const float *left = planes[0], *right = planes[1];
    const size_t done = each_block<2 * kFloats>(n, [=](size_t i) {
      F x[4] = {V::load_f(left + i), V::load_f(left + i + kFloats), V::load_f(right + i),
                V::load_f(right + i + kFloats)};
      I whole[4];
      to_ints(x, whole);
      const I l = V::pack(whole[0], whole[1]), r = V::pack(whole[2], whole[3]);
      uint8_t* at = static_cast<uint8_t*>(out) + 4 * i;
      V::store_i(at, V::zip_lo16(l, r));
      V::store_i(at + kBytes, V::zip_hi16(l, r));
    });
    scalar::interleave<int16_t>(planes, 2, done, n, out);
  }

  template <class Out, class In>
  static void interleave(const In* const* planes, unsigned channels, size_t n,
                         void* out) noexcept {
    if (n == 0) return;
    switch (channels) {
      case 0: return;
      case 1:
        if constexpr (sizeof(Out) == sizeof(In)) std::memcpy(out, planes[0], n * sizeof(Out));
        else f32_to_s16(planes[0], n, out);
        return;
      case 2:
        if constexpr (sizeof(Out) == sizeof(In)) interleave_packed<Out, 2>(planes, n, out);
        else interleave_stereo_s16(planes, n, out);
        return;
      case 4: return interleave_packed<Out, 4>(planes, n, out);
    }
    if (channels < kFullUnit<Out>) interleave_few<Out>(planes, channels, n, out);
    else interleave_many<Out>(planes, channels, n, out);
  }

  // ---- deinterleave ----

  // The rows r of a unit become samples [i, i + a block) of its C planes.
  template <class In, class Out, unsigned C>
  RELAYCORE_INLINE void split_rows(I (&r)[Unit<Out, In, C>::kRegs], Out* const* planes, size_t i) {
    rotate<In, log2_of(16 / sizeof(Out))>(r);
    if constexpr (sizeof(In) == sizeof(Out)) {
#pragma GCC unroll 8
      for (unsigned c = 0; c < C; ++c)
        if (planes[c]) V::store_i(planes[c] + i, r[c]);
    } else {
#pragma GCC unroll 8
      for (unsigned k = 0; k < C / 2; ++k) {
        if (planes[2 * k]) V::store_f(planes[2 * k] + i, V::widen_lo(r[k]));
        if (planes[2 * k + 1]) V::store_f(planes[2 * k + 1] + i, V::widen_hi(r[k]));
      }
    }
  }

  template <class In, unsigned C, class Out>
  static void deinterleave_packed(const void* in, size_t n, Out* const* planes) {
    using U = Unit<Out, In, C>;
    const size_t done = each_block<U::kSamples>(n, [=](size_t i) {
      I r[U::kRegs];
      V::load_rows(static_cast<const uint8_t*>(in) + i * C * sizeof(In), 16, r);
      split_rows<In, Out, C>(r, planes, i);
    });
    scalar::deinterleave<In>(in, C, done, n, planes);
  }

  template <class In, class Out>
  static void deinterleave_few(const void* in, unsigned channels, size_t n, Out* const* planes) {
    constexpr unsigned kUnit = kFullUnit<In>;
    using U = Unit<Out, In, kUnit>;
    Out* padded[kUnit];
    for (unsigned c = 0; c < kUnit; ++c) padded[c] = c < channels ? planes[c] : nullptr;
    const size_t row = channels * sizeof(In);
    const size_t done = each_block<U::kSamples>(whole_rows(n, row), [&, in](size_t i) {
      I r[U::kRegs];
      V::load_rows(static_cast<const uint8_t*>(in) + i * row, row, r);
      split_rows<In, Out, kUnit>(r, padded, i);
    });
    scalar::deinterleave<In>(in, channels, done, n, planes);
  }

  template <class In, class Out>
  static void deinterleave_many(const void* in, unsigned channels, size_t n, Out* const* planes) {
    constexpr unsigned kUnit = kFullUnit<In>;
    using U = Unit<Out, In, kUnit>;
    const size_t row = channels * sizeof(In);
    const size_t done = each_block<U::kSamples>(n, [=](size_t i) {
      const uint8_t* at = static_cast<const uint8_t*>(in) + i * row;
      for (unsigned c = 0; c < channels; c += kUnit) {
        if (c > channels - kUnit) c = channels - kUnit;
        I r[U::kRegs];
        V::load_rows(at + c * sizeof(In), row, r);
        split_rows<In, Out, kUnit>(r, planes + c, i);
      }
    });
    scalar::deinterleave<In>(in, channels, done, n, planes);
  }

  static void deinterleave_stereo_s16(const void* in, size_t n, float* const* planes) {
    float *left = planes[0], *right = planes[1];
    const size_t done = each_block<kFloats>(n, [=](size_t i) {
      const I frames = V::load_i(static_cast<const uint8_t*>(in) + 4 * i);
      if (left) V::store_f(left + i, V::high_to_float(V::low_to_high(frames)));
      if (right) V::store_f(right + i, V::high_to_float(V::high_only(frames)));
    });
    scalar::deinterleave<int16_t>(in, 2, done, n, planes);
  }

  template <class In, class Out>
  static void deinterleave(const void* in, unsigned channels, size_t n,
                           Out* const* planes) noexcept {
    if (n == 0) return;
    switch (channels) {
      case 0: return;
      case 1:
        if (!planes[0]) return;
        if constexpr (sizeof(Out) == sizeof(In)) std::memcpy(planes[0], in, n * sizeof(Out));
        else s16_to_f32(in, n, planes[0]);
        return;
      case 2:
        if constexpr (sizeof(Out) == sizeof(In)) deinterleave_packed<In, 2>(in, n, planes);
        else deinterleave_stereo_s16(in, n, planes);
        return;
      case 4: return deinterleave_packed<In, 4>(in, n, planes);
    }
    if (channels < kFullUnit<In>) deinterleave_few<In>(in, channels, n, planes);
    else deinterleave_many<In>(in, channels, n, planes);
  }

  // ---- convert ----

  static void s16_to_f32(const void* in, size_t n, float* out) noexcept {
    const auto vector = [=](size_t i) {
      V::store_f(out + i, V::load_widened(static_cast<const uint8_t*>(in) + 2 * i));
    };
    size_t done = each_block<4 * kFloats>(n, [=](size_t i) {
      for (size_t v = 0; v < 4; ++v) vector(i + v * kFloats);
    });
    if (done == 0) done = each_block<kFloats>(n, vector);
    scalar::s16_to_f32(in, done, n, out);
  }

  static void f32_to_s16(const float* in, size_t n, void* out) noexcept {
    const size_t done = each_block<2 * kFloats>(n, [=](size_t i) {
      F x[2] = {V::load_f(in + i), V::load_f(in + i + kFloats)};
      I whole[2];
      to_ints(x, whole);
      V::store_i(static_cast<uint8_t*>(out) + 2 * i, V::pack_in_order(whole[0], whole[1]));
    });
    scalar::f32_to_s16(in, done, n, out);
  }

  // ---- mix ----

  // Whether a gain is other than 0. As an integer, since the units for floats are busy.
  RELAYCORE_INLINE bool is_set(float gain) {
    uint32_t bits;
    std::memcpy(&bits, &gain, sizeof bits);
    return (bits << 1) != 0;
  }

  // What is mixed: gains of the outputs stand `channels` apart; `to` and `step` (1 / samples of the
  // ramp) matter only for a ramp.
  struct Mix {
    const float* const* planes;
    unsigned channels;
    const float* from;
    const float* to;
    float step;
    float* const* out;
  };

  // A channel that some output hears. What to do with it is found out once for many samples, so
  // that the loop over the channels has nothing to decide.
  template <unsigned Outputs>
  struct Voice {
    const float* plane;
    unsigned heard;          // bit o: by output o; 0 ends the list
    float from[Outputs];     // gains
    float change[Outputs];   // what a ramp adds to them in the end
  };
  static constexpr unsigned kMaxVoices = 64;

  // The voices among the kMaxVoices channels from `first` on, in ascending order, and the end.
  template <bool Ramp, unsigned Outputs>
  RELAYCORE_INLINE void find_voices(const Mix& mix, unsigned first, Voice<Outputs>* voice) {
    const unsigned left = mix.channels - first;
    const unsigned end = left < kMaxVoices ? mix.channels : first + kMaxVoices;
    for (unsigned c = first; c < end; ++c) {
      voice->plane = mix.planes[c];
      voice->heard = 0;
#pragma GCC unroll 2
      for (unsigned o = 0; o < Outputs; ++o) {
        const size_t at = size_t{o} * mix.channels + c;
        voice->from[o] = mix.from[at];
        voice->change[o] = mix.to[at] - mix.from[at];
        voice->heard |= unsigned{is_set(mix.from[at]) || (Ramp && is_set(mix.to[at]))} << o;
      }
      voice += voice->heard != 0;
    }
    voice->heard = 0;
  }

  // Adds up the voices from `voice` on that the outputs of the set `Heard` hear and no other.
  // Returns the one behind them.
  template <bool Ramp, unsigned Heard, unsigned Outputs, unsigned Vectors>
  RELAYCORE_INLINE const Voice<Outputs>* add_voices(const Voice<Outputs>* voice, size_t i,
                                                    const F (&along)[Vectors],
                                                    F (&sums)[Outputs][Vectors]) {
    do {
      const float* samples = voice->plane + i;
      F gains[Outputs], changes[Outputs];
#pragma GCC unroll 2
      for (unsigned o = 0; o < Outputs; ++o) {
        gains[o] = V::set(voice->from[o]);
        if constexpr (Ramp) changes[o] = V::set(voice->change[o]);
      }
#pragma GCC unroll 8
      for (unsigned v = 0; v < Vectors; ++v) {
        const F x = V::load_f(samples + v * kFloats);
#pragma GCC unroll 2
        for (unsigned o = 0; o < Outputs; ++o) {
          if (!(Heard >> o & 1)) continue;
          F gain = gains[o];
          if constexpr (Ramp) gain = V::add(gain, V::mul(changes[o], along[v]));
          sums[o][v] = V::add(sums[o][v], V::mul(gain, x));
        }
      }
    } while ((++voice)->heard == Heard);
    return voice;
  }

  // Adds `Vectors` vectors from sample i on of every voice to the sums of the outputs.
  template <bool Ramp, unsigned Outputs, unsigned Vectors>
  RELAYCORE_INLINE void add_all_voices(const Voice<Outputs>* voice, size_t i,
                                       const F (&along)[Vectors], F (&sums)[Outputs][Vectors]) {
    static_assert(Outputs == 1 || Outputs == 2);
    constexpr unsigned kAll = (1 << Outputs) - 1;
    while (voice->heard) {
      if (voice->heard == kAll) voice = add_voices<Ramp, kAll>(voice, i, along, sums);
      else if constexpr (Outputs == 2)
        voice = voice->heard == 1 ? add_voices<Ramp, 1>(voice, i, along, sums)
                                  : add_voices<Ramp, 2>(voice, i, along, sums);
    }
  }

  // `Vectors` vectors of `Outputs` outputs from sample i on. `voices` are those of the first
  // kMaxVoices channels, before and after; it has room for them and the end of the list.
  template <bool Ramp, unsigned Outputs, unsigned Vectors>
  RELAYCORE_INLINE void mix_block(const Mix& mix, size_t i, Voice<Outputs>* voices) {
    F sums[Outputs][Vectors], along[Vectors];
#pragma GCC unroll 8
    for (unsigned v = 0; v < Vectors; ++v) {
#pragma GCC unroll 2
      for (unsigned o = 0; o < Outputs; ++o) sums[o][v] = V::set(0);
      along[v] = Ramp ? V::mul(V::index(i + v * kFloats), V::set(mix.step)) : V::set(0);
    }
    add_all_voices<Ramp>(voices, i, along, sums);
    if (mix.channels > kMaxVoices) [[unlikely]] {  // far more than a room has
      for (unsigned c = kMaxVoices; c < mix.channels; c += kMaxVoices) {
        find_voices<Ramp>(mix, c, voices);
        add_all_voices<Ramp>(voices, i, along, sums);
      }
      find_voices<Ramp>(mix, 0, voices);
    }
#pragma GCC unroll 2
    for (unsigned o = 0; o < Outputs; ++o)
#pragma GCC unroll 8
      for (unsigned v = 0; v < Vectors; ++v)
        V::store_f(mix.out[o] + i + v * kFloats, sums[o][v]);
  }

  template <bool Ramp, unsigned Outputs>
  static void mix_outputs(const float* const* planes, unsigned channels, size_t n,
                          const float* from, const float* to, float* const* out) {
    // 16 registers: the sums of two outputs, one vector of samples, its product and two gains. A
    // ramp needs more than that beside the sums.
    constexpr unsigned kWide = Ramp ? 4 : 6;
    const Mix mix{planes, channels, from, to, Ramp ? 1.0f / static_cast<float>(n) : 0, out};
    Voice<Outputs> voices[kMaxVoices + 1];
    find_voices<Ramp>(mix, 0, voices);
    size_t done = each_block<kWide * kFloats>(
        n, [&](size_t i) { mix_block<Ramp, Outputs, kWide>(mix, i, voices); });
    if (done == 0)
      done = each_block<kFloats>(n, [&](size_t i) { mix_block<Ramp, Outputs, 1>(mix, i, voices); });
    if constexpr (Ramp) scalar::mix_ramp(planes, channels, n, done, n, from, to, Outputs, out);
    else scalar::mix(planes, channels, done, n, from, Outputs, out);
  }

  template <bool Ramp>
  static void mix_all(const float* const* planes, unsigned channels, size_t n, const float* from,
                      const float* to, unsigned outputs, float* const* out) {
    unsigned o = 0;
    for (; o + 2 <= outputs; o += 2) {
      const size_t skip = static_cast<size_t>(o) * channels;
      mix_outputs<Ramp, 2>(planes, channels, n, from + skip, to + skip, out + o);
    }
    if (o < outputs) {
      const size_t skip = static_cast<size_t>(o) * channels;
      mix_outputs<Ramp, 1>(planes, channels, n, from + skip, to + skip, out + o);
    }
  }

  static void mix(const float* const* planes, unsigned channels, size_t n, const float* gains,
                  unsigned outputs, float* const* out) noexcept {
    mix_all<false>(planes, channels, n, gains, gains, outputs, out);
  }

  static void mix_ramp(const float* const* planes, unsigned channels, size_t n, const float* from,
                       const float* to, unsigned outputs, float* const* out) noexcept {
    mix_all<true>(planes, channels, n, from, to, outputs, out);
  }

  // ---- meter ----

  static void levels(const float* in, size_t n, float* peak, double* sum_squares) noexcept {
    constexpr size_t kSums = 4;  // independent sums hide the latency of addition
    F peaks[kSums];
    typename V::Sum sums[kSums];
    for (size_t v = 0; v < kSums; ++v) peaks[v] = V::set(0), sums[v] = V::no_sum();
    size_t i = 0;
    for (; i + kSums * kFloats <= n; i += kSums * kFloats) {
#pragma GCC unroll 4
      for (size_t v = 0; v < kSums; ++v) {
        const F magnitude = V::magnitude(V::load_f(in + i + v * kFloats));
        peaks[v] = V::max(peaks[v], magnitude);
        sums[v] = V::add_squares(sums[v], magnitude);
      }
    }
    for (; i + kFloats <= n; i += kFloats) {
      const F magnitude = V::magnitude(V::load_f(in + i));
      peaks[0] = V::max(peaks[0], magnitude);
      sums[0] = V::add_squares(sums[0], magnitude);
    }
    float parts[kSums * kFloats];
    *sum_squares = 0;
    for (size_t v = 0; v < kSums; ++v) {
      V::store_f(parts + v * kFloats, peaks[v]);
      *sum_squares += V::total(sums[v]);
    }
    *peak = 0;
    for (float part : parts) *peak = part > *peak ? part : *peak;
    scalar::levels(in, i, n, peak, sum_squares);
  }
};

template <class V>
constexpr PcmOps table_of(const char* name) {
  using K = Kernels<V>;
  return {
      .name = name,
      .interleave_f32 = K::template interleave<float, float>,
      .interleave_s16 = K::template interleave<int16_t, float>,
      .interleave_s16_s16 = K::template interleave<int16_t, int16_t>,
      .deinterleave_f32 = K::template deinterleave<float, float>,
      .deinterleave_s16 = K::template deinterleave<int16_t, float>,
      .deinterleave_s16_s16 = K::template deinterleave<int16_t, int16_t>,
      .s16_to_f32 = K::s16_to_f32,
      .f32_to_s16 = K::f32_to_s16,
      .mix = K::mix,
      .mix_ramp = K::mix_ramp,
      .levels = K::levels,
  };
}

}  // namespace
}  // namespace relaycore
