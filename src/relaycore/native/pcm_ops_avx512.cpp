// The kernels for AVX-512 (F, BW, DQ and VL): four lanes to a vector.
#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header makes "any value" from an uninitialized variable (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "pcm_ops_tables.h"
#include "pcm_ops_vector.h"

namespace relaycore {
namespace {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  static constexpr size_t kFloats = 16;
  static constexpr bool kRoundNeedsCare = true;

  RELAYCORE_INLINE F load_f(const float* p) { return _mm512_loadu_ps(p); }
  RELAYCORE_INLINE void store_f(float* p, F x) { _mm512_storeu_ps(p, x); }
  RELAYCORE_INLINE I load_i(const void* p) { return _mm512_loadu_si512(p); }
  RELAYCORE_INLINE void store_i(void* p, I x) { _mm512_storeu_si512(p, x); }
  RELAYCORE_INLINE F set(float x) { return _mm512_set1_ps(x); }
  RELAYCORE_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  RELAYCORE_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  RELAYCORE_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
  RELAYCORE_INLINE F index(size_t i) {
    const I start = _mm512_set1_epi32(static_cast<int32_t>(i));
    const I steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_cvtepi32_ps(_mm512_add_epi32(start, steps));
  }

  RELAYCORE_INLINE I bits(F x) { return _mm512_castps_si512(x); }
  RELAYCORE_INLINE I either(I a, I b, I c) { return _mm512_ternarylogic_epi32(a, b, c, 0xfe); }
  // Whether bit 30 is set: some magnitude is 2 or more, or no number.
  RELAYCORE_INLINE bool wild(I seen) {
    return _mm512_test_epi32_mask(seen, _mm512_set1_epi32(0x40000000)) != 0;
  }
  RELAYCORE_INLINE F tame(F x) {
    const __mmask16 number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
    x = _mm512_maskz_min_ps(number, x, _mm512_set1_ps(2));
    return _mm512_max_ps(x, _mm512_set1_ps(-2));
  }
  RELAYCORE_INLINE I round(F x) { return _mm512_cvtps_epi32(x); }
  RELAYCORE_INLINE I pack(I a, I b) { return _mm512_packs_epi32(a, b); }
  RELAYCORE_INLINE I pack_in_order(I a, I b) {
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), pack(a, b));
  }

  RELAYCORE_INLINE I zip_lo16(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
  RELAYCORE_INLINE I zip_hi16(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
  RELAYCORE_INLINE I zip_lo32(I a, I b) { return _mm512_unpacklo_epi32(a, b); }
  RELAYCORE_INLINE I zip_hi32(I a, I b) { return _mm512_unpackhi_epi32(a, b); }

  RELAYCORE_INLINE F high_to_float(I x) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(x), _mm512_set1_ps(0x1p-31f));
  }
  RELAYCORE_INLINE F widen_lo(I x) { return high_to_float(zip_lo16(_mm512_setzero_si512(), x)); }
  RELAYCORE_INLINE F widen_hi(I x) { return high_to_float(zip_hi16(_mm512_setzero_si512(), x)); }
  RELAYCORE_INLINE F load_widened(const void* p) {
    const __m256i narrow = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(narrow)), set(0x1p-15f));
  }
  RELAYCORE_INLINE I low_to_high(I x) { return _mm512_slli_epi32(x, 16); }
  RELAYCORE_INLINE I high_only(I x) { return _mm512_and_si512(x, _mm512_set1_epi32(-65536)); }

  RELAYCORE_INLINE __m128i load_row(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  template <int Lane>
  RELAYCORE_INLINE void store_lane(void* p, I x) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_extracti32x4_epi32(x, Lane));
  }
  template <unsigned N>
  RELAYCORE_INLINE void store_rows(uint8_t* out, size_t row, const I (&r)[N]) {
    for (unsigned k = 0; k < N; ++k) store_lane<0>(out + k * row, r[k]);
    for (unsigned k = 0; k < N; ++k) store_lane<1>(out + (N + k) * row, r[k]);
    for (unsigned k = 0; k < N; ++k) store_lane<2>(out + (2 * N + k) * row, r[k]);
    for (unsigned k = 0; k < N; ++k) store_lane<3>(out + (3 * N + k) * row, r[k]);
  }
  template <int Half>
  RELAYCORE_INLINE void store_half(void* p, I x) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_extracti64x4_epi64(x, Half));
  }
  template <unsigned N>
  RELAYCORE_INLINE void store_rows(uint8_t* out, size_t row, const I (&a)[N], const I (&b)[N]) {
    const I lower = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const I upper = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (unsigned k = 0; k < N; ++k) {
      const I lo = _mm512_permutex2var_epi64(a[k], lower, b[k]);
      const I hi = _mm512_permutex2var_epi64(a[k], upper, b[k]);
      store_half<0>(out + k * row, lo);
      store_half<1>(out + (N + k) * row, lo);
      store_half<0>(out + (2 * N + k) * row, hi);
      store_half<1>(out + (3 * N + k) * row, hi);
    }
  }
  template <unsigned N>
  RELAYCORE_INLINE void load_rows(const uint8_t* in, size_t row, I (&r)[N]) {
    for (unsigned k = 0; k < N; ++k) {
      r[k] = _mm512_castsi128_si512(load_row(in + k * row));
      r[k] = _mm512_inserti32x4(r[k], load_row(in + (N + k) * row), 1);
      r[k] = _mm512_inserti32x4(r[k], load_row(in + (2 * N + k) * row), 2);
      r[k] = _mm512_inserti32x4(r[k], load_row(in + (3 * N + k) * row), 3);
    }
  }

  RELAYCORE_INLINE F magnitude(F x) {  // of NaN: 0
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), _mm512_abs_ps(x));
  }
  struct Sum {
    __m512d lo, hi;
  };
  RELAYCORE_INLINE Sum no_sum() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
  RELAYCORE_INLINE Sum add_squares(Sum sum, F x) {
    const __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
    const __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    return {_mm512_add_pd(sum.lo, _mm512_mul_pd(lo, lo)),
            _mm512_add_pd(sum.hi, _mm512_mul_pd(hi, hi))};
  }
  RELAYCORE_INLINE double total(Sum sum) {
    return _mm512_reduce_add_pd(_mm512_add_pd(sum.lo, sum.hi));
  }
};

}  // namespace

constinit const PcmOps kPcmOpsAvx512 = table_of<Avx512>("avx512");

}  // namespace relaycore
