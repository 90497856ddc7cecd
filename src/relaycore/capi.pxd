# Every extern declaration of the native core, in pipeline order. All of it is nogil.

from libc.stdint cimport int16_t

# --- pcm_ops.h: the sample loops -------------------------------------------------------------

cdef extern from "relaycore/pcm_ops.h" namespace "relaycore" nogil:
    cppclass PcmOps:
        const char* name
        void interleave_f32(const float* const* planes, unsigned channels, size_t n, void* out) noexcept
        void interleave_s16(const float* const* planes, unsigned channels, size_t n, void* out) noexcept
        void interleave_s16_s16(const int16_t* const* planes, unsigned channels, size_t n, void* out) noexcept
        void deinterleave_f32(const void* frames, unsigned channels, size_t n, float* const* planes) noexcept
        void deinterleave_s16(const void* frames, unsigned channels, size_t n, float* const* planes) noexcept
        void deinterleave_s16_s16(const void* frames, unsigned channels, size_t n, int16_t* const* planes) noexcept
        void s16_to_f32(const void* samples, size_t n, float* out) noexcept
        void f32_to_s16(const float* samples, size_t n, void* out) noexcept
        void mix(const float* const* planes, unsigned channels, size_t n, const float* gains,
                 unsigned outputs, float* const* out) noexcept
        void mix_ramp(const float* const* planes, unsigned channels, size_t n, const float* start,
                      const float* end, unsigned outputs, float* const* out) noexcept
        void levels(const float* samples, size_t n, float* peak, double* sum_squares) noexcept

    cppclass PcmOpsList "std::span<const relaycore::PcmOps* const>":
        size_t size() noexcept
        const PcmOps* operator[](size_t index) noexcept

    const PcmOps& pcm_ops() noexcept
    PcmOpsList pcm_ops_available() noexcept
    bint force_pcm_ops(const char* name) noexcept
