"""Command line clients stay logged in: by refresh token while it holds, else with the password."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from roomserver.clients.account import AccountEntry
from roomserver.clients.connection import RoomApi, Session
from roomserver.clients.errors import RefusedError
from support.server import PASSWORD, ServerProcess

EMAIL = "engineer@example.org"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Access tokens last no longer than a test."""
    directory = tmp_path_factory.mktemp("clients")
    with ServerProcess.start(directory, "--access-token-s", "3") as server:
        server.add_user(EMAIL)
        yield server


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[RoomApi]:
    async with RoomApi(server.url) as api:
        yield api


async def expired(api: RoomApi, session: Session) -> None:
    """Waits until the session's access token is refused."""
    async with asyncio.timeout(30):
        while True:
            try:
                await api.broadcaster_token(session.access_token, "NNNNNN")
            except RefusedError as error:
                if error.status == 401:
                    return
            await asyncio.sleep(0.05)


class Counted:
    """Lets a client see how it logs in."""

    def __init__(self, api: RoomApi, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.session: Session | None = None
        for name in ("login", "refresh"):
            monkeypatch.setattr(api, name, self._told(name, getattr(api, name)))

    def _told(self, name: str, call: Any) -> Any:
        async def told(*arguments: str) -> Session:
            self.calls.append(name)
            self.session = await call(*arguments)
            assert self.session is not None
            return self.session

        return told


async def test_a_broadcaster_logs_in_once_and_refreshes(
    api: RoomApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counted(api, monkeypatch)
    account = AccountEntry(api, EMAIL, PASSWORD)
    room = await account.create_room("secret")
    assert seen.session is not None
    for _ in range(2):
        await expired(api, seen.session)
        access = await account.broadcaster_token(room.room_code)
        assert access.room_id == room.room_id
    assert seen.calls[0] == "login"
    assert set(seen.calls[1:]) == {"refresh"}


async def test_a_broadcaster_whose_session_was_ended_logs_in_again(
    api: RoomApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counted(api, monkeypatch)
    account = AccountEntry(api, EMAIL, PASSWORD)
    room = await account.create_room("secret")
    assert seen.session is not None
    await api._call("POST", "auth/logout", {"refreshToken": seen.session.refresh_token})
    await expired(api, seen.session)
    assert await account.broadcaster_token(room.room_code)
    assert seen.calls[:3] == ["login", "refresh", "login"]


async def test_a_wrong_password_is_told(api: RoomApi) -> None:
    with pytest.raises(RefusedError) as caught:
        await AccountEntry(api, EMAIL, "wrong").create_room("secret")
    assert caught.value.code == "invalid_credentials"
    assert "wrong" in str(caught.value)
