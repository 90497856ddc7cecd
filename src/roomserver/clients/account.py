"""A broadcaster's account: one login, then access tokens for as long as they are needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from roomserver.clients.connection import RoomAccess, RoomApi, Session
from roomserver.clients.errors import RefusedError

T = TypeVar("T")


class AccountEntry:
    """What an account may ask of a server.

    It logs in when it is first needed. An access token that is refused is replaced by means of the
    refresh token, and a refresh token that is refused by another login.

    Args:
        api: The server.
        email: The account.
        password: Its password.
    """

    def __init__(self, api: RoomApi, email: str, password: str) -> None:
        self._api = api
        self._email = email
        self._password = password
        self._session: Session | None = None

    async def create_room(
        self,
        password: str | None,
        *,
        name: str | None = None,
        public: bool = False,
        permanent: bool = False,
    ) -> RoomAccess:
        """Create a room, without a password an open one; the answer's token is a broadcaster's."""
        return await self._ask(
            lambda token: self._api.create_room(
                token, password, name=name, public=public, permanent=permanent
            )
        )

    async def broadcaster_token(self, room: str) -> RoomAccess:
        """Get a broadcaster's token for an own room, by code or id."""
        return await self._ask(lambda token: self._api.broadcaster_token(token, room))

    async def close_room(self, room: str) -> None:
        """Close an own room, by code or id."""
        await self._ask(lambda token: self._api.close_room(token, room))

    async def _ask(self, request: Callable[[str], Awaitable[T]]) -> T:
        if self._session is None:
            self._session = await self._api.login(self._email, self._password)
        try:
            return await request(self._session.access_token)
        except RefusedError as error:
            if error.status != 401:
                raise
        self._session = await self._renew(self._session)
        return await request(self._session.access_token)

    async def _renew(self, session: Session) -> Session:
        try:
            return await self._api.refresh(session.refresh_token)
        except RefusedError as error:
            if error.status != 401:
                raise
        return await self._api.login(self._email, self._password)
