# The relay: verbs in, events out.

import os
import socket as _socket
import sys

from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8

from . cimport capi

from relaycore import counters as _counters
from relaycore import events as _events
from relaycore.errors import RelayClosedError, RelayUnavailableError

cdef tuple _CLOSE_REASONS = tuple(_events.CloseReason)
cdef dict _ENCODINGS = {"pcm_s16le": 0, "pcm_f32le": 1}
cdef tuple _SAMPLE_RATES = (8000, 16000, 24000, 32000, 44100, 48000, 88200, 96000)
cdef tuple _FRAME_MS = (5, 10, 20, 40, 60)
cdef enum:
    _MAX_CHANNELS = 64


cdef int _check(capi.Status status) except -1:
    """Turns a status of the core into an exception."""
    if status == capi.Status.ok:
        return 0
    if status == capi.Status.out_of_memory:
        raise MemoryError("the relay has no memory for that")
    if status == capi.Status.system_error:
        raise OSError(errno, os.strerror(errno))
    if status == capi.Status.closed:
        raise RelayClosedError("the relay is closed")
    if status == capi.Status.unavailable:
        raise RelayUnavailableError("Relay needs Linux (epoll); rings, jitter buffer and kernels work here")
    raise ValueError("invalid argument")


cdef object _encoding_number(str encoding):
    number = _ENCODINGS.get(encoding)
    if number is None:
        raise ValueError(f"encoding must be one of {', '.join(_ENCODINGS)}, not {encoding!r}")
    return number


cdef float _number(object value, str what, double low, double high, int index=-1) except? -1:
    """A number within bounds; `index`: which one of several `what` is."""
    cdef double number = value
    if not low <= number <= high:  # NaN too
        name = what if index < 0 else f"{what}[{index}]"
        raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value!r}")
    return <float>number


@cython.final
cdef class Subscription:
    """What a listener wants to hear. Immutable.

    mode: "multichannel", the channels themselves, or "mix", their stereo mix.
    channels: indices from 0 to 63, delivered in ascending order; None: all the room has. Channels
        that do not exist are silent. In a mix, those that take part.
    encoding: "pcm_s16le" or "pcm_f32le".
    interval_ms: least distance between sends, 0 to 60,000; more than 1,000, and than the relay's
        `max_lag_ms`, counts as that. Frames are grouped, none is left out.
    levels: True: peak and RMS of every channel of the room about ten times a second.
    faders: linear gain per channel, 0 to 4; channels beyond the list have 1.
    pans: -1 (left) to 1 (right), equal power; beyond the list 0.
    mutes, solos: one truth value per channel; while any channel is soloed only those are heard.
    master: linear gain of the whole, 0 to 4.

    Raises ValueError or TypeError and says which value was wrong.
    """

    cdef capi.Subscription wish

    def __init__(self, *, mode="multichannel", channels=None, encoding="pcm_s16le", interval_ms=0,
                 levels=False, faders=(), pans=(), mutes=(), solos=(), master=1.0):
        cdef int i
        if mode == "multichannel":
            self.wish.mode = capi.Mode.multichannel
        elif mode == "mix":
            self.wish.mode = capi.Mode.mix
        else:
            raise ValueError(f"mode must be 'multichannel' or 'mix', not {mode!r}")
        self.wish.encoding = <capi.Encoding><int>_encoding_number(encoding)
        self.wish.all_channels = channels is None
        self.wish.channels = ~<uint64_t>0 if channels is None else self._channel_set(channels)
        if not 0 <= interval_ms <= 60_000:
            raise ValueError(f"interval_ms must be from 0 to 60000, not {interval_ms!r}")
        self.wish.interval_ms = interval_ms
        self.wish.levels = bool(levels)
        for name, values in (("faders", faders), ("pans", pans), ("mutes", mutes), ("solos", solos)):
            if len(values) > _MAX_CHANNELS:
                raise ValueError(f"{name} has {len(values)} entries; there are at most 64 channels")
        for i in range(_MAX_CHANNELS):
            self.wish.faders[i] = 1.0
            self.wish.pans[i] = 0.0
        # The lists are the caller's: what is asked of them, or of what is in them, may make them longer.
        for i in range(min(len(faders), _MAX_CHANNELS)):
            self.wish.faders[i] = _number(faders[i], "faders", 0.0, 4.0, i)
        for i in range(min(len(pans), _MAX_CHANNELS)):
            self.wish.pans[i] = _number(pans[i], "pans", -1.0, 1.0, i)
        self.wish.mutes = self._truth_set(mutes)
        self.wish.solos = self._truth_set(solos)
        self.wish.master = _number(master, "master", 0.0, 4.0)

    cdef uint64_t _channel_set(self, object channels) except? 0:
        cdef uint64_t bits = 0
        for channel in channels:
            if not 0 <= channel < _MAX_CHANNELS:
                raise ValueError(f"channels must be from 0 to 63, not {channel!r}")
            bits |= <uint64_t>1 << <int>channel
        if bits == 0:
            raise ValueError("channels must name at least one channel")
        return bits

    cdef uint64_t _truth_set(self, object values) except? 0:
        cdef uint64_t bits = 0
        cdef int i
        for i in range(min(len(values), _MAX_CHANNELS)):
            if values[i]:
                bits |= <uint64_t>1 << i
        return bits


