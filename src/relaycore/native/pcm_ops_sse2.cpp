// The kernels for SSE2, the baseline of x86-64: one lane to a vector.
#include <emmintrin.h>

#include "pcm_ops_tables.h"
#include "pcm_ops_vector.h"

namespace relaycore {
namespace {

struct Sse2 {
  using F = __m128;
  using I = __m128i;
  static constexpr size_t kFloats = 4;
  static constexpr bool kRoundNeedsCare = true;

  RELAYCORE_INLINE F load_f(const float* p) { return _mm_loadu_ps(p); }
  RELAYCORE_INLINE void store_f(float* p, F x) { _mm_storeu_ps(p, x); }
  RELAYCORE_INLINE I load_i(const void* p) { return _mm_loadu_si128(static_cast<const I*>(p)); }
  RELAYCORE_INLINE void store_i(void* p, I x) { _mm_storeu_si128(static_cast<I*>(p), x); }
  RELAYCORE_INLINE F set(float x) { return _mm_set1_ps(x); }
  RELAYCORE_INLINE F add(F a, F b) { return _mm_add_ps(a, b); }
  RELAYCORE_INLINE F mul(F a, F b) { return _mm_mul_ps(a, b); }
  RELAYCORE_INLINE F max(F a, F b) { return _mm_max_ps(a, b); }
  RELAYCORE_INLINE F index(size_t i) {
    const I start = _mm_set1_epi32(static_cast<int32_t>(i));
    return _mm_cvtepi32_ps(_mm_add_epi32(start, _mm_setr_epi32(0, 1, 2, 3)));
  }

  RELAYCORE_INLINE I bits(F x) { return _mm_castps_si128(x); }
  RELAYCORE_INLINE I either(I a, I b, I c) { return _mm_or_si128(_mm_or_si128(a, b), c); }
  // Whether bit 30 is set: some magnitude is 2 or more, or no number.
  RELAYCORE_INLINE bool wild(I seen) {
    return _mm_movemask_ps(_mm_castsi128_ps(_mm_slli_epi32(seen, 1))) != 0;
  }
  RELAYCORE_INLINE F tame(F x) {
    x = _mm_and_ps(x, _mm_cmpord_ps(x, x));
    return _mm_max_ps(_mm_min_ps(x, _mm_set1_ps(2)), _mm_set1_ps(-2));
  }
  RELAYCORE_INLINE I round(F x) { return _mm_cvtps_epi32(x); }
  RELAYCORE_INLINE I pack(I a, I b) { return _mm_packs_epi32(a, b); }
  RELAYCORE_INLINE I pack_in_order(I a, I b) { return pack(a, b); }

  RELAYCORE_INLINE I zip_lo16(I a, I b) { return _mm_unpacklo_epi16(a, b); }
  RELAYCORE_INLINE I zip_hi16(I a, I b) { return _mm_unpackhi_epi16(a, b); }
  RELAYCORE_INLINE I zip_lo32(I a, I b) { return _mm_unpacklo_epi32(a, b); }
  RELAYCORE_INLINE I zip_hi32(I a, I b) { return _mm_unpackhi_epi32(a, b); }

  RELAYCORE_INLINE F high_to_float(I x) {
    return _mm_mul_ps(_mm_cvtepi32_ps(x), _mm_set1_ps(0x1p-31f));
  }
  RELAYCORE_INLINE F widen_lo(I x) { return high_to_float(zip_lo16(_mm_setzero_si128(), x)); }
  RELAYCORE_INLINE F widen_hi(I x) { return high_to_float(zip_hi16(_mm_setzero_si128(), x)); }
  RELAYCORE_INLINE F load_widened(const void* p) {
    return widen_lo(_mm_loadl_epi64(static_cast<const I*>(p)));
  }
  RELAYCORE_INLINE I low_to_high(I x) { return _mm_slli_epi32(x, 16); }
  RELAYCORE_INLINE I high_only(I x) { return _mm_and_si128(x, _mm_set1_epi32(-65536)); }

  template <unsigned N>
  RELAYCORE_INLINE void store_rows(uint8_t* out, size_t row, const I (&r)[N]) {
    for (unsigned k = 0; k < N; ++k) store_i(out + k * row, r[k]);
  }
  template <unsigned N>
  RELAYCORE_INLINE void store_rows(uint8_t* out, size_t row, const I (&a)[N], const I (&b)[N]) {
    for (unsigned k = 0; k < N; ++k) {
      store_i(out + k * row, a[k]);
      store_i(out + k * row + 16, b[k]);
    }
  }
  template <unsigned N>
  RELAYCORE_INLINE void load_rows(const uint8_t* in, size_t row, I (&r)[N]) {
    for (unsigned k = 0; k < N; ++k) r[k] = load_i(in + k * row);
  }

  RELAYCORE_INLINE F magnitude(F x) {  // of NaN: 0
    const F number = _mm_and_ps(x, _mm_cmpord_ps(x, x));
    return _mm_andnot_ps(_mm_set1_ps(-0.0f), number);
  }
  struct Sum {
    __m128d lo, hi;
  };
  RELAYCORE_INLINE Sum no_sum() { return {_mm_setzero_pd(), _mm_setzero_pd()}; }
  RELAYCORE_INLINE Sum add_squares(Sum sum, F x) {
    const __m128d lo = _mm_cvtps_pd(x), hi = _mm_cvtps_pd(_mm_movehl_ps(x, x));
    return {_mm_add_pd(sum.lo, _mm_mul_pd(lo, lo)), _mm_add_pd(sum.hi, _mm_mul_pd(hi, hi))};
  }
  RELAYCORE_INLINE double total(Sum sum) {
    const __m128d both = _mm_add_pd(sum.lo, sum.hi);
    return _mm_cvtsd_f64(_mm_add_sd(both, _mm_unpackhi_pd(both, both)));
  }
};

}  // namespace

constinit const PcmOps kPcmOpsSse2 = table_of<Sse2>("sse2");

}  // namespace relaycore
