"""Limits of a running server: each is told, reached, audited, and says when to come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from roomserver.rooms.places import KEPT_FOR_SOURCES
from support.api_client import ROOM_PASSWORD, Answer, Api, Socket
from support.server import PASSWORD, ServerProcess

OPTIONS = (
    *("--create-limit", "3 per hour"),
    *("--join-success-limit", "4 per minute"),
    *("--login-account-limit", "3 per minute"),
    *("--login-address-limit", "7 per minute"),
    *("--join-address-limit", "7 per minute"),
    *("--max-connections-per-participant", "2"),
    *("--trusted-proxies", "127.0.0.1"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess.start(tmp_path_factory.mktemp("limits"), *OPTIONS) as process:
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


def is_limited(answer: Answer, policy: str) -> None:
    assert (answer.status, answer.body["code"]) == (429, "rate_limited")
    assert answer.headers["RateLimit-Policy"] == policy
    name = policy.split(";")[0]
    assert answer.headers["RateLimit"].startswith(f"{name};r=0;t=")
    window = int(policy.rpartition("w=")[2])
    assert window - 60 < int(answer.headers["Retry-After"]) <= window


async def test_an_account_makes_three_rooms_an_hour(api: Api, server: ServerProcess) -> None:
    for email in ("one@example.org", "two@example.org"):
        server.add_user(email)
        token = (await api.login(email))["accessToken"]

        async def create(**wishes: Any) -> Answer:
            body = {"password": ROOM_PASSWORD, **wishes}
            return await api.call("POST", "/auth/room/create", token=token, json=body)  # noqa: B023

        assert (await create(name="a\nb")).status == 400  # none was made: it does not count
        for left in (2, 1, 0):
            answer = await create()
            assert answer.status == 201
            assert answer.headers["RateLimit"].startswith(f'"create";r={left};t=')
        is_limited(await create(), '"create";q=3;w=3600')
    told = server.wait_for_event("rate_limit_exceeded", where=lambda e: e["limit"] == "create")
    assert told["user"]


async def test_successful_joins_are_capped_apart_from_failures(
    api: Api, server: ServerProcess
) -> None:
    server.add_user("joins@example.org")
    room = await api.create_room((await api.login("joins@example.org"))["accessToken"])
    join = {"roomCode": room.code, "password": ROOM_PASSWORD}
    for _ in range(4):
        assert (await api.call("POST", "/auth/room/join", json=join)).status == 200
    is_limited(await api.call("POST", "/auth/room/join", json=join), '"joins";q=4;w=60')
    elsewhere = {"X-Forwarded-For": "192.0.2.7"}
    answer = await api.call("POST", "/auth/room/join", json=join, headers=elsewhere)
    assert answer.status == 200


async def test_names_of_accounts_that_are_invented_are_no_way_round_a_limit(
    api: Api, server: ServerProcess
) -> None:
    server.add_user("beside@example.org")
    guessing = {"X-Forwarded-For": "203.0.113.5"}

    async def login(email: str, password: str, **headers: str) -> Answer:
        body = {"email": email, "password": password}
        return await api.call("POST", "/auth/broadcaster", json=body, headers=headers)

    for _ in range(10):  # successes are no guesses
        assert (await login("beside@example.org", PASSWORD, **guessing)).status == 200
    for number in range(7):
        answer = await login(f"{number}@example.org", "wrong", **guessing)
        assert answer.status == 401
    is_limited(await login("8@example.org", "wrong", **guessing), '"login_address";q=7;w=60')
    assert (await login("beside@example.org", PASSWORD, **guessing)).status == 429
    assert (await login("beside@example.org", PASSWORD)).status == 200
    told = server.wait_for_event(
        "rate_limit_exceeded", where=lambda e: e["limit"] == "login_address"
    )
    assert told["address"] == "203.0.113.5"


async def test_an_old_password_is_no_way_round_it_either(api: Api, server: ServerProcess) -> None:
    statuses = []
    for account in ("x@example.org", "y@example.org"):  # which have a limit of 5 each
        server.add_user(account)
        token = (await api.login(account))["accessToken"]
        for number in range(4):
            body = {"oldPassword": f"wrong {number}", "newPassword": "another password"}
            answer = await api.call(
                "POST",
                "/auth/password",
                token=token,
                json=body,
                headers={"X-Forwarded-For": "203.0.113.6"},
            )
            statuses.append(answer.status)
    assert statuses == [401] * 7 + [429]


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("203.0.113.10", {}),
        ("203.0.113.11", {"password": "wrong"}),
        ("203.0.113.12", {"invite": "x"}),
    ],
)
async def test_which_rooms_are_open_can_not_be_found_out_by_trying(
    api: Api, server: ServerProcess, address: str, secret: dict[str, str]
) -> None:
    owner = server.add_user(f"owner-{address}@example.org")
    room = await api.create_room((await api.login(owner))["accessToken"], password=None)
    guessing = {"X-Forwarded-For": address}

    async def join(code: str, headers: dict[str, str], **body: str) -> Answer:
        body |= {"roomCode": code}
        return await api.call("POST", "/auth/room/join", json=body, headers=headers)

    for _ in range(3):
        assert (await join(room.code, guessing)).status == 200
    for letter in "ABCDEFG":
        assert (await join(f"NNNNN{letter}", guessing, **secret)).status == 401
    is_limited(await join("NNNNNH", guessing, **secret), '"join_address";q=7;w=60')
    is_limited(await join(room.code, guessing), '"join_address";q=7;w=60')
    assert (await join(room.code, {"X-Forwarded-For": "203.0.113.20"})).status == 200


async def test_a_token_is_for_so_many_connections(api: Api, server: ServerProcess) -> None:
    server.add_user("tabs@example.org")
    room = await api.create_room((await api.login("tabs@example.org"))["accessToken"])
    token = await api.join(room.code)

    async def listen(socket: Socket) -> dict[str, Any]:
        await socket.say("registerListener", roomId=room.id, roomToken=token)
        return await socket.until("listenerRegistered", "error")

    async with api.socket() as first:
        assert (await listen(first))["type"] == "listenerRegistered"
        async with api.socket() as second, api.socket() as third:
            assert (await listen(second))["type"] == "listenerRegistered"
            assert (await listen(third))["code"] == "too_many_connections"
            assert (await third.closed()).code == 4429
            async with api.listener(room):  # with another
                pass
        async with asyncio.timeout(30):  # until it is noticed that the second has gone
            while True:
                async with api.socket() as again:
                    if (await listen(again))["type"] == "listenerRegistered":
                        break


async def test_listeners_leave_a_place_for_a_source(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path, "--max-connections", "2") as server:
        server.add_user("full@example.org")
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            room = await api.create_room((await api.login("full@example.org"))["accessToken"])
            token = await api.join(room.code)
            async with api.listener(room), api.listener(room):
                async with api.socket() as third:
                    await third.say("registerListener", roomId=room.id, roomToken=token)
                    assert (await third.until("error"))["code"] == "too_many_connections"
                    assert (await third.closed()).code == 4429
                async with api.source(room):
                    pass


async def test_a_server_takes_so_many_connections(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path, "--max-connections", "2") as server:
        async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
            api = Api(server.url, session)
            for _ in range(KEPT_FOR_SOURCES):
                await stack.enter_async_context(api.socket())
            async with api.socket():
                async with api.socket():
                    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                        async with api.socket():
                            pass
                    assert caught.value.status == 503
                    answer = await api.call("GET", "/ws")
                    assert (answer.status, answer.body["code"]) == (503, "busy")
                    assert answer.headers["Retry-After"] == "10"
                async with asyncio.timeout(30):  # until it is noticed that there is room
                    while (await api.call("GET", "/ws")).status == 503:
                        pass
                async with api.socket():
                    pass
        assert server.wait_for_event("request_refused")["code"] == "busy"


async def test_an_account_that_fails_from_everywhere_is_slowed_and_not_locked(
    api: Api, server: ServerProcess
) -> None:
    server.add_user("slow@example.org")

    async def login(address: str, password: str) -> float:
        body = {"email": "Slow@example.org", "password": password}
        begun = time.monotonic()
        answer = await api.call(
            "POST", "/auth/broadcaster", json=body, headers={"X-Forwarded-For": address}
        )
        assert answer.status == (200 if password == PASSWORD else 401)
        return time.monotonic() - begun

    for number in range(4):
        await login(f"192.0.2.{number}", "wrong")
    assert await login("198.51.100.1", PASSWORD) >= 2


async def test_the_audit_log_knows_who_was_limited_and_with_what(
    api: Api, server: ServerProcess
) -> None:
    server.add_user("audit@example.org")
    headers = {"X-Forwarded-For": "192.0.2.99", "User-Agent": "Knocker/1.0 " + "x" * 1000}
    wrong = {"email": "audit@example.org", "password": "wrong"}
    for left in (4, 3, 2, 1, 0):
        answer = await api.call("POST", "/auth/broadcaster", json=wrong, headers=headers)
        assert answer.headers["RateLimit"].startswith(f'"login";r={left};')
    answer = await api.call("POST", "/auth/broadcaster", json=wrong, headers=headers)
    is_limited(answer, '"login";q=5;w=900')
    told = server.wait_for_event("rate_limit_exceeded", where=lambda e: e["limit"] == "login")
    assert told["address"] == "192.0.2.99"
    assert told["path"] == "/auth/broadcaster"


async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    limit = ("--login-limit", "1 per hour")
    with ServerProcess.start(tmp_path_factory.mktemp("untrusting"), *limit) as server:
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            wrong = {"email": "a@example.org", "password": "wrong"}
            statuses = [
                (
                    await api.call(
                        "POST",
                        "/auth/broadcaster",
                        json=wrong,
                        headers={"X-Forwarded-For": f"192.0.2.{number}"},
                    )
                ).status
                for number in range(3)
            ]
        assert statuses == [401, 429, 429]
        server.wait_for_event("forwarded_address_ignored")
        assert len([e for e in server.events if e["event"] == "forwarded_address_ignored"]) == 1
        assert server.wait_for_event("login_failure")["address"] == "127.0.0.1"
