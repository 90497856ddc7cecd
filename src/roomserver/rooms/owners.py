"""Rooms of accounts that were disabled are closed, whoever disabled them.

That may have been an administrator here or at another server that shares the database, or
`roomserver user`; so it is looked for from time to time, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection

import structlog

from roomserver.protocol.codes import RoomCloseReason
from roomserver.rooms.control import RoomClosedError, RoomControl
from roomserver.rooms.registry import Rooms
from roomserver.store.database import DatabaseAwayError
from roomserver.store.outbox import OutboxError

LOOK_S = 5.0

log = structlog.stdlib.get_logger("roomserver.rooms")


class DisabledOwners:
    """Closes the rooms here whose owners are among the disabled accounts.

    Args:
        rooms: The rooms of this server.
        control: Closes them.
        disabled_among: Tells which accounts are disabled; may raise DatabaseAwayError.
    """

    def __init__(
        self,
        rooms: Rooms,
        control: RoomControl,
        disabled_among: Callable[[Collection[str]], Awaitable[set[str]]],
    ) -> None:
        self._rooms = rooms
        self._control = control
        self._disabled_among = disabled_among

    async def look(self) -> None:
        """Closes what has to be closed now. Raises DatabaseAwayError, OutboxError."""
        owners = {room.record.created_by for room in self._rooms} - {None}
        disabled = await self._disabled_among([owner for owner in owners if owner is not None])
        if not disabled:
            return
        for room in [room for room in self._rooms if room.record.created_by in disabled]:
            with contextlib.suppress(RoomClosedError):
                await self._control.close(room, RoomCloseReason.OWNER_DISABLED)

    async def watch(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (DatabaseAwayError, OutboxError) as error:
                log.debug("owners_not_checked", reason=str(error))
            except Exception:  # who is disabled later has to be found all the same
                log.exception("owners_not_checked")
