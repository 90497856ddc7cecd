# Every extern declaration of the native core, in pipeline order. All of it is nogil.

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.map cimport map
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

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

cdef extern from "relaycore/live_objects.h" namespace "relaycore" nogil:
    struct LiveObjects:
        const char* kind
        uint64_t made
        uint64_t freed

    vector[LiveObjects] live_objects() except +

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
        SpscRing() except +
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

# --- the relay: status.h packet.h subscription.h connection.h events.h relay.h ----------------

cdef extern from "relaycore/status.h" namespace "relaycore" nogil:
    cdef enum class Status(int):
        ok
        invalid_argument
        out_of_memory
        system_error
        closed
        unavailable

cdef extern from "relaycore/packet.h" namespace "relaycore" nogil:
    cdef enum class Encoding(uint8_t):
        s16le
        f32le

    cdef struct SourceFormat:
        Encoding encoding
        unsigned channels
        unsigned sample_rate

cdef extern from "relaycore/subscription.h" namespace "relaycore" nogil:
    cdef enum class Mode(uint8_t):
        multichannel
        mix

    cdef cppclass Subscription:
        Mode mode
        Encoding encoding
        bool all_channels
        bool levels
        uint32_t interval_ms
        uint64_t channels
        uint64_t mutes
        uint64_t solos
        float master
        float* faders
        float* pans

cdef extern from "relaycore/connection.h" namespace "relaycore" nogil:
    cdef cppclass Connection:
        uint64_t frames_sent
        uint64_t frames_dropped
        uint64_t bytes_sent
        uint64_t bytes_received

cdef extern from "relaycore/events.h" namespace "relaycore" nogil:
    cdef enum class EventKind(uint8_t):
        text
        binary
        closed
        stream_live
        stream_buffering
        stream_ended
        source_report
        room_report
        thread_stall

    cdef enum class CloseReason(uint8_t):
        pass

    cdef cppclass Event:
        EventKind kind
        uint64_t subject

    cdef cppclass MessageEvent(Event):
        int64_t received_us
        string data

    cdef cppclass ClosedEvent(Event):
        CloseReason reason
        uint16_t code
        float lag_ms
        Connection* connection
        string_view detail() noexcept

    cdef cppclass StreamEvent(Event):
        uint16_t stream
        uint64_t timestamp
        bool drained

    cdef cppclass SourceReportEvent(Event):
        uint64_t connection
        uint16_t stream
        double fill_ms
        double target_ms
        double jitter_ms
        double drift_ppm
        bool has_capture_offset
        int64_t capture_offset_us
        vector[ChannelCounters] channels

    cdef cppclass ListenerFigures:
        uint64_t connection
        uint64_t layout
        uint64_t frames_sent
        uint64_t frames_dropped
        uint64_t bytes_sent
        uint32_t frames_behind
        double lag_ms
        double round_trip_ms

    cdef cppclass LayoutFigures:
        uint64_t layout
        uint32_t listeners
        uint64_t frames_built
        uint64_t frames_sent

    cdef cppclass ThreadStallEvent(Event):
        double late_ms
        bool over

    cdef cppclass RoomReportEvent(Event):
        unsigned thread
        vector[ListenerFigures] listeners
        vector[LayoutFigures] layouts

cdef extern from "relaycore/counters.h" namespace "relaycore" nogil:
    cdef cppclass LatenessHistogram:
        @staticmethod
        uint64_t bound_us(size_t bucket) noexcept

