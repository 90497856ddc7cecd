"""Entering a room again and again: with the token at hand, else with a new one."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from roomserver.clients.connection import (
    Message,
    RelayConnection,
    RoomAccess,
    RoomApi,
    reconnecting,
)
from roomserver.clients.errors import ClientError, RefusedError, UnreachableError


class RoomEntry:
    """The way into one room.

    Args:
        api: The server.
        access: Room and token to begin with.
        renew: Gets a new token, by logging in or joining once more.
    """

    def __init__(
        self, api: RoomApi, access: RoomAccess, renew: Callable[[], Awaitable[RoomAccess]]
    ) -> None:
        self.api = api
        self.access = access
        self._renew = renew

    async def connect(
        self, kind: str, answer: str, fields: Callable[[], Message]
    ) -> RelayConnection:
        """Connect and register once; a refused token is renewed, a wrong server left.

        Args:
            kind: ``registerSource`` or ``registerListener``.
            answer: The message that accepts it.
            fields: Makes what else the registration says.

        Raises:
            ClientError: It did not come to a registration.
        """
        renewed = False
        while True:
            registration: Message = {
                "type": kind,
                "roomId": self.access.room_id,
                "roomToken": self.access.room_token,
                **fields(),
            }
            try:
                return await self.api.connect(registration, answer=answer)
            except UnreachableError:
                self.api.go_home()
                raise
            except RefusedError as error:
                if error.url is not None:
                    self.api.move_to(error.url)
                elif error.needs_new_token and not renewed:
                    renewed = True
                    self.access = await self._renew()
                else:
                    raise

    async def reconnect(
        self, kind: str, answer: str, fields: Callable[[], Message]
    ) -> RelayConnection:
        """Like `connect`, again and again with back-off until it works or cannot work.

        Raises:
            ClientError: One that waiting does not cure.
        """
        return await reconnecting(lambda: self.connect(kind, answer, fields))

    def may_return(self, error: ClientError) -> bool:
        """Whether to connect again after a connection ended so; goes where the error says.

        Raises:
            ClientError: One must not go there.
        """
        if not isinstance(error, RefusedError):
            return error.temporary
        if error.url is not None:
            self.api.move_to(error.url)
            return True
        return error.temporary or error.needs_new_token

    def take_token(self, message: Message) -> None:
        """Use the token of a ``roomToken`` message from now on."""
        self.access = dataclasses.replace(self.access, room_token=message["roomToken"])
