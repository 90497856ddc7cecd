# Every extern declaration of the native core, in pipeline order. All of it is nogil.

from libc.stdint cimport int16_t, int64_t, uint64_t
from libcpp.memory cimport unique_ptr

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

# --- role.h, spsc_ring.h: between two threads ----------------------------------------------------

cdef extern from "relaycore/role.h" namespace "relaycore" nogil:
    cppclass Role:
        bint enter() noexcept
        void leave() noexcept

cdef extern from "relaycore/spsc_ring.h" namespace "relaycore" nogil:
    cppclass SpscSpan "relaycore::SpscRing<float>::Span":
        float* first
        size_t first_n
        float* second
        size_t second_n

    cppclass SpscRing "relaycore::SpscRing<float>":
        bint init(size_t capacity, uint64_t first_index) noexcept
        size_t capacity() noexcept
        size_t writable() noexcept
        size_t writable(size_t wanted) noexcept
        SpscSpan reserve(size_t n) noexcept
        void commit(size_t n) noexcept
        size_t readable() noexcept
        size_t readable(size_t wanted) noexcept
        SpscSpan peek(size_t n) noexcept
        void release(size_t n) noexcept

# --- jitter_buffer.h, jitter_port.h: packets to frames -----------------------------------------

cdef extern from "relaycore/jitter_buffer.h" namespace "relaycore" nogil:
    struct JitterConfig:
        unsigned channels
        unsigned sample_rate
        unsigned frame_ms
        double target_ms
        uint64_t origin

    struct ChannelCounters:
        uint64_t received
        uint64_t duplicate
        uint64_t late
        uint64_t lost
        uint64_t concealed
        uint64_t dropped

    struct FrameInfo:
        uint64_t index
        uint64_t timestamp
        unsigned samples
        uint64_t concealed_mask
        bint discontinuity
        int64_t deadline_ns

cdef extern from "relaycore/jitter_port.h" namespace "relaycore" nogil:
    struct JitterStats:
        bint live
        bint ended
        double fill_ms
        double target_ms
        double jitter_ms
        double drift_ppm
        int64_t next_deadline_ns
        uint64_t end_timestamp

    enum class Pushed "relaycore::JitterPort::Pushed":
        ok
        full
        finished
        busy

    enum class Popped "relaycore::JitterPort::Popped":
        none
        frame
        busy

    cppclass JitterPort:
        Pushed push(unsigned first_channel, unsigned channels, uint64_t timestamp,
                    int64_t arrival_ns, const float* samples, size_t n) noexcept
        Pushed push_s16(unsigned first_channel, unsigned channels, uint64_t timestamp,
                        int64_t arrival_ns, const void* samples, size_t n) noexcept
        Popped pop(int64_t now_ns, float* const* planes, FrameInfo& info) noexcept
        void finish() noexcept
        JitterStats stats() noexcept
        ChannelCounters counters(unsigned channel) noexcept
        unsigned max_frame_samples() noexcept
        const JitterConfig& config() noexcept

    unique_ptr[JitterPort] create_jitter_port "relaycore::JitterPort::create" (const JitterConfig& config) noexcept
