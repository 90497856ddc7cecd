# JitterBuffer: packets of several channels in from one thread, frames out to another.

cimport cython
from time import monotonic_ns as _monotonic_ns

from libc.stdint cimport int64_t
from libcpp.memory cimport unique_ptr
from libcpp.utility cimport move

from .capi cimport (
    ChannelCounters as _NativeCounters,
    FrameInfo,
    JitterConfig,
    JitterPort,
    Popped,
    Pushed,
    create_jitter_port,
)

from relaycore.counters import ChannelCounters

cdef enum:
    MAX_ROOM_CHANNELS = 64


@cython.final
cdef class Frame:
    """One frame of every channel: what `JitterBuffer.pop` gives.

    Attributes
    ----------
    index : int
        Number of the frame, from 0, always one more than that of the frame before.
    timestamp : int
        Position of the first sample on the timeline. Only moves forward; adjoins the frame before
        unless `discontinuity`.
    samples : numpy.ndarray
        float32, shape ``(channels, n)``, full scale ±1. It is the caller's, or a view of `out`.
    concealed_mask : int
        Bit c is set when the frame of channel c is not all as it was sent.
    discontinuity : bool
        The first frame after buffering, including the very first.
    deadline_ns : int
        When the frame was due, on the clock that `pop` was called with.
    """

    cdef readonly uint64_t index
    cdef readonly uint64_t timestamp
    cdef readonly object samples
    cdef readonly uint64_t concealed_mask
    cdef readonly bint discontinuity
    cdef readonly int64_t deadline_ns

    def __init__(self):
        raise TypeError("frames are made by JitterBuffer.pop()")

    def __repr__(self):
        return (
            f"<Frame {self.index} at {self.timestamp}, {self.samples.shape[1]} samples"
            f"{', some concealed' if self.concealed_mask else ''}"
            f"{', discontinuity' if self.discontinuity else ''}>"
        )


cdef int check_alone(Popped result) except -1:
    if result == Popped.busy:
        raise RuntimeError("pop() while another thread pops: one thread at a time")
    return 0


