"""How far every stay has come, told to the store from time to time.

A stay is told whole when it ends. A server that is killed tells no ends; what it loses is what was
counted since the last time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import structs

from roomserver.rooms.connection import Connection
from roomserver.rooms.ports import ListenerCount, MediaVerbs, Timer, Timers
from roomserver.rooms.room import Room
from roomserver.store.interfaces import RoomStore

AT_ONCE = 100  # the loop has other things to do


class StayCounts:
    """Asks the relay for the figures of all rooms, and passes the answers on bit by bit.

    Args:
        rooms: All that are open.
        find: A connection by the relay's id.
        interval_s: How often.
    """

    def __init__(
        self,
        *,
        media: MediaVerbs,
        rooms: Iterable[Room],
        find: Callable[[int], Connection | None],
        store: RoomStore,
        timers: Timers,
        interval_s: float,
    ) -> None:
        self._media = media
        self._rooms = rooms
        self._find = find
        self._store = store
        self._timers = timers
        self._interval_s = interval_s
        self._counts: deque[ListenerCount] = deque()
        self._next: Timer | None = None
        self._slice: Timer | None = None

    def start(self) -> None:
        """Begins to ask."""
        self._next = self._timers.call_later(self._interval_s, self._ask)

    def stop(self) -> None:
        """Asks no more, and tells no more."""
        for timer in (self._next, self._slice):
            if timer is not None:
                timer.cancel()
        self._next = self._slice = None

    def counted(self, counts: Sequence[ListenerCount]) -> None:
        """An answer of the relay."""
        if self._next is not None:
            self._counts.extend(counts)
            if self._slice is None:
                self._slice = self._timers.call_later(0, self._tell)

    def _ask(self) -> None:
        for room in self._rooms:
            if room.source is not None and room.source.room is room:
                stay = room.source.stay()
                self._store.participant_counted(
                    structs.replace(stay, frames_sent=room.source_packets)
                )
            if room.listeners:
                self._media.inspect(room.media_id)
        self._next = self._timers.call_later(self._interval_s, self._ask)

    def _tell(self) -> None:
        for _ in range(min(AT_ONCE, len(self._counts))):
            count = self._counts.popleft()
            connection = self._find(count.connection)
            if connection is None or connection.room is None:
                continue  # it is over, and was told whole
            self._store.participant_counted(
                structs.replace(
                    connection.stay(),
                    frames_sent=count.frames_sent,
                    frames_dropped=count.frames_dropped,
                )
            )
        self._slice = self._timers.call_later(0, self._tell) if self._counts else None
