# The load client: commands in, figures out.

from libc.string cimport memcpy

cdef dict _CLOCKS = {"ping": 1, "config": 2}
# As LoadRecord is laid out.
_RECORD = np.dtype([
    *((name, np.uint32) for name in ("state", "group", "losses", "returns")),
    *((name, np.uint64) for name in ("frames", "expected", "gaps", "repeated", "bytes")),
    *((name, np.int64) for name in ("first_us", "last_us", "joined_ns", "join_ns")),
])
if _RECORD.itemsize != sizeof(capi.LoadRecord):
    raise ImportError("relaycore: records of the load client are not as they are read")


@cython.final
cdef class Durations:
    """How long things took, as a histogram: a value is kept to 1.6 %, to 2**45 µs.

    Two may be added. What is asked of an empty one is 0. Immutable.
    """

    cdef capi.Histogram histogram

    @property
    def count(self):
        """How many there were."""
        return self.histogram.count()

    @property
    def mean_ms(self):
        """Their mean, ms."""
        return self.histogram.mean_us() / 1000

    @property
    def max_ms(self):
        """The longest, ms."""
        return self.histogram.max_us() / 1000

    def quantile_ms(self, double q):
        """The least duration, ms, that a share `q` of them (0 to 1) does not exceed."""
        if not 0 <= q <= 1:
            raise ValueError(f"q must be from 0 to 1, not {q!r}")
        return self.histogram.quantile_us(q) / 1000

    def ranges_us(self):
        """Pairs of a bound in µs and how many were under it, but not under the bound before."""
        return [(r.bound_us, r.count) for r in self.histogram.ranges()]

    def __add__(self, other):
        if not isinstance(self, Durations) or not isinstance(other, Durations):
            return NotImplemented
        cdef Durations total = _durations((<Durations>self).histogram)
        total.histogram.add((<Durations>other).histogram)
        return total


cdef Durations _durations(const capi.Histogram& histogram):
    cdef Durations new = Durations.__new__(Durations)
    new.histogram = histogram
    return new


cdef vector[string] _strings(object texts, str what) except *:
    cdef vector[string] out
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{what} must be str, not {type(text).__name__}")
        out.push_back((<str>text).encode())
    return out


cdef object _load_figures(capi.LoadFigures& f):
    return _counters.LoadFigures(
        f.is_sources, f.connections, f.settled, f.joined, f.alive,
        f.clock_offset_us if f.clock_known else None, f.round_trip_us, f.since_ns, f.taken_ns,
        f.cpu_ns, f.wait_ns, f.frames, f.bytes, f.reads, f.pings, f.failed, f.lost, f.returned,
        f.gaps, f.missing, f.attempts, f.sent, f.replies, f.skipped, f.first_lost_ns, f.first_open_ns,
        f.last_joined_ns, f.last_back_ns,
        tuple([_durations(f.delay[i]) for i in range(capi.kLoadGroups)]),
        _durations(f.arrival), _durations(f.join), _durations(f.silence), _durations(f.reply),
        _durations(f.batch),
        {(<bytes>item.first).decode("utf-8", "replace"): item.second for item in f.errors})


cdef object _records(const vector[capi.LoadRecord]& records):
    out = np.empty(records.size(), _RECORD)
    cdef size_t address = out.ctypes.data
    if records.size():
        memcpy(<void*>address, records.data(), records.size() * sizeof(capi.LoadRecord))
    return out


