"""Two servers that share a database and a key: an account is one account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import pytest

from roomserver.store.embedded import EmbeddedPostgres
from support.api_client import Api
from support.postgres import url
from support.server import PASSWORD, ServerProcess

ADMIN = "boss@example.org"


@pytest.fixture(scope="module")
def servers(
    database: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServerProcess]]:
    env = {"ROOMSERVER_DATABASE_URL": url(database.connection), "ROOMSERVER_SECRET": "s" * 40}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ServerProcess.start(tmp_path_factory.mktemp(name), env=env))
            for name in ("one", "two")
        ]
        servers[0].add_user(ADMIN, admin=True)
        yield servers


@pytest.fixture
async def apis(servers: list[ServerProcess]) -> AsyncIterator[list[Api]]:
    async with aiohttp.ClientSession() as session:
        yield [Api(server.url, session) for server in servers]


async def test_who_is_disabled_at_one_is_out_at_the_other(apis: list[Api]) -> None:
    one, two = apis
    admin = (await one.login(ADMIN))["accessToken"]
    body = {"email": "out@example.com", "password": PASSWORD}
    made = (await one.call("POST", "/api/admin/users", token=admin, json=body)).body
    token = (await two.login("out@example.com"))["accessToken"]
    room = await two.create_room(token)
    async with two.listener(room) as listener:
        path = f"/api/admin/users/{made['userId']}/disable"
        assert (await one.call("POST", path, token=admin)).status == 200
        answer = await two.call("POST", "/auth/room/create", token=token, json={})
        assert answer.body["code"] == "token_invalid"
        assert (await listener.until("roomClosed"))["reason"] == "owner_disabled"


async def test_theft_is_caught_wherever_the_tokens_are_presented(
    apis: list[Api], servers: list[ServerProcess]
) -> None:
    one, two = apis

    async def refresh(api: Api, token: str) -> str | None:
        answer = await api.call("POST", "/auth/refresh", json={"refreshToken": token})
        return answer.body["refreshToken"] if answer.status == 200 else None

    first = (await one.login(ADMIN))["refreshToken"]
    tabs = await asyncio.gather(*(refresh(api, first) for api in (one, two, one, two)))
    assert None not in tabs
    assert isinstance(tabs[0], str)
    second = await refresh(two, tabs[0])
    assert second is not None
    third = await refresh(one, second)
    assert third is not None
    assert await refresh(two, tabs[0]) is None
    for token in (third, *tabs):
        assert token is not None
        assert await refresh(one, token) is None
    await asyncio.to_thread(servers[1].wait_for_event, "token_theft")
