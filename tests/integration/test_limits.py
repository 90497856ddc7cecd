"""Limits of a running server: each is told, reached, audited, and says when to come back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from support.api_client import ROOM_PASSWORD, Answer, Api
from support.server import PASSWORD, ServerProcess

OPTIONS = (
    *("--create-limit", "3 per hour"),
    *("--join-success-limit", "4 per minute"),
    *("--login-account-limit", "3 per minute"),
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
