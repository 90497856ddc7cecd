// The kernels for NEON, part of every 64-bit ARM: one lane to a vector.
#include <arm_neon.h>

#include "pcm_ops_tables.h"
#include "pcm_ops_vector.h"

namespace relaycore {
namespace {

struct Neon {
  using F = float32x4_t;
  using I = int16x8_t;
  static constexpr size_t kFloats = 4;
  static constexpr bool kRoundNeedsCare = false;  // conversion saturates, and NaN becomes 0

  RELAYCORE_INLINE F load_f(const float* p) { return vld1q_f32(p); }
  RELAYCORE_INLINE void store_f(float* p, F x) { vst1q_f32(p, x); }
  // As bytes, which may stand anywhere.
  RELAYCORE_INLINE I load_i(const void* p) {
    return vreinterpretq_s16_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
  }
  RELAYCORE_INLINE void store_i(void* p, I x) {
    vst1q_u8(static_cast<uint8_t*>(p), vreinterpretq_u8_s16(x));
  }
  RELAYCORE_INLINE F set(float x) { return vdupq_n_f32(x); }
  RELAYCORE_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
  RELAYCORE_INLINE F mul(F a, F b) { return vmulq_f32(a, b); }
  RELAYCORE_INLINE F max(F a, F b) { return vmaxq_f32(a, b); }
  RELAYCORE_INLINE F index(size_t i) {
    static constexpr int32_t kSteps[4] = {0, 1, 2, 3};
    return vcvtq_f32_s32(vaddq_s32(vdupq_n_s32(static_cast<int32_t>(i)), vld1q_s32(kSteps)));
  }

  RELAYCORE_INLINE I round(F x) { return vreinterpretq_s16_s32(vcvtnq_s32_f32(x)); }
  RELAYCORE_INLINE I pack(I a, I b) {
    return vqmovn_high_s32(vqmovn_s32(vreinterpretq_s32_s16(a)), vreinterpretq_s32_s16(b));
  }
  RELAYCORE_INLINE I pack_in_order(I a, I b) { return pack(a, b); }

  RELAYCORE_INLINE I zip_lo16(I a, I b) { return vzip1q_s16(a, b); }
  RELAYCORE_INLINE I zip_hi16(I a, I b) { return vzip2q_s16(a, b); }
  RELAYCORE_INLINE I zip_lo32(I a, I b) {
    return vreinterpretq_s16_s32(vzip1q_s32(vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b)));
  }
  RELAYCORE_INLINE I zip_hi32(I a, I b) {
    return vreinterpretq_s16_s32(vzip2q_s32(vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b)));
  }

  RELAYCORE_INLINE F high_to_float(I x) { return vcvtq_n_f32_s32(vreinterpretq_s32_s16(x), 31); }
  RELAYCORE_INLINE F widen_lo(I x) { return vcvtq_n_f32_s32(vmovl_s16(vget_low_s16(x)), 15); }
  RELAYCORE_INLINE F widen_hi(I x) { return vcvtq_n_f32_s32(vmovl_high_s16(x), 15); }
  RELAYCORE_INLINE F load_widened(const void* p) {
    const int16x4_t narrow = vreinterpret_s16_u8(vld1_u8(static_cast<const uint8_t*>(p)));
    return vcvtq_n_f32_s32(vmovl_s16(narrow), 15);
  }
  RELAYCORE_INLINE I low_to_high(I x) {
    return vreinterpretq_s16_s32(vshlq_n_s32(vreinterpretq_s32_s16(x), 16));
  }
  RELAYCORE_INLINE I high_only(I x) {
    return vandq_s16(x, vreinterpretq_s16_s32(vdupq_n_s32(-65536)));
  }

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
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(vabsq_f32(x)), vceqq_f32(x, x)));
  }
  struct Sum {
    float64x2_t lo, hi;
  };
  RELAYCORE_INLINE Sum no_sum() { return {vdupq_n_f64(0), vdupq_n_f64(0)}; }
  RELAYCORE_INLINE Sum add_squares(Sum sum, F x) {
    const float64x2_t lo = vcvt_f64_f32(vget_low_f32(x)), hi = vcvt_high_f64_f32(x);
    return {vaddq_f64(sum.lo, vmulq_f64(lo, lo)), vaddq_f64(sum.hi, vmulq_f64(hi, hi))};
  }
  RELAYCORE_INLINE double total(Sum sum) { return vaddvq_f64(vaddq_f64(sum.lo, sum.hi)); }
};

}  // namespace

constinit const PcmOps kPcmOpsNeon = table_of<Neon>("neon");

}  // namespace relaycore