cdef extern from "relaycore/relay.h" namespace "relaycore" nogil:
    cdef cppclass RelayConfig:
        unsigned threads
        bool realtime
        int64_t max_lag_ns
        int64_t evict_after_ns
        int64_t register_timeout_ns
        int64_t ping_interval_ns
        int64_t source_timeout_ns
        int64_t silence_timeout_ns
        int64_t watchdog_ns
        size_t max_text_bytes
        size_t max_binary_bytes
        size_t max_queued_bytes
        unsigned max_packets_per_s

    cdef cppclass ThreadFigures:
        uint64_t connections, listeners, rooms, ticks, tick_late_ns_max, frames_sent
        uint64_t frames_dropped, frames_built, bytes_sent, bytes_received, sends, packets, evicted
        uint64_t stalls
        vector[uint64_t] tick_late

    cdef cppclass RoomFigures:
        uint64_t room, blocks, packets, frames_sent, frames_dropped, bytes_sent, listeners

    cdef cppclass SourceBinding:
        uint64_t connection
        uint64_t room
        uint16_t stream
        SourceFormat format
        unsigned frame_ms
        double buffer_ms
        string_view announce

    cdef cppclass Relay:
        @staticmethod
        Status start(const RelayConfig&, unique_ptr[Relay]&)
        int event_fd()
        Status poll(size_t, vector[Event*]&)
        Status attach(int, string_view, string_view, bool, uint64_t&)
        Status open_room(uint64_t&)
        Status close_room(uint64_t, string_view, uint16_t)
        Status bind_source(const SourceBinding&, string_view)
        Status unbind_source(uint64_t)
        Status bind_listener(uint64_t, uint64_t, const Subscription&, string_view, uint16_t,
                             uint32_t, uint64_t)
        Status subscribe(uint64_t, const Subscription&, string_view)
        Status send(uint64_t, string_view, bool, bool)
        Status send_room(uint64_t, string_view)
        Status report_lag(uint64_t, int64_t)
        Status close_connection(uint64_t, uint16_t, string_view, string_view)
        Status inspect(uint64_t)
        int64_t clock_us()
        vector[ThreadFigures] thread_figures() except +
        vector[RoomFigures] room_figures() except +
        void close(string_view, int64_t)

# --- load_client.h: many listeners of a server ---------------------------------------------------

cdef extern from "relaycore/histogram.h" namespace "relaycore" nogil:
    cdef cppclass HistogramRange "relaycore::Histogram::Range":
        uint64_t bound_us
        uint64_t count

    cdef cppclass Histogram:
        Histogram() except +
        void add(int64_t us) noexcept
        void add(const Histogram& other) noexcept
        uint64_t count() noexcept
        uint64_t max_us() noexcept
        double mean_us() noexcept
        uint64_t quantile_us(double q) noexcept
        vector[HistogramRange] ranges() except +

cdef extern from "relaycore/load_client.h" namespace "relaycore" nogil:
    const unsigned kLoadGroups

    cdef enum class LoadClock(uint8_t):
        given
        ping
        config

    cdef cppclass LoadConfig:
        LoadConfig() except +
        string host
        uint16_t port
        string authority
        string path
        string join_path
        vector[string] bind
        unsigned threads
        unsigned in_flight
        bool registers
        bool stream
        bool reuse
        bool rejoin
        int64_t retry_ns
        int64_t answer_ns
        LoadClock clock
        int64_t clock_offset_us
        bool kernel_times
        bool realtime
        bool tls
        bool verify
        string ca_file
        string server_name

    cdef cppclass LoadListeners:
        LoadListeners() except +
        size_t count
        unsigned group
        double per_second
        int64_t bytes_per_s
        vector[string] registers
        vector[string] asks

    cdef cppclass LoadSources:
        LoadSources() except +
        vector[string] registers
        SourceFormat format
        unsigned frame_ms

    cdef cppclass LoadRecord:
        pass

    cdef cppclass LoadFigures:
        LoadFigures() except +
        bool is_sources, clock_known
        uint64_t connections, settled, joined, alive
        int64_t clock_offset_us, round_trip_us, since_ns, taken_ns, cpu_ns, wait_ns
        uint64_t frames, bytes, reads, pings, failed, lost, returned, gaps, missing
        uint64_t attempts, sent, replies, skipped
        int64_t first_lost_ns, first_open_ns, last_joined_ns, last_back_ns
        Histogram* delay
        Histogram arrival, join, silence, reply, batch
        map[string, uint64_t] errors

    cdef cppclass LoadClient:
        @staticmethod
        Status start(const LoadConfig&, unique_ptr[LoadClient]&, string&)
        void add_listeners(LoadListeners) except +
        void add_sources(LoadSources) except +
        void stop_sources() except +
        void limit(const vector[uint32_t]&, int64_t) except +
        void drop(const vector[uint32_t]&) except +
        void send(const vector[uint32_t]&, const vector[string]&) except +
        void rejoin(bool) except +
        void count_until(int64_t) except +
        vector[LoadFigures] figures(bool) except +
        vector[LoadRecord] listeners() except +
        vector[LoadRecord] sources() except +
