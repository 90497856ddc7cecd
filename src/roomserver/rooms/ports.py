"""What the rooms need from outside: the relay's verbs, and timers. And what they offer the relay.

`media.Media` and the event loop provide the first two; tests put fakes in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from roomserver.protocol.client import Encoding
from roomserver.protocol.server import SourceStatus, SubscriptionState
from roomserver.store.records import LeaveReason


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """What a source registered."""

    stream: int  # number of the session in its room, from 1
    channels: int
    sample_rate: int
    encoding: Encoding
    frame_ms: int
    buffer_ms: float | None  # None: adaptive
    channel_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended, and its totals."""

    reason: LeaveReason
    code: int
    detail: str
    frames_sent: int
    frames_dropped: int
    bytes_sent: int
    bytes_received: int
    lag_ms: float


@dataclass(frozen=True, slots=True)
class ListenerCount:
    """Totals of one listener so far."""

    connection: int
    frames_sent: int
    frames_dropped: int


class MediaVerbs(Protocol):
    """The relay as the rooms see it. Nothing here blocks; closed ids are harmless."""

    def attach(self, descriptor: int, response: bytes, *, greeting: str) -> int:
        """Hands a socket over for good; the relay sends `response`, then a text. Its id there."""

    def open_room(self) -> int:
        """A room in the relay; its id."""

    def close_room(self, room: int, *, text: str, code: int) -> None:
        """Everyone in the room gets the text and is closed."""

    def bind_source(
        self, connection: int, room: int, source: SourceFormat, *, announce: str, reply: str
    ) -> None:
        """The connection is the room's source from now on; a stream before it is cut off."""

    def unbind_source(self, connection: int) -> None:
        """Plays out what is buffered; `stream_ended` tells when."""

    def bind_listener(
        self,
        connection: int,
        room: int,
        subscription: SubscriptionState,
        *,
        reply: str,
        known_stream: int,
        burst_ms: int,
        from_timestamp: int | None,
    ) -> None:
        """The connection hears the room from now on, after `reply`."""

    def subscribe(self, connection: int, subscription: SubscriptionState, *, reply: str) -> None:
        """Answer and switch at one frame boundary."""

    def send(self, connection: int, text: str) -> None:
        """A text message to one."""

    def send_stamped(self, connection: int, text: str) -> None:
        """A text message that the relay completes with its clock as it is written."""

    def send_room(self, room: int, text: str) -> None:
        """A text message to all listeners, in order with the frames."""

    def report_lag(self, connection: int, lag_ms: float) -> None:
        """How far a listener's player says it is behind what it means to be."""

    def close_connection(
        self, connection: int, code: int, detail: str = "", *, text: str | None = None
    ) -> None:
        """Closes one, after a last text."""

    def room_packets(self, room: int) -> int:
        """Packets that ever came from sources of a room, also of one just closed."""

    def inspect(self, room: int) -> None:
        """Asks for the totals of the room's listeners: `listeners_counted`."""

    def clock_us(self) -> int:
        """The server's clock in Unix microseconds, never stepped."""


class MediaEvents(Protocol):
    """What the relay tells. All calls come in the event loop's thread and must be quick."""

    def text_received(self, connection: int, text: str, received_us: int) -> None: ...

    def connection_closed(self, connection: int, closed: Closed) -> None: ...

    def stream_live(self, room: int, stream: int, timestamp: int) -> None: ...

    def stream_buffering(self, room: int, stream: int) -> None: ...

    def stream_ended(self, room: int, stream: int, *, drained: bool) -> None: ...

    def source_report(self, room: int, stream: int, status: SourceStatus) -> None: ...

    def listeners_counted(self, counts: Sequence[ListenerCount]) -> None: ...


class Timer(Protocol):
    """A call that was ordered for later."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """The event loop, as far as time goes."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Calls `callback` once, `delay` seconds from now."""