@cython.final
cdef class JitterBuffer:
    """Packets of C channels on one timeline; played frame by frame at the source's pace.

    One thread pushes packets, in any order and of any length; another pops frames, one each
    `frame_ms` on average, at deadlines that follow the source's clock. Nothing waits: a sample
    that is not there when its frame is due is concealed. Any thread may read the properties and
    counters, which are those of the last `pop`. Overlapping pushes, or overlapping pops, raise
    RuntimeError.

    The buffer is first *buffering*, until every channel that is heard holds the target delay. Then
    it is *live* until no channel had a sample for 200 ms. Packets are placed by their timestamps
    from the position played (earlier is late) to 1.25 s ahead of it; everything else is dropped,
    but when all that came for 200 ms agrees on another position, playing goes on there. Nothing is
    lost because `pop` is called late: what goes beyond the window then waits for the frames that
    are due.

    Parameters
    ----------
    channels
        1 to 64.
    sample_rate
        8000 to 96000.
    frame_ms
        5, 10, 20, 40 or 60. Frame n covers samples ``n * sample_rate * frame_ms // 1000`` to
        ``(n + 1) * sample_rate * frame_ms // 1000`` of what is played.
    target_ms
        Delay to hold between source and playout, above 0 to 1000; never below the longest packet
        of the last half minute plus one frame. Default: adaptive, from how late packets come.
    origin
        Timeline position of the first sample played, 0 to 2**64 - 1.

    Raises
    ------
    ValueError
        A parameter is out of its range.
    MemoryError
        There is no memory for it.
    """

    cdef unique_ptr[JitterPort] port
    cdef unsigned channel_count

    def __cinit__(self, Py_ssize_t channels, Py_ssize_t sample_rate, *, Py_ssize_t frame_ms=20,
                  target_ms=None, uint64_t origin=0):
        if not 1 <= channels <= MAX_ROOM_CHANNELS:
            raise ValueError(f"channels: expected 1 to {MAX_ROOM_CHANNELS}, got {channels}")
        if not 8000 <= sample_rate <= 96000:
            raise ValueError(f"sample_rate: expected 8000 to 96000, got {sample_rate}")
        if frame_ms not in (5, 10, 20, 40, 60):
            raise ValueError(f"frame_ms: expected 5, 10, 20, 40 or 60, got {frame_ms}")
        if target_ms is not None and not 0 < target_ms <= 1000:
            raise ValueError(f"target_ms: expected above 0 to 1000, got {target_ms}")
        cdef JitterConfig config
        config.channels = <unsigned>channels
        config.sample_rate = <unsigned>sample_rate
        config.frame_ms = <unsigned>frame_ms
        config.target_ms = 0 if target_ms is None else target_ms
        config.origin = origin
        self.port = move(create_jitter_port(config))
        if not self.port:
            raise MemoryError("no memory for a jitter buffer")
        self.channel_count = config.channels

    def __repr__(self):
        config = &self.port.get().config()
        return (
            f"<JitterBuffer {config.channels} channels at {config.sample_rate} Hz, "
            f"{config.frame_ms} ms frames, {self.state}>"
        )

    @property
    def channels(self):
        """Number of channels. Any thread."""
        return self.channel_count

    @property
    def sample_rate(self):
        """Samples per second and channel. Any thread."""
        return self.port.get().config().sample_rate

    @property
    def frame_ms(self):
        """Length of a frame in milliseconds. Any thread."""
        return self.port.get().config().frame_ms

    @property
    def max_frame_samples(self):
        """Samples per channel of the longest frame. Any thread."""
        return self.port.get().max_frame_samples()

    def push(self, Py_ssize_t channel, uint64_t timestamp, samples, arrival_ns=None):
        """Hand in one packet. Pushing thread.

        Parameters
        ----------
        channel
            The channel, or the first of several neighbouring ones.
        timestamp
            Position of the first sample on the source's clock, 0 to 2**64 - 1, counted in samples.
            It may wrap.
        samples
            C-contiguous array of float32 or int16: shape ``(n,)`` for one channel, ``(k, n)`` for
            channels `channel` to ``channel + k - 1``. At most one second. It is copied.
        arrival_ns
            When the packet came, on the clock that `pop` is called with. Default:
            ``time.monotonic_ns()``.

        Returns
        -------
        True; or False when the other thread has not popped for so long, or has not caught up with
        that yet, that there is no room. No part of the packet was taken then.

        Raises
        ------
        TypeError
            `samples` is no buffer of float32 or int16.
        ValueError
            The channel does not exist, the packet is longer than a second, or the array's shape or
            layout does not fit.
        OverflowError
            `timestamp` or `arrival_ns` does not fit 64 bits.
        RuntimeError
            After `finish`, or while another thread pushes.
        """
        cdef Frames source
        cdef Py_ssize_t planes = 1
        cdef Py_ssize_t n
        cdef int64_t arrival = _monotonic_ns() if arrival_ns is None else arrival_ns
        cdef JitterPort* port = self.port.get()
        cdef Pushed result
        take_run(samples, &source, "samples", False)
        try:
            n = source.samples
            if source.whole.ndim == 2:
                planes = source.whole.shape[0]
                n = source.whole.shape[1]
            elif source.whole.ndim != 1:
                raise ValueError(
                    "samples: expected shape (n,) or (channels, n), "
                    f"got {shape_of(&source.whole)}"
                )
            if channel < 0 or channel + planes > self.channel_count:
                raise ValueError(
                    f"channel: there are {self.channel_count} channels, "
                    f"got {planes} from number {channel} on"
                )
            if n > port.config().sample_rate:
                raise ValueError(f"samples: a packet has at most one second, got {n} samples")
            if source.item == sizeof(float):
                check_aligned(source.at, source.item, "samples")
                with nogil:
                    result = port.push(<unsigned>channel, <unsigned>planes, timestamp, arrival,
                                       <const float*>source.at, <size_t>n)
            else:
                with nogil:
                    result = port.push_s16(<unsigned>channel, <unsigned>planes, timestamp, arrival,
                                           source.at, <size_t>n)
        finally:
            PyBuffer_Release(&source.whole)
        if result == Pushed.busy:
            raise RuntimeError("push() while another thread pushes: one thread at a time")
        if result == Pushed.finished:
            raise RuntimeError("push() after finish()")
        return result == Pushed.ok

    def pop(self, now_ns=None, out=None):
        """Take in what was pushed and has its time, and play the next frame if due. Popping thread.

        Call it at `next_deadline_ns`, and again as long as it gives a frame: after a pause several
        are due.

        Parameters
        ----------
        now_ns
            The time, on one monotonic clock of the caller's choice, within ±2**62. Default:
            ``time.monotonic_ns()``.
        out
            Where to write: a writable, C-contiguous float32 array of shape
            ``(channels, max_frame_samples)`` or wider. Default: a new array.

        Returns
        -------
        The frame, or None when none is due or there is nothing to play yet.

        Raises
        ------
        TypeError
            `out` is no buffer of float32.
        ValueError
            `out` is too small, not contiguous or not writable, or `now_ns` is out of its range.
        RuntimeError
            Another thread pops.

        The GIL is released meanwhile.
        """
        cdef int64_t now = _monotonic_ns() if now_ns is None else now_ns
        cdef JitterPort* port = self.port.get()
        cdef Frames target
        cdef float* planes[MAX_ROOM_CHANNELS]
        cdef unsigned c
        cdef Py_ssize_t width
        cdef FrameInfo info
        cdef Popped result
        if not -(1 << 62) <= now <= 1 << 62:
            raise ValueError(f"now_ns: expected a time within 2**62 ns, got {now}")
        into = out
        if into is None:
            if now < port.stats().next_deadline_ns:
                # Nothing can be due, so no array is made: most calls of a polling caller end here.
                with nogil:
                    result = port.pop(now, NULL, info)
                check_alone(result)
                return None
            into = np.empty((self.channel_count, port.max_frame_samples()), _FLOAT32)
        take_run(into, &target, "out", True)
        try:
            width = target.whole.shape[1] if target.whole.ndim == 2 else 0
            if (target.item != sizeof(float) or target.whole.ndim != 2
                    or target.whole.shape[0] != self.channel_count
                    or width < port.max_frame_samples()):
                raise ValueError(
                    f"out: expected float32 of shape ({self.channel_count}, "
                    f"{port.max_frame_samples()}) or wider, got {type_name(target.item)} of "
                    f"{shape_of(&target.whole)}"
                )
            check_aligned(target.at, sizeof(float), "out")
            for c in range(self.channel_count):
                planes[c] = <float*>target.at + <Py_ssize_t>c * width
            with nogil:
                result = port.pop(now, planes, info)
        finally:
            PyBuffer_Release(&target.whole)
        check_alone(result)
        if result != Popped.frame:
            return None
        cdef Frame frame = Frame.__new__(Frame)
        frame.index = info.index
        frame.timestamp = info.timestamp
        frame.concealed_mask = info.concealed_mask
        frame.discontinuity = info.discontinuity
        frame.deadline_ns = info.deadline_ns
        if width == <Py_ssize_t>info.samples and out is None:
            frame.samples = into
        else:
            frame.samples = np.asarray(into)[:, : info.samples]
        return frame

    def finish(self):
        """Play out what was pushed before this call, without waiting for more. Any thread.

        `pop` goes on giving frames at their deadlines, the last one padded with zeros; then `ended`
        is true. Later pushes raise RuntimeError. Calling it again changes nothing.
        """
        self.port.get().finish()

    @property
    def next_deadline_ns(self):
        """When `pop` wants to be called next. 0 before the first call, 2**63 - 1 when ended."""
        return self.port.get().stats().next_deadline_ns

    @property
    def state(self):
        """``"buffering"`` or ``"live"``."""
        return "live" if self.port.get().stats().live else "buffering"

    @property
    def ended(self):
        """Whether all was played after `finish`."""
        return self.port.get().stats().ended

    @property
    def fill_ms(self):
        """Live: delay between source and playout, averaged. Buffering: what is held."""
        return self.port.get().stats().fill_ms

    @property
    def target_ms(self):
        """The delay to hold, as it is in force now."""
        return self.port.get().stats().target_ms

    @property
    def jitter_ms(self):
        """How much later than the average the latest packet of the last half minute came."""
        return self.port.get().stats().jitter_ms

    @property
    def drift_ppm(self):
        """How much faster than the caller's clock the source's runs, in parts per million."""
        return self.port.get().stats().drift_ppm

    @property
    def end_timestamp(self):
        """First position of the timeline that was not played yet."""
        return self.port.get().stats().end_timestamp

    def counters(self, Py_ssize_t channel):
        """What became of the samples of one channel, as of the last `pop`. Any thread.

        Raises
        ------
        ValueError
            There is no such channel.
        """
        if not 0 <= channel < self.channel_count:
            raise ValueError(f"channel: there are {self.channel_count} channels, got {channel}")
        cdef _NativeCounters found = self.port.get().counters(<unsigned>channel)
        return ChannelCounters(found.received, found.duplicate, found.late, found.lost,
                               found.concealed, found.dropped)
