// The kernels for AVX2: two lanes to a vector.
#include <immintrin.h>

#include "pcm_ops_tables.h"
#include "pcm_ops_vector.h"

namespace relaycore {
namespace {

struct Avx2 {
  using F = __m256;
  using I = __m256i;
  static constexpr size_t kFloats = 8;
  static constexpr bool kRoundNeedsCare = true;

  RELAYCORE_INLINE F load_f(const float* p) { return _mm256_loadu_ps(p); }
  RELAYCORE_INLINE void store_f(float* p, F x) { _mm256_storeu_ps(p, x); }
  RELAYCORE_INLINE I load_i(const void* p) { return _mm256_loadu_si256(static_cast<const I*>(p)); }
  RELAYCORE_INLINE void store_i(void* p, I x) { _mm256_storeu_si256(static_cast<I*>(p), x); }
  RELAYCORE_INLINE F set(float x) { return _mm256_set1_ps(x); }
  RELAYCORE_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
  RELAYCORE_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  RELAYCORE_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
  RELAYCORE_INLINE F index(size_t i) {
    const I start = _mm256_set1_epi32(static_cast<int32_t>(i));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(start, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
  }

  RELAYCORE_INLINE I bits(F x) { return _mm256_castps_si256(x); }
  RELAYCORE_INLINE I either(I a, I b, I c) { return _mm256_or_si256(_mm256_or_si256(a, b), c); }
  // Whether bit 30 is set: some magnitude is 2 or more, or no number.
  RELAYCORE_INLINE bool wild(I seen) {
    return !_mm256_testz_si256(seen, _mm256_set1_epi32(0x40000000));
  }
  RELAYCORE_INLINE F tame(F x) {
    x = _mm256_and_ps(x, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
    return _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(2)), _mm256_set1_ps(-2));
  }
  RELAYCORE_INLINE I round(F x) { return _mm256_cvtps_epi32(x); }
  RELAYCORE_INLINE I pack(I a, I b) { return _mm256_packs_epi32(a, b); }
  RELAYCORE_INLINE I pack_in_order(I a, I b) {
    return _mm256_permute4x64_epi64(pack(a, b), _MM_SHUFFLE(3, 1, 2, 0));
  }

  RELAYCORE_INLINE I zip_lo16(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
  RELAYCORE_INLINE I zip_hi16(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
  RELAYCORE_INLINE I zip_lo32(I a, I b) { return _mm256_unpacklo_epi32(a, b); }
  RELAYCORE_INLINE I zip_hi32(I a, I b) { return _mm256_unpackhi_epi32(a, b); }

  RELAYCORE_INLINE F high_to_float(I x) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(x), _mm256_set1_ps(0x1p-31f));
  }
  RELAYCORE_INLINE F widen_lo(I x) { return high_to_float(zip_lo16(_mm256_setzero_si256(), x)); }
  RELAYCORE_INLINE F widen_hi(I x) { return high_to_float(zip_hi16(_mm256_setzero_si256(), x)); }
  RELAYCORE_INLINE F load_widened(const void* p) {
    const I whole = _mm256_cvtepi16_epi32(load_row(p));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_set1_ps(0x1p-15f));
  }
  RELAYCORE_INLINE I low_to_high(I x) { return _mm256_slli_epi32(x, 16); }
  RELAYCORE_INLINE I high_only(I x) { return _mm256_and_si256(x, _mm256_set1_epi32(-65536)); }

  RELAYCORE_INLINE __m128i load_row(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  RELAYCORE_INLINE void store_row(void* p, __m128i x) {
    _mm_storeu_si128(static_cast<__m128i*>(p), x);
  }
  template <unsigned N>
  RELAYCORE_INLINE void store_rows(uint8_t* out, size_t row, const I (&r)[N]) {
    for (unsigned k = 0; k < N; ++k) store_row(out + k * row, _mm256_castsi256_si128(r[k]));
    for (unsigned k = 0; k < N; ++k)
      store_row(out + (N + k) * row, _mm256_extracti128_si256(r[k], 1));
  }
  template <unsigned N>
  RELAYCORE_INLINE void store_rows(uint8_t* out, size_t row, const I (&a)[N], const I (&b)[N]) {
    for (unsigned k = 0; k < N; ++k) {
      store_i(out + k * row, _mm256_permute2x128_si256(a[k], b[k], 0x20));
      store_i(out + (N + k) * row, _mm256_permute2x128_si256(a[k], b[k], 0x31));
    }
  }
  template <unsigned N>
  RELAYCORE_INLINE void load_rows(const uint8_t* in, size_t row, I (&r)[N]) {
    for (unsigned k = 0; k < N; ++k) {
      const I low = _mm256_castsi128_si256(load_row(in + k * row));
      r[k] = _mm256_inserti128_si256(low, load_row(in + (N + k) * row), 1);
    }
  }

  RELAYCORE_INLINE F magnitude(F x) {  // of NaN: 0
    const F number = _mm256_and_ps(x, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), number);
  }
  struct Sum {
    __m256d lo, hi;
  };
  RELAYCORE_INLINE Sum no_sum() { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
  RELAYCORE_INLINE Sum add_squares(Sum sum, F x) {
    const __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
    const __m256d hi = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    return {_mm256_add_pd(sum.lo, _mm256_mul_pd(lo, lo)),
            _mm256_add_pd(sum.hi, _mm256_mul_pd(hi, hi))};
  }
  RELAYCORE_INLINE double total(Sum sum) {
    const __m256d both = _mm256_add_pd(sum.lo, sum.hi);
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(both), _mm256_extractf128_pd(both, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
  }
};

}  // namespace

constinit const PcmOps kPcmOpsAvx2 = table_of<Avx2>("avx2");

}  // namespace relaycore