@cython.final
cdef class LoadClient:
    """Many listeners and sources of one server, in a few threads without the GIL. Linux.

    It speaks the protocol of docs/protocol.md, looks at the headers of frames alone, and counts
    what comes; what it makes of the audio is nothing. Listeners have numbers from 0 in the order in
    which they were added, and commands name them by these. Every method may be called from any
    thread; each waits until the client's threads have done it, milliseconds at most. Leaving a
    `with` block closes all connections, as `close` does; after that methods raise RuntimeError.

    host: a numeric address, IPv4 or IPv6. port: 1 to 65,535.
    authority: what the Host header says; None: host and port.
    path, join_path: of the WebSocket, and of the request that gives a listener its token.
    bind: local addresses to connect from, by turns; each has some 28,000 ports.
    threads: for listeners, 1 to 64; sources have one more.
    in_flight: listeners that are on their way in at a time.
    registers: False: an open WebSocket is all that is wanted.
    stream: no WebSocket: a GET is answered by a body that does not end, of the frames that a
        WebSocket would carry, in its messages. It may begin amid one: what precedes the second of
        two that follow each other is passed over. Nothing else is said, so that `registers` must be
        False and `clock` a number, and `add_sources` and `send` raise RuntimeError.
    reuse: the WebSocket takes the connection of the HTTP request before it.
    rejoin: who is lost comes back, trying again every `retry_s`, unless it is limited.
    answer_s: who is on its way in, and has not joined so long after it connected, has failed; a
        second or two more may pass until that is seen.
    clock: how the server's clock is known: "ping" (asked of the server), "config" (told by its
        first message), or a number: what it is ahead of CLOCK_MONOTONIC, µs.
    kernel_times: the kernel notes when bytes reach a socket (`arrival`). Not over TLS.
    realtime: ask for SCHED_FIFO.
    tls: speak TLS, with the OpenSSL of this machine. verify: hold the server to a certificate that
        is valid for `server_name` (None: `host`), by `ca_file` or what the system trusts.

    Raises ValueError, OSError when the system refuses threads or descriptors, and
    RelayUnavailableError off Linux.
    """

    cdef unique_ptr[capi.LoadClient] client
    cdef bint stream

    def __init__(self, host, port, *, authority=None, path="/ws", join_path="/auth/room/join",
                 bind=(), threads=1, in_flight=64, registers=True, stream=False, reuse=False,
                 rejoin=False, retry_s=0.1, answer_s=30.0, clock="ping", kernel_times=False,
                 realtime=False, tls=False, verify=True, ca_file=None, server_name=None):
        cdef capi.LoadConfig config
        cdef capi.Status status
        cdef string why
        if self.client.get() != NULL:
            raise RuntimeError("LoadClient.__init__ called twice")
        if not 1 <= port <= 65535:
            raise ValueError(f"port must be from 1 to 65535, not {port!r}")
        if not 1 <= threads <= 64:
            raise ValueError(f"threads must be from 1 to 64, not {threads!r}")
        if not 1 <= in_flight <= 1 << 20:
            raise ValueError(f"in_flight must be from 1 to 2**20, not {in_flight!r}")
        if tls and kernel_times:
            raise ValueError("kernel_times: over TLS the kernel's times are not to be had")
        if isinstance(clock, str):
            if clock not in _CLOCKS:
                raise ValueError(f"clock must be 'ping', 'config' or a number, not {clock!r}")
            config.clock = <capi.LoadClock><int>_CLOCKS[clock]
        else:
            config.clock = capi.LoadClock.given
            config.clock_offset_us = clock
        for name, value in (("authority", authority), ("path", path), ("join_path", join_path)):
            if value is not None and any(ord(c) <= 32 or ord(c) >= 127 for c in value):
                raise ValueError(f"{name} may have no spaces and no characters beyond ASCII")
        config.host = host.encode()
        config.port = port
        config.authority = (authority or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")).encode()
        config.path = path.encode()
        config.join_path = join_path.encode()
        config.bind = _strings(bind, "bind")
        config.threads = threads
        config.in_flight = in_flight
        config.registers = bool(registers)
        config.stream = self.stream = bool(stream)
        config.reuse = bool(reuse)
        config.rejoin = bool(rejoin)
        config.retry_ns = _nanoseconds(retry_s, "retry_s")
        config.answer_ns = _nanoseconds(answer_s, "answer_s")
        config.kernel_times = bool(kernel_times)
        config.realtime = bool(realtime)
        config.tls = bool(tls)
        config.verify = bool(verify)
        config.ca_file = b"" if ca_file is None else os.fsencode(ca_file)
        config.server_name = (server_name or host).encode()
        with nogil:
            status = capi.LoadClient.start(config, self.client, why)
        if status == capi.Status.invalid_argument:
            raise ValueError((<bytes>why).decode("utf-8", "replace"))
        if status == capi.Status.unavailable:
            raise RelayUnavailableError("LoadClient needs Linux (epoll)")
        _check(status)

    def __dealloc__(self):
        with nogil:
            self.client.reset()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    cdef capi.LoadClient* core(self) except NULL:
        if self.client.get() == NULL:
            raise RuntimeError("LoadClient is closed")
        return self.client.get()

    cdef capi.LoadClient* speaker(self) except NULL:
        # For what sends to the server.
        if self.stream:
            raise RuntimeError("over a stream nothing is said")
        return self.core()

    def close(self):
        """Closes all connections and ends the threads. No other method may be running."""
        with nogil:
            self.client.reset()

    def add_listeners(self, count, registers=(), *, asks=(), group=0, per_second=0.0,
                      bytes_per_s=None):
        """So many listeners more begin to join.

        registers: texts; listener k of these sends number k modulo their count. None: the server
            registers by itself.
        asks: bodies of an HTTP request that each makes first, likewise; the `roomToken` of the
            answer takes the place of $TOKEN in its register text.
        group: 0 to 3; delays are kept by group.
        per_second: how many begin, once all that were added before have; 0: as many as will,
            `in_flight` at a time.
        bytes_per_s: what each reads once it has joined, at most; 0: nothing; None: all there is.
        """
        cdef capi.LoadListeners listeners
        cdef capi.LoadClient* core = self.core()
        if not 0 <= count <= 1 << 24:
            raise ValueError(f"count must be from 0 to 2**24, not {count!r}")
        if not 0 <= group < capi.kLoadGroups:
            raise ValueError(f"group must be from 0 to 3, not {group!r}")
        listeners.count = count
        listeners.group = group
        listeners.per_second = _number(per_second, "per_second", 0.0, 1e9)
        listeners.bytes_per_s = _bandwidth(bytes_per_s)
        listeners.registers = _strings(registers, "registers")
        listeners.asks = _strings(asks, "asks")
        with nogil:
            core.add_listeners(move(listeners))

    def add_sources(self, registers, *, channels, sample_rate, encoding="pcm_s16le", frame_ms=20):
        """Sources that begin to register, one with each text, and then send noise in this format,
        a packet a frame, until `stop_sources`."""
        cdef capi.LoadSources sources
        cdef capi.LoadClient* core = self.speaker()
        if not 1 <= channels <= _MAX_CHANNELS:
            raise ValueError(f"channels must be from 1 to 64, not {channels!r}")
        if sample_rate not in _SAMPLE_RATES:
            raise ValueError(f"sample_rate must be one of {_SAMPLE_RATES}, not {sample_rate!r}")
        if frame_ms not in _FRAME_MS:
            raise ValueError(f"frame_ms must be one of {_FRAME_MS}, not {frame_ms!r}")
        sources.registers = _strings(registers, "registers")
        sources.format.encoding = <capi.Encoding><int>_encoding_number(encoding)
        sources.format.channels = channels
        sources.format.sample_rate = sample_rate
        sources.frame_ms = frame_ms
        with nogil:
            core.add_sources(move(sources))

    def stop_sources(self):
        """The sources say goodbye, send no more and do not come back."""
        cdef capi.LoadClient* core = self.core()
        with nogil:
            core.stop_sources()

    def limit(self, listeners, bytes_per_s):
        """These read so much at most from now on: 0: nothing; None: all there is."""
        cdef vector[uint32_t] numbers = listeners
        cdef int64_t limit = _bandwidth(bytes_per_s)
        cdef capi.LoadClient* core = self.core()
        with nogil:
            core.limit(numbers, limit)

    def drop(self, listeners):
        """The connections of these break, without a close frame."""
        cdef vector[uint32_t] numbers = listeners
        cdef capi.LoadClient* core = self.core()
        with nogil:
            core.drop(numbers)

    def send(self, listeners, texts):
        """Each of these sends a text, number i of them text i modulo their count, if it has
        joined. Every answer to `subscribe` and `setMix` counts as a reply."""
        cdef vector[uint32_t] numbers = listeners
        cdef vector[string] each = _strings(texts, "texts")
        cdef capi.LoadClient* core = self.speaker()
        if each.empty():
            raise ValueError("texts must have at least one")
        with nogil:
            core.send(numbers, each)

    def rejoin(self, on):
        """Whether who is lost comes back, from now on and of those that are."""
        cdef capi.LoadClient* core = self.core()
        cdef bint wanted = bool(on)
        with nogil:
            core.rejoin(wanted)

    def count_until(self, server_us):
        """Frames of this time of the server's clock and later are not counted."""
        cdef capi.LoadClient* core = self.core()
        cdef int64_t until = server_us
        with nogil:
            core.count_until(until)

    def figures(self, *, restart=False):
        """Figures of each thread (`LoadFigures`), the sources' last. `restart`: their interval ends
        here, and the next one begins at the same instant."""
        cdef capi.LoadClient* core = self.core()
        cdef bint begin = bool(restart)
        cdef vector[capi.LoadFigures] all
        with nogil:
            all = core.figures(begin)
        return tuple([_load_figures(f) for f in all])

    def listeners(self):
        """What became of each listener: a structured array with the fields

        state (0 waiting, 1 entering, 2 joined, 3 gone), group, losses (times it was lost), returns
        (times it heard again); frames received, those expected (with the ones that the sequence
        passed over, but not while it was away), gaps (places where it did), repeated, bytes;
        first_us and last_us (`time_us` of the first and last frame), joined_ns (CLOCK_MONOTONIC; 0:
        never) and join_ns (how long that took).
        """
        cdef capi.LoadClient* core = self.core()
        cdef vector[capi.LoadRecord] records
        with nogil:
            records = core.listeners()
        return _records(records)

    def sources(self):
        """As `listeners`, of the sources; `frames` are packets that were sent."""
        cdef capi.LoadClient* core = self.core()
        cdef vector[capi.LoadRecord] records
        with nogil:
            records = core.sources()
        return _records(records)


cdef int64_t _bandwidth(object bytes_per_s) except? -2:
    if bytes_per_s is None:
        return -1
    if not 0 <= bytes_per_s <= 1 << 40:
        raise ValueError(f"bytes_per_s must be from 0 to 2**40, not {bytes_per_s!r}")
    return <int64_t>bytes_per_s
