"""Stands in for the relay and the clock where only the rules of rooms are tested."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from roomserver.protocol.server import SubscriptionState
from roomserver.rooms.ports import SourceFormat

START_S = 1_800_000_000.0


@dataclass(order=True)
class FakeTimer:
    """A call ordered for later."""

    at: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class FakeTimers:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[FakeTimer] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.now + delay, next(self._numbers), callback)
        heapq.heappush(self._heap, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Lets time pass; calls what becomes due, in order."""
        until = self.now + seconds
        while self._heap and self._heap[0].at <= until:
            timer = heapq.heappop(self._heap)
            self.now = max(self.now, timer.at)
            if not timer.cancelled:
                timer.callback()
        self.now = until

    @property
    def pending(self) -> int:
        """How many calls are still ordered."""
        return sum(not timer.cancelled for timer in self._heap)


@dataclass
class FakeMedia:
    """Records what it is told; texts are kept per connection, in order."""

    timers: FakeTimers
    sent: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    closed: dict[int, int] = field(default_factory=dict)  # connection -> close code
    rooms: dict[int, set[int]] = field(default_factory=dict)  # open rooms: their listeners
    closed_rooms: dict[int, dict[str, Any]] = field(default_factory=dict)
    sources: dict[int, tuple[int, SourceFormat]] = field(default_factory=dict)  # by room
    announces: list[str] = field(default_factory=list)
    subscriptions: dict[int, SubscriptionState] = field(default_factory=dict)
    joins: dict[int, dict[str, Any]] = field(default_factory=dict)
    drained: list[int] = field(default_factory=list)
    packets: dict[int, int] = field(default_factory=dict)  # by room
    inspected: list[int] = field(default_factory=list)  # rooms
    lags: list[tuple[int, float]] = field(default_factory=list)  # connection, ms
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def attach(self, descriptor: int, response: bytes, *, greeting: str) -> int:
        connection = next(self._ids)
        self.sent[connection] = []
        self._keep(connection, greeting)
        return connection

    def open_room(self) -> int:
        room = next(self._ids)
        self.rooms[room] = set()
        return room

    def close_room(self, room: int, *, text: str, code: int) -> None:
        self.closed_rooms[room] = {"code": code, **json.loads(text)}
        del self.rooms[room]

    def bind_source(
        self, connection: int, room: int, source: SourceFormat, *, announce: str, reply: str
    ) -> None:
        self.sources[room] = (connection, source)
        self.announces.append(announce)
        self._keep(connection, reply)

    def unbind_source(self, connection: int) -> None:
        self.drained.append(connection)

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
        self.rooms[room].add(connection)
        self.subscriptions[connection] = subscription
        self.joins[connection] = {
            "known_stream": known_stream,
            "burst_ms": burst_ms,
            "from_timestamp": from_timestamp,
        }
        self._keep(connection, reply)

    def subscribe(self, connection: int, subscription: SubscriptionState, *, reply: str) -> None:
        self.subscriptions[connection] = subscription
        self._keep(connection, reply)

    def send(self, connection: int, text: str) -> None:
        self._keep(connection, text)

    def send_stamped(self, connection: int, text: str) -> None:
        self._keep(connection, f"{text}{self.clock_us()}}}")

    def send_room(self, room: int, text: str) -> None:
        for connection in self.rooms[room]:
            self._keep(connection, text)

    def report_lag(self, connection: int, lag_ms: float) -> None:
        self.lags.append((connection, lag_ms))

    def close_connection(
        self, connection: int, code: int, detail: str = "", *, text: str | None = None
    ) -> None:
        if text is not None:
            self._keep(connection, text)
        self.closed[connection] = code

    def room_packets(self, room: int) -> int:
        return self.packets.get(room, 0)

    def inspect(self, room: int) -> None:
        self.inspected.append(room)

    def clock_us(self) -> int:
        return round((START_S + self.timers.now) * 1e6)

    def texts(self, connection: int, kind: str) -> list[dict[str, Any]]:
        """The texts of one type that a connection got."""
        return [text for text in self.sent[connection] if text["type"] == kind]

    def last(self, connection: int) -> dict[str, Any]:
        """The newest text that a connection got."""
        return self.sent[connection][-1]

    def _keep(self, connection: int, text: str) -> None:
        self.sent.setdefault(connection, []).append(json.loads(text))