cdef bytes _utf8(object text):
    """Text as UTF-8; None is nothing.

    Keep the result in a variable before a call of the core gets it: as a string_view it is only
    borrowed, and Cython drops a temporary before the call.
    """
    if text is None:
        return b""
    if not isinstance(text, str):
        raise TypeError(f"text must be str, not {type(text).__name__}")
    return _sized((<str>text).encode())


cdef bytes _sized(bytes message):
    """The message, if it is not longer than one can be that waits to be sent."""
    if len(message) > 1 << 30:
        raise ValueError("a message has at most 2**30 bytes")
    return message


cdef object _listener_figures(const capi.ListenerFigures& f):
    return _events.ListenerFigures(
        f.connection, f.layout, f.frames_sent, f.frames_dropped, f.bytes_sent, f.frames_behind,
        f.lag_ms, f.round_trip_ms)


cdef object _source_report(capi.SourceReportEvent* e):
    columns = [(c.received, c.late, c.duplicate, c.lost, c.concealed, c.dropped)
               for c in e.channels]
    received, late, duplicate, lost, concealed, dropped = zip(*columns)
    return _events.SourceReport(
        e.subject, e.stream, e.connection, e.fill_ms, e.target_ms, e.jitter_ms, e.drift_ppm,
        e.capture_offset_us if e.has_capture_offset else None,
        received, late, duplicate, lost, concealed, dropped)


cdef object _event(capi.Event* event):
    cdef capi.MessageEvent* message
    cdef capi.ClosedEvent* closed
    cdef capi.Connection* total
    cdef string_view detail
    cdef capi.StreamEvent* stream
    cdef capi.RoomReportEvent* report
    cdef capi.ThreadStallEvent* stall
    if event.kind == capi.EventKind.text:
        message = <capi.MessageEvent*>event
        text = PyUnicode_DecodeUTF8(message.data.data(), message.data.size(), NULL)
        return _events.TextReceived(event.subject, text, message.received_us)
    if event.kind == capi.EventKind.binary:
        message = <capi.MessageEvent*>event
        data = PyBytes_FromStringAndSize(message.data.data(), message.data.size())
        return _events.BinaryReceived(event.subject, data, message.received_us)
    if event.kind == capi.EventKind.closed:
        closed = <capi.ClosedEvent*>event
        total = closed.connection
        detail = closed.detail()
        return _events.ConnectionClosed(
            event.subject, _CLOSE_REASONS[<int>closed.reason], closed.code,
            PyUnicode_DecodeUTF8(detail.data(), detail.size(), b"replace"), total.frames_sent,
            total.frames_dropped, total.bytes_sent, total.bytes_received, closed.lag_ms)
    if event.kind == capi.EventKind.source_report:
        return _source_report(<capi.SourceReportEvent*>event)
    if event.kind == capi.EventKind.room_report:
        report = <capi.RoomReportEvent*>event
        return _events.RoomReport(
            event.subject, report.thread,
            tuple([_listener_figures(f) for f in report.listeners]),
            tuple([_events.LayoutFigures(f.layout, f.listeners, f.frames_built, f.frames_sent)
                   for f in report.layouts]))
    if event.kind == capi.EventKind.thread_stall:
        stall = <capi.ThreadStallEvent*>event
        return _events.ThreadStalled(event.subject, stall.late_ms, stall.over)
    stream = <capi.StreamEvent*>event
    if event.kind == capi.EventKind.stream_live:
        return _events.StreamLive(event.subject, stream.stream, stream.timestamp)
    if event.kind == capi.EventKind.stream_buffering:
        return _events.StreamBuffering(event.subject, stream.stream)
    return _events.StreamEnded(event.subject, stream.stream, stream.drained)


