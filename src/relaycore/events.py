"""What a `Relay` tells: the events that `Relay.poll` returns."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class CloseReason(StrEnum):
    """Why a connection ended."""

    PEER_CLOSED = "peer_closed"
    """The peer began the close handshake; the code is its own."""
    PEER_LOST = "peer_lost"
    """The connection was gone, or reset, without a close frame."""
    PROTOCOL_ERROR = "protocol_error"
    """Bad framing, UTF-8 or packets, or a message at the wrong time (1002, 1003, 1007, 4400)."""
    TOO_BIG = "too_big"
    """A message over its limit (1009)."""
    RATE_LIMITED = "rate_limited"
    """Too many packets a second (4429)."""
    NOT_REGISTERED = "not_registered"
    """Neither source nor listener within `register_timeout_s` (4408)."""
    TOO_SLOW = "too_slow"
    """It took nothing for `evict_after_s`, or let messages pile up; reset (4413)."""
    SOURCE_SILENT = "source_silent"
    """No byte came from a source for `source_timeout_s` (4408)."""
    CLOSED = "closed"
    """`Relay.close_connection`."""
    ROOM_CLOSED = "room_closed"
    """`Relay.close_room`."""
    SHUTDOWN = "shutdown"
    """`Relay.close` (1001)."""


class TextReceived(NamedTuple):
    """A text message; its UTF-8 has been checked. `received_us`: when it was read, server clock."""

    connection: int
    data: str
    received_us: int


class BinaryReceived(NamedTuple):
    """A binary message of a connection that was attached with `deliver_binary`."""

    connection: int
    data: bytes
    received_us: int


class ConnectionClosed(NamedTuple):
    """The end of a connection, told exactly once for each; nothing follows it.

    `code` is the WebSocket close code (1006: none was received). `lag_ms` is the lag at the end.
    """

    connection: int
    reason: CloseReason
    code: int
    detail: str
    frames_sent: int
    frames_dropped: int
    bytes_sent: int
    bytes_received: int
    lag_ms: float


class StreamLive(NamedTuple):
    """A stream plays: for the first time, or again after buffering.

    `timestamp` is the first sample of its timeline.
    """

    room: int
    stream: int
    timestamp: int


class StreamBuffering(NamedTuple):
    """A stream has nothing to play and fills its jitter buffer again."""

    room: int
    stream: int


class StreamEnded(NamedTuple):
    """The last frame of a stream is out. `drained`: after `Relay.unbind_source`, played out."""

    room: int
    stream: int
    drained: bool


class SourceReport(NamedTuple):
    """Once a second for each source. Counters are in samples, one entry per channel.

    `capture_offset_us` is the server's clock minus the source's `time_us` when the end of the
    newest packet arrived; None until a packet says its time.
    """

    room: int
    stream: int
    connection: int
    fill_ms: float
    target_ms: float
    jitter_ms: float
    drift_ppm: float
    capture_offset_us: int | None
    received: tuple[int, ...]
    late: tuple[int, ...]
    duplicate: tuple[int, ...]
    lost: tuple[int, ...]
    concealed: tuple[int, ...]
    dropped: tuple[int, ...]


class ListenerFigures(NamedTuple):
    """One listener as `Relay.inspect` saw it. `frames_behind`: due to it and not yet sent."""

    connection: int
    layout: int
    frames_sent: int
    frames_dropped: int
    bytes_sent: int
    frames_behind: int
    lag_ms: float
    round_trip_ms: float


class LayoutFigures(NamedTuple):
    """One layout: how many share it, how often it was rendered and sent."""

    layout: int
    listeners: int
    frames_built: int
    frames_sent: int


class RoomReport(NamedTuple):
    """One relay thread's answer to `Relay.inspect`; threads without listeners don't answer."""

    room: int
    thread: int
    listeners: tuple[ListenerFigures, ...]
    layouts: tuple[LayoutFigures, ...]


class ThreadStalled(NamedTuple):
    """A relay thread did not come round when it was due: its ticks and sends wait.

    Told by the watchdog once per stall, `late_ms` after the thread was due, and once more, with
    `over`, when it goes on; `late_ms` is then how long the stall was, to a quarter of
    `watchdog_ms`. Causes lie outside: a process or virtual machine that was stopped, or
    a machine that has too little to give.
    """

    thread: int
    late_ms: float
    over: bool


Event = (
    TextReceived
    | BinaryReceived
    | ConnectionClosed
    | StreamLive
    | StreamBuffering
    | StreamEnded
    | SourceReport
    | RoomReport
    | ThreadStalled
)
