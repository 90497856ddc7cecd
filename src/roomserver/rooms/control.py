"""What a room's owner, or an administrator, decides about it.

Each decision is kept first and takes effect when that is done, in a few milliseconds: what could
not be written down is not so. Rooms change meanwhile, as sources come and go; then the decision is
taken again on what the room has become.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from msgspec import structs

from roomserver.auth.passwords import RoomPasswords
from roomserver.auth.tokens import Tokens
from roomserver.protocol import server
from roomserver.protocol.codec import encode
from roomserver.protocol.codes import RoomCloseReason, RoomState
from roomserver.rooms.ports import MediaVerbs
from roomserver.rooms.registry import Rooms
from roomserver.rooms.room import Room
from roomserver.store.interfaces import RoomStore
from roomserver.store.records import RoomRecord


class RoomClosedError(Exception):
    """The room was closed before this."""


class NothingToSuspendError(Exception):
    """The room has had no source yet, so that it has nothing to suspend and no deadline."""


class RoomControl:
    """Changes of rooms by people.

    Every method may raise RoomClosedError, and OutboxError when the change could not be kept.
    """

    def __init__(
        self,
        *,
        rooms: Rooms,
        store: RoomStore,
        media: MediaVerbs,
        tokens: Tokens,
        passwords: RoomPasswords,
    ) -> None:
        self._rooms = rooms
        self._store = store
        self._media = media
        self._tokens = tokens
        self._passwords = passwords

    async def update(self, room: Room, fields: Mapping[str, Any]) -> list[str]:
        """Gives these fields of the record these values; the names of those that are others now."""
        changed = [name for name, value in fields.items() if getattr(room.record, name) != value]
        if changed:
            await self.change(room, lambda record: replace(record, **fields))
        return changed

    async def suspend(self, room: Room, for_s: float | None) -> None:
        """Interrupts it: the source is closed, and none is let in until the room is resumed.

        for_s: when it is over without that; the room's grace period if None.

        Raises NothingToSuspendError.
        """

        def suspended(record: RoomRecord) -> RoomRecord:
            if record.state is RoomState.WAITING:
                raise NothingToSuspendError
            until = room.now + (room.grace_s if for_s is None else for_s)
            return replace(record, state=RoomState.SUSPENDED, held=True, suspended_until=until)

        await self.change(room, suspended)

    async def resume(self, room: Room) -> bool:
        """Lets a source in again, for which it waits from now on; False: it was not suspended."""

        def resumed(record: RoomRecord) -> RoomRecord:
            if not record.held:  # any more
                return record
            return replace(record, held=False, suspended_until=room.now + room.grace_s)

        if not room.record.held:
            return False
        await self.change(room, resumed)
        return True

    async def set_password(self, room: Room, password: bytes | None, *, drop: bool) -> int:
        """Gives it another password, or none: it is open to everyone then.

        With `drop` every token given so far is worthless at once and all listeners are closed; the
        source goes on, and gets a new token. Else whoever is in stays.

        Returns how many listeners were closed. Raises PoolFullError.
        """
        hashed = await self._passwords.make(room.id, password) if password is not None else None

        def changed(record: RoomRecord) -> RoomRecord:
            version = record.token_version + drop
            return replace(record, password_hash=hashed, token_version=version)

        await self.change(room, changed)
        if not drop:
            return 0
        self._renew_source(room)
        return room.drop_listeners()

    async def close(self, room: Room, reason: RoomCloseReason) -> None:
        """Closes it for good."""

        def closed(record: RoomRecord) -> RoomRecord:
            return replace(
                record,
                state=RoomState.CLOSED,
                held=False,
                suspended_until=None,
                closed_at=room.now,
                close_reason=reason,
            )

        await self.change(room, closed)

    async def change(self, room: Room, change: Callable[[RoomRecord], RoomRecord]) -> None:
        """Keeps the record with a change, and then it is so; `change` may be called again."""
        kept = 0
        try:
            while room.state is not RoomState.CLOSED:
                before = room.record
                after = replace(change(before), version=max(before.version, kept) + 1)
                await self._store.keep_room(after)
                kept = after.version
                if room.record is before:
                    room.adopt(after)
                    return
            raise RoomClosedError
        except BaseException:
            if kept and not room.gone:  # and is not so: what the room is has the last word
                room.keep(kept)
            raise

    def _renew_source(self, room: Room) -> None:
        source = room.source
        if source is None or source.token is None:
            return
        old = structs.replace(source.token, version=room.record.token_version)
        text, source.token = self._tokens.renew_room(old)
        renewed = server.RoomToken(text, source.token.expires * 1_000_000)
        self._media.send(source.id, encode(renewed))
