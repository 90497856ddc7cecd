"""All rooms of this server, by id and by code."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from roomserver.auth.passwords import RoomPasswords
from roomserver.ids import new_id
from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.rooms.codes import new_code
from roomserver.rooms.ports import MediaVerbs, Timers
from roomserver.rooms.refusals import REFUSALS, RefusalLimit
from roomserver.rooms.room import Room
from roomserver.store.interfaces import CodeTakenError, RoomStore
from roomserver.store.records import AuditEvent, AuditRecord, Elsewhere, Place, RoomRecord

REMEMBERED_CLOSED = 10_000


class Rooms:
    """The rooms that are open here, and the names of those that lately were."""

    def __init__(
        self,
        *,
        media: MediaVerbs,
        store: RoomStore,
        passwords: RoomPasswords,
        timers: Timers,
        grace_s: float,
        max_listeners: int = 0,
        make_code: Callable[[], str] = new_code,
    ) -> None:
        self._media = media
        self._store = store
        self._passwords = passwords
        self._timers = timers
        self._grace_s = grace_s
        self._max_listeners = max_listeners
        self._make_code = make_code
        self._by_id: dict[str, Room] = {}
        self._by_code: dict[str, Room] = {}
        self._by_media: dict[int, Room] = {}
        # A client that comes back to a room that was closed is told so, not "no such room".
        self._closed: dict[str, RoomRecord] = {}
        self._refusals = RefusalLimit()

    @property
    def max_listeners(self) -> int:
        """How many listeners the server admits to a room; 0 for no limit."""
        return self._max_listeners

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Room]:
        return iter(self._by_id.values())

    async def restore(self) -> None:
        """Takes up the rooms that the store has open."""
        self.take_up(await self._store.open_rooms())

    def take_up(self, records: Iterable[RoomRecord]) -> None:
        """Opens rooms that were elsewhere until now."""
        for record in records:
            if record.id not in self._by_id:
                self._open(record)

    # What other servers that share the store do (`store.interfaces.OpenRooms`)

    def is_running(self, room: str) -> bool:
        """Whether a source is registered in it."""
        found = self._by_id.get(room)
        return found is not None and found.has_broadcaster

    def stays(self) -> set[str]:
        """Those that go on here, by id."""
        return {
            connection.stay_id
            for room in self._by_id.values()
            for connection in (room.source, *room.listeners)
            if connection is not None and connection.room is room
        }

    def renew(self, record: RoomRecord) -> None:
        """Another server changed the room, or closed it."""
        if room := self._by_id.get(record.id):
            room.renew(record)

    def keep(self, room: str, version: int) -> None:
        """The room is ours still, where another server had this version of it."""
        if found := self._by_id.get(room):
            found.keep(version)

    def let_go(self, room: str, url: str | None) -> None:
        """The room is at another server now, which is told to everyone in it."""
        if found := self._by_id.get(room):
            self._drop(found)
            found.let_go(url)

    async def locate(self, name: str, *, guess: bool) -> Elsewhere | None:
        """The open room with this id or code that another server has; see `RoomStore.locate`."""
        return await self._store.locate(name, guess=guess)

    @property
    def shared(self) -> bool:
        """Whether rooms may be at another server."""
        return self._store.shared

    async def written(self) -> None:
        """Returns when all that was changed so far will survive a crash. Raises OutboxError."""
        await self._store.written()

    async def create(
        self,
        *,
        owner: str,
        password: bytes | None,
        name: str | None = None,
        public: bool = False,
        permanent: bool = False,
        metadata: dict[str, Any] | None = None,
        max_listeners: int = 0,
        channel_names: tuple[str, ...] | None = None,
        grace_s: float | None = None,
    ) -> tuple[Room, bool]:
        """A new room, kept when this returns, and whether the database has it already.

        Without a password it is open to everyone; what else is None is as the server has it.

        Raises PoolFullError, and OutboxError when it could not be kept.
        """
        room_id = new_id()
        password_hash = None
        if password is not None:
            password_hash = await self._passwords.make(room_id, password)
        try:
            record, persisted = await self._keep(
                RoomRecord(
                    id=room_id,
                    code="",
                    name=name or "",
                    password_hash=password_hash,
                    created_by=owner,
                    created_at=self._media.clock_us() / 1e6,
                    public=public,
                    permanent=permanent,
                    metadata=metadata or {},
                    max_listeners=max_listeners,
                    channel_names=channel_names or None,
                    grace_s=grace_s,
                )
            )
            return self._open(record), persisted
        except BaseException:
            self._passwords.forget(room_id)
            raise

    def find(self, name: str) -> Room | None:
        """The open room with this id or code; letters may be of either case."""
        return (
            self._by_id.get(name)
            or self._by_code.get(name)  # imported codes are taken as they are
            or self._by_code.get(name.upper())
            or self._by_id.get(name.lower())
        )

    def of_media(self, media_id: int) -> Room | None:
        """The open room that the relay calls so."""
        return self._by_media.get(media_id)

    def closed(self, name: str) -> RoomRecord | None:
        """The room with this id or code, if it was closed here lately."""
        return (
            self._closed.get(name)
            or self._closed.get(name.upper())
            or self._closed.get(name.lower())
        )

    def public(self, after: Place | None, limit: int) -> list[Room]:
        """Open rooms that may be listed, newest first."""
        rooms = (
            room
            for room in self._by_id.values()
            if room.record.public and (after is None or room.record.place < after)
        )
        return heapq.nlargest(limit, rooms, key=lambda room: room.record.place)

    def records(self) -> Iterator[RoomRecord]:
        """Every room of this server, those that were closed lately included."""
        for room in self._by_id.values():
            yield room.record
        for name, record in self._closed.items():
            if name == record.id:  # it is there by its code as well
                yield record

    def stop(self) -> None:
        """The server shuts down; rooms stay as they are in the store."""
        for room in self._by_id.values():
            room.stop_timers()

    def audit(
        self,
        event: AuditEvent,
        *,
        address: str | None = None,
        limit_key: str | None = None,
        user_agent: str | None = None,
        user: str | None = None,
        room: str | None = None,
        **details: Any,
    ) -> None:
        """Adds a line to the audit log, unless the address has been refused too often for that.

        `limit_key` is what limits count by, for events that have an address.
        """
        at = self._media.clock_us() / 1e6
        if event in REFUSALS:
            suppressed = self._refusals.admit(limit_key or "", at)
            if suppressed is None:
                return
            if suppressed:
                details["suppressed"] = suppressed
        self._store.audit(AuditRecord(event, at, address, user, room, user_agent, details))

    async def _keep(self, record: RoomRecord) -> tuple[RoomRecord, bool]:
        """Finds a code, and a name if it has none, and gives the room to the store."""
        while True:
            code = self._make_code()
            candidate = replace(record, code=code, name=record.name or f"Room {code}")
            try:
                return candidate, await self._store.create_room(candidate)
            except CodeTakenError:
                continue  # one in a billion, save for those at rest

    def _open(self, record: RoomRecord) -> Room:
        room = Room(
            record,
            media=self._media,
            store=self._store,
            timers=self._timers,
            grace_s=self._grace_s,
            max_listeners=self._max_listeners,
            closed=self._forget,
        )
        self._by_id[room.id] = room
        self._by_code[record.code] = room
        self._by_media[room.media_id] = room
        return room

    def _forget(self, room: Room) -> None:
        assert room.state is RoomState.CLOSED
        self._drop(room)
        for name in (room.id, room.record.code):
            self._closed[name] = room.record
        while len(self._closed) > REMEMBERED_CLOSED:
            del self._closed[next(iter(self._closed))]
        if room.record.close_reason not in (
            RoomCloseReason.CLOSED_BY_OWNER,
            RoomCloseReason.CLOSED_BY_ADMIN,
        ):  # those are told by who closed it
            self.audit(
                AuditEvent.ROOM_CLOSED,
                user=room.record.created_by,
                room=room.id,
                reason=room.record.close_reason,
            )

    def _drop(self, room: Room) -> None:
        del self._by_id[room.id]
        del self._by_code[room.record.code]
        del self._by_media[room.media_id]
        self._passwords.forget(room.id)