cdef int64_t _nanoseconds(object seconds, str what) except -1:
    cdef double value = seconds
    if not 0 <= value <= 1e6:
        raise ValueError(f"{what} must be from 0 to 1e6 seconds, not {seconds!r}")
    return <int64_t>(value * 1e9)


@cython.final
cdef class Relay:
    """The engine: sockets in, sockets out, audio between them on threads of its own. Linux.

    Rooms hold one source and any number of listeners. A connection is a socket on which the
    WebSocket handshake has been read; the relay sends the answer and speaks the protocol from
    there, as docs/protocol.md says. All else is up to the caller, who learns of it from `poll`.

    Every method may be called from any thread and returns at once (but `close`); `poll` from one
    thread at a time. Ids of connections and rooms are never used again, and those of what has gone
    are passed over in silence: they race with its end by nature, which `ConnectionClosed` tells.
    After `close` every method but `poll`, `fileno` and `close` raises RelayClosedError.

    threads: relay threads, 1 to 64; None: the number of CPUs less one, at least 1.
    realtime: ask for SCHED_FIFO. A thread without it asks for a short scheduling slice.
    max_lag_ms: a listener that is further behind gets nothing until it has answered its ping,
        and then goes on at live.
    evict_after_s: a listener that takes nothing for so long is reset. Of any TCP connection to
        which nothing is under way and whose other machine is there no more the end is known in
        about the same time, 2 s at least.
    register_timeout_s: a connection must be bound within this time (4408).
    max_text_bytes, max_binary_bytes: limits of what clients send (1009).
    max_queued_bytes: messages for one connection that wait to be sent, with what each costs; a
        peer that lets more pile up is reset. One message alone may not be larger either.
    max_packets_per_s: of one source (4429).
    ping_interval_ms: distance of the pings that measure lag.
    source_timeout_s: a source from which no byte came for so long is closed.
    silence_timeout_s: a source that is silent for so long is pinged.
    watchdog_ms: a relay thread that comes round so much later than it is due is told as
        ThreadStalled; 0: nobody looks.

    Raises ValueError, OSError when the system refuses threads or descriptors, and
    RelayUnavailableError off Linux.
    """

    cdef unique_ptr[capi.Relay] relay
    cdef vector[capi.Event*] polled
    cdef capi.Role polling
    cdef bint undelivered  # what is in `polled` has not been returned

    def __init__(self, *, threads=None, realtime=True, max_lag_ms=500, evict_after_s=15.0,
                 register_timeout_s=10.0, max_text_bytes=65536, max_binary_bytes=2 << 20,
                 max_queued_bytes=1 << 20, max_packets_per_s=50_000, ping_interval_ms=1000,
                 source_timeout_s=10.0, silence_timeout_s=2.0, watchdog_ms=500):
        cdef capi.RelayConfig config
        cdef capi.Status status
        if self.relay.get() != NULL:
            raise RuntimeError("Relay.__init__ called twice")
        if threads is None:
            threads = min(max(len(os.sched_getaffinity(0)) - 1, 1), 64) if hasattr(
                os, "sched_getaffinity") else 1
        if not 1 <= threads <= 64:
            raise ValueError(f"threads must be from 1 to 64, not {threads!r}")
        for name, size in (("max_text_bytes", max_text_bytes), ("max_binary_bytes", max_binary_bytes),
                           ("max_queued_bytes", max_queued_bytes)):
            if not 125 <= size <= 1 << 30:
                raise ValueError(f"{name} must be from 125 to 2**30, not {size!r}")
        if not 1 <= max_packets_per_s <= 10_000_000:
            raise ValueError(f"max_packets_per_s must be from 1 to 10**7, not {max_packets_per_s!r}")
        config.threads = threads
        config.realtime = bool(realtime)
        config.max_lag_ns = _nanoseconds(max_lag_ms / 1000, "max_lag_ms")
        config.evict_after_ns = _nanoseconds(evict_after_s, "evict_after_s")
        config.register_timeout_ns = _nanoseconds(register_timeout_s, "register_timeout_s")
        config.ping_interval_ns = _nanoseconds(ping_interval_ms / 1000, "ping_interval_ms")
        config.source_timeout_ns = _nanoseconds(source_timeout_s, "source_timeout_s")
        config.silence_timeout_ns = _nanoseconds(silence_timeout_s, "silence_timeout_s")
        config.watchdog_ns = _nanoseconds(watchdog_ms / 1000, "watchdog_ms")
        config.max_text_bytes = max_text_bytes
        config.max_binary_bytes = max_binary_bytes
        config.max_queued_bytes = max_queued_bytes
        config.max_packets_per_s = max_packets_per_s
        with nogil:
            status = capi.Relay.start(config, self.relay)
        _check(status)

    def __dealloc__(self):
        # Ends the threads if close() has not been called.
        with nogil:
            self.relay.reset()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    cdef capi.Relay* core(self) except NULL:
        if self.relay.get() == NULL:
            raise RuntimeError("Relay.__init__ was not called")
        return self.relay.get()

    def fileno(self):
        """A descriptor that is readable while events wait: for an event loop. Only look at it."""
        return self.core().event_fd()

    def poll(self, limit=1024):
        """The events that wait, oldest first, at most `limit` of them; does not block.

        Texts it returns count as processed when it is called again: until then a connection with
        16 of them is not read from, and one whose peer then broke the protocol is not closed, for a
        second at most. It may return nothing though the descriptor was readable. Raises
        RuntimeError when another thread is polling.
        """
        cdef size_t most = limit
        if most == 0:
            raise ValueError("limit must be at least 1")
        if not self.polling.enter():
            raise RuntimeError("Relay.poll: another thread is polling")
        try:
            if not self.undelivered:
                _check(self.core().poll(most, self.polled))
            # The core gives each event once: if Python has no memory for one, the next call does it.
            self.undelivered = True
            events = [_event(event) for event in self.polled]
            self.undelivered = False
            return events
        finally:
            self.polling.leave()

    def attach(self, sock, response=b"", *, greeting=None, deliver_binary=False):
        """Takes a connected stream socket over and returns the connection's id.

        sock: a socket.socket, which is detached, or a descriptor; it belongs to the relay once
            this has returned. Raises OSError or ValueError when it is no connected stream socket;
            then it is still the caller's.
        response: sent before all else: the answer to the upgrade request (`upgrade_response`).
        greeting: a text that goes out with it, if there is one and it is not empty.
        deliver_binary: binary messages become BinaryReceived events, and no binding is needed.
        """
        cdef int fd = sock if isinstance(sock, int) else sock.fileno()
        cdef bytes first = bytes(response)
        cdef bytes then = _utf8(greeting)
        cdef uint64_t connection = 0
        if fd < 0:
            raise ValueError("attach: the socket is closed")
        _check(self.core().attach(fd, first, then, bool(deliver_binary), connection))
        if not isinstance(sock, int):
            sock.detach()
        return connection

    def open_room(self):
        """Opens a room and returns its id."""
        cdef uint64_t room = 0
        _check(self.core().open_room(room))
        return room

    def close_room(self, room, *, text=None, code=4410):
        """Ends a room: its listeners and its source get `text` and are closed with `code`."""
        cdef bytes last = _utf8(text)
        _check(self.core().close_room(room, last, _close_code(code)))

    def bind_source(self, connection, room, *, stream, channels, sample_rate, encoding, announce,
                    frame_ms=20, buffer_ms=None, reply=None):
        """Makes a connection the source of a room. A source that is there already is cut off.

        stream: the session's number in this room, 1 to 65,535; on the wire in every frame.
        channels: 1 to 64. sample_rate: 8000 to 96000 Hz, the usual ones. frame_ms: 5 to 60.
        encoding: of its packets.
        buffer_ms: target of the jitter buffer, 0 to 1000; None: adaptive.
        announce: what every listener is told before the stream's first frame: a JSON object cut
            where a number belongs. The relay appends the first timestamp and the closing brace.
        reply: sent to the source as it becomes one.
        """
        cdef capi.SourceBinding binding
        cdef bytes announcement = _utf8(announce)
        cdef bytes answer = _utf8(reply)
        if not 1 <= stream <= 65535:
            raise ValueError(f"stream must be from 1 to 65535, not {stream!r}")
        if not 1 <= channels <= _MAX_CHANNELS:
            raise ValueError(f"channels must be from 1 to 64, not {channels!r}")
        if sample_rate not in _SAMPLE_RATES:
            raise ValueError(f"sample_rate must be one of {_SAMPLE_RATES}, not {sample_rate!r}")
        if frame_ms not in _FRAME_MS:
            raise ValueError(f"frame_ms must be one of {_FRAME_MS}, not {frame_ms!r}")
        if buffer_ms is not None:
            _number(buffer_ms, "buffer_ms", 0.0, 1000.0)
        binding.connection = connection
        binding.room = room
        binding.stream = stream
        binding.format.encoding = <capi.Encoding><int>_encoding_number(encoding)
        binding.format.channels = channels
        binding.format.sample_rate = sample_rate
        binding.frame_ms = frame_ms
        binding.buffer_ms = 0.0 if buffer_ms is None else max(float(buffer_ms), 1.0)
        binding.announce = announcement
        _check(self.core().bind_source(binding, answer))

    def unbind_source(self, connection):
        """The source says goodbye: what is buffered is played out, then StreamEnded comes."""
        _check(self.core().unbind_source(connection))

    def bind_listener(self, connection, room, Subscription subscription not None, *, reply=None,
                      known_stream=0, burst_ms=0, from_timestamp=None):
        """Makes a connection a listener of a room.

        reply: stands before its first frame. known_stream: the stream whose format `reply` tells,
        so that it is not announced again; 0: none.
        burst_ms: so much of the recent past at once, 0 to 2000.
        from_timestamp: go on from there, as far as it is still kept (2 s); it wins over burst_ms.
        """
        if not 0 <= known_stream <= 65535:
            raise ValueError(f"known_stream must be from 0 to 65535, not {known_stream!r}")
        if not 0 <= burst_ms <= 2000:
            raise ValueError(f"burst_ms must be from 0 to 2000, not {burst_ms!r}")
        cdef uint64_t start = 0 if from_timestamp is None else max(from_timestamp, 1)
        cdef bytes answer = _utf8(reply)
        _check(self.core().bind_listener(connection, room, subscription.wish, answer,
                                         known_stream, burst_ms, start))

    def subscribe(self, connection, Subscription subscription not None, *, reply=None):
        """Changes what a listener hears, at one frame boundary: `reply` stands right before the
        first frame that reflects it. From mix to mix the gains move over that frame."""
        cdef bytes answer = _utf8(reply)
        _check(self.core().subscribe(connection, subscription.wish, answer))

    def send(self, connection, text, *, stamp=False):
        """Sends a message: str as text, bytes as binary.

        stamp: the text is a JSON object cut where a number belongs; the server's clock (µs) at
        the moment of writing and a closing brace are appended.
        """
        cdef bytes data
        cdef bint is_text = isinstance(text, str)
        if is_text:
            data = _sized((<str>text).encode())
        elif stamp:
            raise ValueError("send: only a text can be stamped")
        else:
            data = _sized(bytes(text))
        _check(self.core().send(connection, data, is_text, bool(stamp)))

    def send_room(self, room, text):
        """Sends a text to every listener of a room, behind the frames that are out already."""
        cdef bytes data = _utf8(text)
        _check(self.core().send_room(room, data))

    def report_lag(self, connection, lag_ms):
        """Takes in what a listener's player measures: how far it is behind what it means to be.

        It counts beside the relay's own pings, which somebody between (a proxy, a browser) may
        answer before the player has read what stands before them. A lag over `max_lag_ms` that the
        next report confirms makes the relay send this listener nothing for as long as it lags, at
        most 2 s, so that what stands between can be played out, and then go on at live. No more
        than two reports a second count and one such pause in ten seconds, so that a report that is
        wrong harms nobody but its own listener, and little.

        lag_ms: milliseconds. Below 0 is none; over 60,000 is not believed. Raises ValueError when
            it is no number.
        """
        cdef double lag = lag_ms
        if lag != lag:
            raise ValueError(f"lag_ms must be a number, not {lag_ms!r}")
        # Out of these bounds it counts for nothing anyway, and no integer would hold it.
        lag = min(max(lag, 0.0), 1e9)
        _check(self.core().report_lag(connection, <int64_t>(lag * 1e6)))

    def close_connection(self, connection, code, detail="", *, text=None):
        """Closes a connection: `text`, then a close frame with `code` and `detail` (123 bytes)."""
        cdef bytes reason = _utf8(detail)
        cdef bytes last = _utf8(text)
        if len(reason) > 123:
            raise ValueError("close_connection: detail is over 123 bytes")
        _check(self.core().close_connection(connection, _close_code(code), reason, last))

    def inspect(self, room):
        """Asks for a RoomReport of every relay thread that has listeners of the room."""
        _check(self.core().inspect(room))

    def clock_us(self):
        """The server's clock: Unix µs at the relay's start, and monotonic from there."""
        return self.core().clock_us()

    def counters(self):
        """A snapshot of all totals (`RelayCounters`); stops nobody."""
        cdef vector[capi.ThreadFigures] threads = self.core().thread_figures()
        cdef vector[capi.RoomFigures] rooms = self.core().room_figures()
        return _counters.RelayCounters(
            tuple([_counters.ThreadCounters(
                t.connections, t.listeners, t.rooms, t.ticks, t.tick_late_ns_max, t.frames_sent,
                t.frames_dropped, t.frames_built, t.bytes_sent, t.bytes_received, t.sends,
                t.packets, t.evicted, t.stalls, _by_bound(t.tick_late)) for t in threads]),
            {r.room: _counters.RoomCounters(r.blocks, r.packets, r.frames_sent, r.frames_dropped,
                                          r.bytes_sent, r.listeners) for r in rooms})

    def close(self, *, text=None, timeout=5.0):
        """Tells everyone goodbye (`text`, then 1001), waits until that is out, at most `timeout`
        seconds, and ends the threads. Blocks; the last events can be polled afterwards."""
        cdef bytes last = _utf8(text)
        cdef string_view view = last
        cdef int64_t wait = _nanoseconds(timeout, "timeout")
        cdef capi.Relay* core = self.core()
        with nogil:
            core.close(view, wait)


# A LatenessHistogram's counts by the bounds of its buckets.
cdef dict _by_bound(const vector[uint64_t]& counts):
    cdef size_t i
    return {float(capi.LatenessHistogram.bound_us(i) or "inf"): counts[i]
            for i in range(counts.size())}


cdef uint16_t _close_code(object code) except? 0:
    if not (code in (1000, 1001, 1003, 1008, 1011) or 3000 <= code <= 4999):
        raise ValueError(f"{code!r} is no close code that a server may send")
    return code
