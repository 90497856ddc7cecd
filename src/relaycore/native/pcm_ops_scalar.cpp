// The kernels without vector instructions: the oracle that every variant is tested against, and
// the table of machines that have no variant.
#include "pcm_ops_scalar.h"

#include "pcm_ops_tables.h"

namespace relaycore {
namespace {

template <class Out, class In>
void interleave(const In* const* planes, unsigned channels, size_t n, void* out) noexcept {
  scalar::interleave<Out>(planes, channels, 0, n, out);
}

template <class In, class Out>
void deinterleave(const void* in, unsigned channels, size_t n, Out* const* planes) noexcept {
  scalar::deinterleave<In>(in, channels, 0, n, planes);
}

void s16_to_f32(const void* in, size_t n, float* out) noexcept {
  scalar::s16_to_f32(in, 0, n, out);
}

void f32_to_s16(const float* in, size_t n, void* out) noexcept {
  scalar::f32_to_s16(in, 0, n, out);
}

void mix(const float* const* planes, unsigned channels, size_t n, const float* gains,
         unsigned outputs, float* const* out) noexcept {
  scalar::mix(planes, channels, 0, n, gains, outputs, out);
}

void mix_ramp(const float* const* planes, unsigned channels, size_t n, const float* from,
              const float* to, unsigned outputs, float* const* out) noexcept {
  scalar::mix_ramp(planes, channels, n, 0, n, from, to, outputs, out);
}

void levels(const float* in, size_t n, float* peak, double* sum_squares) noexcept {
  *peak = 0;
  *sum_squares = 0;
  scalar::levels(in, 0, n, peak, sum_squares);
}

}  // namespace

constinit const PcmOps kPcmOpsScalar = {
    .name = "scalar",
    .interleave_f32 = interleave<float, float>,
    .interleave_s16 = interleave<int16_t, float>,
    .interleave_s16_s16 = interleave<int16_t, int16_t>,
    .deinterleave_f32 = deinterleave<float, float>,
    .deinterleave_s16 = deinterleave<int16_t, float>,
    .deinterleave_s16_s16 = deinterleave<int16_t, int16_t>,
    .s16_to_f32 = s16_to_f32,
    .f32_to_s16 = f32_to_s16,
    .mix = mix,
    .mix_ramp = mix_ramp,
    .levels = levels,
};

}  // namespace relaycore
