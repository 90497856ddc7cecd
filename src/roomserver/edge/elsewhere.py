"""Rooms of other servers that share the database: whoever may know it is told where they are.

A room code is a guess until a password, or the account that owns the room, stands behind it. Only
then is the right server told; before, a room elsewhere looks like one that does not exist.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from roomserver.edge.problems import Problem, ProblemCode
from roomserver.store.interfaces import LookupsBusyError
from roomserver.store.records import Account, Elsewhere

if TYPE_CHECKING:
    from roomserver.edge.services import Services

RETRY_S = 2.0


async def locate_guessed(services: Services, name: str) -> Elsewhere | None:
    """The open room with this id or code that another server has, for somebody who may just guess.

    Of a room that nobody has, this server takes care: it is among `services.rooms` then. When too
    many guess there is no such room: any other answer would tell rooms that are here from others.
    """
    if not services.rooms.shared:
        return None
    with contextlib.suppress(LookupsBusyError):
        return await services.rooms.locate(name, guess=True)
    return None


def wrong_server(room: Elsewhere) -> Problem:
    """The answer to somebody who may know of the room."""
    return Problem(ProblemCode.WRONG_SERVER, "the room is on another server", url=room.url)


async def look_for_room(services: Services, name: str, account: Account | None) -> bool:
    """Looks for a room that is not here, for whoever named it in a path. Whether it is here now.

    Raises Problem: 421 when another server has it and it is the account's, or that is an
    administrator's; 503. And DatabaseAwayError: that it is nowhere, nobody can say then.
    """
    if account is None:
        await locate_guessed(services, name)
    elif services.rooms.shared:
        try:
            found = await services.rooms.locate(name, guess=False)
        except LookupsBusyError:
            raise Problem.later(
                ProblemCode.BUSY, "too many rooms are looked for", after_s=RETRY_S
            ) from None
        if found is not None and (account.role == "admin" or account.id == found.created_by):
            raise wrong_server(found)
    return services.rooms.find(name) is not None
