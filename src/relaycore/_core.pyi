import socket
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Self, TypeAlias, TypeVar, final, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import Buffer

from relaycore.counters import ChannelCounters, LoadFigures, RelayCounters
from relaycore.events import Event

# For a type checker NumPy's arrays are buffers only from Python 3.12 on.
_Samples: TypeAlias = Buffer | NDArray[Any]

# --- kernels.pxi -----------------------------------------------------------------------------

_Out = TypeVar("_Out")

@overload
def interleave(
    planes: _Samples | Sequence[_Samples],
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: None = None,
) -> NDArray[Any]: ...
@overload
def interleave(
    planes: _Samples | Sequence[_Samples],
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: _Out,
) -> _Out: ...
@overload
def deinterleave(
    frames: _Samples,
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: None = None,
) -> NDArray[Any]: ...
@overload
def deinterleave(
    frames: _Samples,
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: _Out,
) -> _Out: ...
@overload
def mix(
    planes: _Samples | Sequence[_Samples],
    gains: ArrayLike,
    *,
    to_gains: ArrayLike | None = None,
    out: None = None,
) -> NDArray[np.float32]: ...
@overload
def mix(
    planes: _Samples | Sequence[_Samples],
    gains: ArrayLike,
    *,
    to_gains: ArrayLike | None = None,
    out: _Out,
) -> _Out: ...
@overload
def to_int16(samples: _Samples, *, out: None = None) -> NDArray[np.int16]: ...
@overload
def to_int16(samples: _Samples, *, out: _Out) -> _Out: ...
@overload
def to_float32(samples: _Samples, *, out: None = None) -> NDArray[np.float32]: ...
@overload
def to_float32(samples: _Samples, *, out: _Out) -> _Out: ...
def levels(
    planes: _Samples | Sequence[_Samples],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def simd() -> str: ...
def simd_available() -> tuple[str, ...]: ...
def force_simd(name: str | None, /) -> AbstractContextManager[None]: ...

# --- ring.pxi --------------------------------------------------------------------------------

@final
class RingBuffer:
    def __init__(self, capacity: int, *, first_index: int = 0) -> None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def writable(self) -> int: ...
    @property
    def readable(self) -> int: ...
    def write(self, samples: _Samples) -> int: ...
    # NumPy's integers are buffers too (from Python 3.12 on): here they are numbers.
    @overload
    def read(  # type: ignore[overload-overlap, unused-ignore]
        self, into: int | np.integer[Any], /
    ) -> NDArray[np.float32]: ...
    @overload
    def read(self, into: _Samples, /) -> int: ...
    def reserve(self, n: int) -> tuple[memoryview[float], memoryview[float]]: ...
    def commit(self, n: int) -> None: ...
    def peek(self, n: int) -> tuple[memoryview[float], memoryview[float]]: ...
    def release(self, n: int) -> None: ...

# --- jitter.pxi ------------------------------------------------------------------------------

@final
class Frame:
    @property
    def index(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def samples(self) -> NDArray[np.float32]: ...
    @property
    def concealed_mask(self) -> int: ...
    @property
    def discontinuity(self) -> bool: ...
    @property
    def deadline_ns(self) -> int: ...

@final
class JitterBuffer:
    def __init__(
        self,
        channels: int,
        sample_rate: int,
        *,
        frame_ms: int = 20,
        target_ms: float | None = None,
        origin: int = 0,
    ) -> None: ...
    @property
    def channels(self) -> int: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def frame_ms(self) -> int: ...
    @property
    def max_frame_samples(self) -> int: ...
    @property
    def next_deadline_ns(self) -> int: ...
    @property
    def state(self) -> Literal["buffering", "live"]: ...
    @property
    def ended(self) -> bool: ...
    @property
    def fill_ms(self) -> float: ...
    @property
    def target_ms(self) -> float: ...
    @property
    def jitter_ms(self) -> float: ...
    @property
    def drift_ppm(self) -> float: ...
    @property
    def end_timestamp(self) -> int: ...
    def push(
        self, channel: int, timestamp: int, samples: _Samples, arrival_ns: int | None = None
    ) -> bool: ...
    def pop(self, now_ns: int | None = None, out: _Samples | None = None) -> Frame | None: ...
    def finish(self) -> None: ...
    def counters(self, channel: int) -> ChannelCounters: ...

# --- relay.pxi -------------------------------------------------------------------------------

_Mode = Literal["multichannel", "mix"]
_Encoding = Literal["pcm_s16le", "pcm_f32le"]

@final
class Subscription:
    def __init__(
        self,
        *,
        mode: _Mode = "multichannel",
        channels: Iterable[int] | None = None,
        encoding: _Encoding = "pcm_s16le",
        interval_ms: int = 0,
        levels: bool = False,
        faders: Sequence[float] = (),
        pans: Sequence[float] = (),
        mutes: Sequence[bool] = (),
        solos: Sequence[bool] = (),
        master: float = 1.0,
    ) -> None: ...

@final
class Relay:
    def __init__(
        self,
        *,
        threads: int | None = None,
        realtime: bool = True,
        max_lag_ms: float = 500,
        evict_after_s: float = 15.0,
        register_timeout_s: float = 10.0,
        max_text_bytes: int = 65536,
        max_binary_bytes: int = ...,
        max_queued_bytes: int = ...,
        max_packets_per_s: int = 50_000,
        ping_interval_ms: float = 1000,
        source_timeout_s: float = 10.0,
        silence_timeout_s: float = 2.0,
        watchdog_ms: float = 500,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def fileno(self) -> int: ...
    def poll(self, limit: int = 1024) -> list[Event]: ...
    def attach(
        self,
        sock: socket.socket | int,
        response: Buffer = b"",
        *,
        greeting: str | None = None,
        deliver_binary: bool = False,
    ) -> int: ...
    def open_room(self) -> int: ...
    def close_room(self, room: int, *, text: str | None = None, code: int = 4410) -> None: ...
    def bind_source(
        self,
        connection: int,
        room: int,
        *,
        stream: int,
        channels: int,
        sample_rate: int,
        encoding: _Encoding,
        announce: str,
        frame_ms: int = 20,
        buffer_ms: float | None = None,
        reply: str | None = None,
    ) -> None: ...
    def unbind_source(self, connection: int) -> None: ...
    def bind_listener(
        self,
        connection: int,
        room: int,
        subscription: Subscription,
        *,
        reply: str | None = None,
        known_stream: int = 0,
        burst_ms: int = 0,
        from_timestamp: int | None = None,
    ) -> None: ...
    def subscribe(
        self, connection: int, subscription: Subscription, *, reply: str | None = None
    ) -> None: ...
    def send(self, connection: int, text: str | Buffer, *, stamp: bool = False) -> None: ...
    def send_room(self, room: int, text: str) -> None: ...
    def report_lag(self, connection: int, lag_ms: float) -> None: ...
    def close_connection(
        self, connection: int, code: int, detail: str = "", *, text: str | None = None
    ) -> None: ...
    def inspect(self, room: int) -> None: ...
    def clock_us(self) -> int: ...
    def counters(self) -> RelayCounters: ...
    def close(self, *, text: str | None = None, timeout: float = 5.0) -> None: ...

# --- load.pxi --------------------------------------------------------------------------------

@final
class Durations:
    @property
    def count(self) -> int: ...
    @property
    def mean_ms(self) -> float: ...
    @property
    def max_ms(self) -> float: ...
    def quantile_ms(self, q: float) -> float: ...
    def ranges_us(self) -> list[tuple[int, int]]: ...
    def __add__(self, value: Durations, /) -> Durations: ...
    def __radd__(self, value: Durations, /) -> Durations: ...

@final
class LoadClient:
    def __init__(
        self,
        host: str,
        port: int,
        *,
        authority: str | None = None,
        path: str = "/ws",
        join_path: str = "/auth/room/join",
        bind: Iterable[str] = (),
        threads: int = 1,
        in_flight: int = 64,
        registers: bool = True,
        stream: bool = False,
        reuse: bool = False,
        rejoin: bool = False,
        retry_s: float = 0.1,
        answer_s: float = 30.0,
        clock: Literal["ping", "config"] | int = "ping",
        kernel_times: bool = False,
        realtime: bool = False,
        tls: bool = False,
        verify: bool = True,
        ca_file: str | None = None,
        server_name: str | None = None,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def close(self) -> None: ...
    def add_listeners(
        self,
        count: int,
        registers: Iterable[str] = (),
        *,
        asks: Iterable[str] = (),
        group: int = 0,
        per_second: float = 0.0,
        bytes_per_s: int | None = None,
    ) -> None: ...
    def add_sources(
        self,
        registers: Iterable[str],
        *,
        channels: int,
        sample_rate: int,
        encoding: _Encoding = "pcm_s16le",
        frame_ms: int = 20,
    ) -> None: ...
    def stop_sources(self) -> None: ...
    def limit(self, listeners: Iterable[int], bytes_per_s: int | None) -> None: ...
    def drop(self, listeners: Iterable[int]) -> None: ...
    def send(self, listeners: Iterable[int], texts: Iterable[str]) -> None: ...
    def rejoin(self, on: bool) -> None: ...
    def count_until(self, server_us: int) -> None: ...
    def figures(self, *, restart: bool = False) -> tuple[LoadFigures, ...]: ...
    def listeners(self) -> NDArray[np.void]: ...
    def sources(self) -> NDArray[np.void]: ...

def live_objects() -> dict[str, tuple[int, int]]: ...
