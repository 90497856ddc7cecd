"""Limits that two servers count together in a Redis, which may go away."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import aiohttp
import pytest
import redis.asyncio

from roomserver.config import ConfigError, load_settings
from support.api_client import Answer, Api
from support.redis import Redis
from support.redis import redis as new_redis
from support.server import ServerProcess

LIMIT = 4
_emails = itertools.count()


@pytest.fixture(scope="module")
def store() -> Iterator[Redis]:
    with new_redis() as store:
        yield store


@pytest.fixture(scope="module")
def servers(
    store: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServerProcess]]:
    options = ("--login-limit", f"{LIMIT} per hour", "--limits-url", store.url)
    with ExitStack() as stack:
        yield [
            stack.enter_context(ServerProcess.start(tmp_path_factory.mktemp(name), *options))
            for name in ("one", "two")
        ]


@pytest.fixture
def apis(servers: list[ServerProcess], session: aiohttp.ClientSession) -> list[Api]:
    return [Api(server.url, session) for server in servers]


def new_email() -> str:
    return f"{next(_emails)}@example.org"


async def fail(api: Api, email: str) -> Answer:
    body = {"email": email, "password": "wrong"}
    return await api.call("POST", "/auth/broadcaster", json=body)


async def test_what_was_tried_at_one_counts_at_the_other(apis: list[Api]) -> None:
    email = new_email()
    for number, api in enumerate([*apis, *apis][:LIMIT]):
        answer = await fail(api, email)
        assert answer.status == 401
        assert answer.headers["RateLimit"].startswith(f'"login";r={LIMIT - 1 - number};t=')
    for api in apis:
        answer = await fail(api, email)
        assert answer.status == 429
        assert 3500 < int(answer.headers["Retry-After"]) <= 3600
        assert (await fail(api, new_email())).status == 401


async def test_many_at_once_at_one_server_get_no_further_than_one_after_the_other(
    apis: list[Api],
) -> None:
    email = new_email()

    async def guess(number: int) -> int:
        body = {"email": email, "password": f"guess {number}"}
        return (await apis[0].call("POST", "/auth/broadcaster", json=body)).status

    statuses = await asyncio.gather(*(guess(number) for number in range(30)))
    assert statuses.count(401) == LIMIT
    assert set(statuses) == {401, 429}
    assert (await fail(apis[1], email)).status == 429


async def test_while_it_is_away_each_counts_by_itself(
    apis: list[Api], servers: list[ServerProcess], store: Redis
) -> None:
    email = new_email()
    assert (await fail(apis[0], email)).status == 401
    store.stop()
    try:
        for _ in range(LIMIT - 1):
            assert (await fail(apis[0], email)).status == 401
        assert (await fail(apis[0], email)).status == 429
        assert (await fail(apis[1], email)).status == 401
        for server in servers:
            await asyncio.to_thread(server.wait_for_event, "limits_not_shared")
    finally:
        store.start()
    assert (await fail(apis[0], email)).status == 429, "it forgets nothing for that"
    async with asyncio.timeout(30):
        while not any(e["event"] == "limits_shared_again" for e in list(servers[1].events)):
            await fail(apis[1], new_email())
            await asyncio.sleep(0.2)


async def test_who_brought_the_old_password_gets_no_token_of_the_new(
    apis: list[Api], servers: list[ServerProcess], store: Redis
) -> None:
    """The password changes, and listeners are dropped, while a join waits to be counted."""
    servers[0].add_user()
    api = apis[0]
    token = (await api.login())["accessToken"]
    room = await api.create_room(token)
    async with redis.asyncio.Redis(unix_socket_path=str(store.socket)) as client:
        await client.client_pause(60_000, all=False)
        joining = asyncio.create_task(api.join(room.code))
        async with asyncio.timeout(30):
            while not any(  # noqa: ASYNC110 - it sends no event
                "b" in each["flags"] for each in await client.client_list()
            ):
                await asyncio.sleep(0.01)
        path = f"/api/broadcaster/rooms/{room.id}/password"
        body = {"password": "another", "dropListeners": True}
        assert (await api.call("POST", path, token=token, json=body)).status == 200
        await client.client_unpause()
    async with api.socket() as socket:
        await socket.say("registerListener", roomId=room.id, roomToken=await joining)
        assert (await socket.until("error"))["code"] == "token_invalid"
        assert (await socket.closed()).code == 4401


def test_another_kind_of_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="redis://") as caught:
        load_settings(None, limits_url="http://u:hidden@nowhere")
    assert "hidden" not in str(caught.value)


def test_a_server_without_the_package_says_so() -> None:
    code = """
import sys
sys.modules["redis"] = None
from roomserver.config import ConfigError
from roomserver.edge.shared_limits import SharedLimitStorage
try:
    SharedLimitStorage("redis://localhost")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "relaycore[redis]" in done.stdout
