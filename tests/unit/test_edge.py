"""The edge without sockets: addresses, limits, logs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from multidict import CIMultiDict

from roomserver.edge.addresses import ClientAddresses, limit_key
from roomserver.edge.limits import Brake, Limiter, LimitReachedError, LimitStorage
from roomserver.edge.routes.accounts import LoginRequest
from roomserver.logs import hide_secrets
from roomserver.protocol.client import RegisterListener


def request(peer: str | None, *forwarded: str) -> web.Request:
    name = (peer, 1234) if peer is not None else ""
    return cast(
        web.Request,
        SimpleNamespace(
            transport=SimpleNamespace(get_extra_info=lambda _: name),
            headers=CIMultiDict(("X-Forwarded-For", value) for value in forwarded),
        ),
    )


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("203.0.113.9",), "192.0.2.1"),  # no proxy of ours: ignored
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("6.6.6.6, 203.0.113.9",), "203.0.113.9"),  # what the client claims
        ("10.0.0.1", ("203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.0.0.1", ("6.6.6.6", "203.0.113.9, 10.0.0.2"), "203.0.113.9"),
        ("10.0.0.1", ("garbage",), "10.0.0.1"),
        ("10.0.0.1", ("garbage, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("::ffff:10.0.0.1", ("2001:db8::1",), "2001:db8::1"),
        (None, ("203.0.113.9",), "203.0.113.9"),  # our Unix socket
        (None, ("6.6.6.6, 203.0.113.9",), "203.0.113.9"),
        (None, (), "unknown"),
    ],
)
def test_the_client_is_who_the_last_trusted_proxy_saw(
    peer: str | None, forwarded: tuple[str, ...], address: str
) -> None:
    addresses = ClientAddresses(["10.0.0.0/8"], lambda _: None)
    assert addresses.of(request(peer, *forwarded)) == address


def test_a_header_is_not_believed_when_the_connection_is_gone() -> None:
    left = request(None, "203.0.113.9")
    left.transport = None  # type: ignore[misc]
    assert ClientAddresses([], lambda _: None).of(left) == "unknown"


def test_the_tls_bridge_knows_whom_it_serves() -> None:
    addresses = ClientAddresses([], lambda _: "192.0.2.5")
    assert addresses.of(request(None)) == "192.0.2.5"


def test_an_ipv6_host_is_its_network() -> None:
    assert limit_key("2001:db8::1") == limit_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert limit_key("192.0.2.1") == "192.0.2.1"
    assert limit_key("unknown") == "unknown"


async def fail(limiter: Limiter, *key: str, same: object = None) -> None:
    async with limiter.attempt(*key, same=cast(Any, same)) as attempt:
        await asyncio.sleep(0)
        attempt.count()


def limiter(limit: str, storage: LimitStorage | None = None, name: str = "join") -> Limiter:
    return Limiter(name, limit, storage or LimitStorage())


async def test_failures_are_limited_and_successes_are_not() -> None:
    joins = limiter("3 per minute")
    for _ in range(100):
        async with joins.attempt("address", "room"):
            pass
    for _ in range(3):
        await fail(joins, "address", "room")
    with pytest.raises(LimitReachedError) as caught:
        await fail(joins, "address", "room")
    assert 0 < caught.value.retry_after_s <= 60
    await fail(joins, "address", "another room")
    await fail(joins, "another address", "room")


async def test_attempts_at_the_same_time_get_no_further_than_one_after_the_other() -> None:
    joins = limiter("3 per minute")
    results = await asyncio.gather(
        *(fail(joins, "address", same=number) for number in range(50)), return_exceptions=True
    )
    assert results.count(None) == 3
    assert sum(isinstance(result, LimitReachedError) for result in results) == 47


async def test_a_crowd_with_the_right_password_is_not_limited() -> None:
    joins = limiter("3 per minute")

    async def join() -> None:
        async with joins.attempt("hall", same="right"):
            await asyncio.sleep(0)

    await asyncio.gather(*(join() for _ in range(1000)))
    assert joins._running == {}


async def test_attempts_that_are_over_at_once_count_with_those_that_take_their_time() -> None:
    joins = limiter("3 per minute")
    joins.count(("hall",))
    async with joins.attempt("hall", same="right"):
        async with joins.attempt("hall", same="wrong") as attempt:
            assert joins.admits(("hall",), "right")
            assert not joins.admits(("hall",), "another")
            attempt.count()
        assert joins.admits(("hall",), "right")
        assert not joins.admits(("hall",))
        assert joins.admits(("elsewhere",))
    joins.count(("hall",))
    assert not joins.admits(("hall",))
    with pytest.raises(LimitReachedError):
        await fail(joins, "hall")


async def test_what_others_count_too_is_asked_for() -> None:
    storage = LimitStorage()
    storage.shared = True
    assert not limiter("3 per minute", storage).admits(("hall",))


async def test_what_is_not_called_the_same_is_not_the_same() -> None:
    rooms = limiter("3 per hour")
    results = await asyncio.gather(*(fail(rooms, "me") for _ in range(10)), return_exceptions=True)
    assert results.count(None) == 3


async def test_limiters_on_one_storage_do_not_mix() -> None:
    storage = LimitStorage()
    await fail(limiter("1 per minute", storage, "one"), "key")
    await fail(limiter("1 per minute", storage, "two"), "key")


async def test_what_is_left_of_a_limit_is_told_in_the_fields_of_the_draft() -> None:
    joins = limiter("3 per minute")
    unused = joins.usage("key")
    assert unused.headers == {
        "RateLimit-Policy": '"join";q=3;w=60',
        "RateLimit": '"join";r=3;t=0',
    }
    await fail(joins, "key")
    used = joins.usage("key")
    assert (used.remaining, 59 < used.reset_s <= 60) == (2, True)


async def test_counts_end_with_their_window_and_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = LimitStorage()
    joins = limiter("1 per minute", storage)
    for number in range(1000):
        await fail(joins, str(number))
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    await fail(joins, "1")
    for number in range(2000, 4000):
        await fail(joins, str(number))
    assert len(storage.expirations) == len(storage.storage) == 2001


async def test_keys_are_bounded_and_those_that_end_soonest_are_forgotten() -> None:
    """Else whoever guesses from one address could fill the memory."""
    storage = LimitStorage(most_keys=100)
    accounts, rooms = limiter("3 per hour", storage, "login"), limiter("3 per minute", storage)
    await fail(accounts, "me")
    for number in range(1000):
        await fail(rooms, "address", f"GUESS{number}")
    assert len(storage.expirations) == len(storage.storage) == 100
    assert accounts.usage("me").remaining == 2
    assert rooms.usage("address", "GUESS0").remaining == 3
    assert rooms.usage("address", "GUESS999").remaining == 2


async def test_what_has_expired_is_forgotten_a_little_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = LimitStorage()
    joins = limiter("1 per minute", storage)
    for number in range(1000):
        await fail(joins, str(number))
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    await fail(joins, "new")
    assert len(storage.expirations) == 999
    assert joins.usage("5").remaining == 1  # what has expired counts no more, there or not


async def test_a_brake_slows_what_fails_and_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    brake = Brake("account", "3 per minute", LimitStorage())
    monkeypatch.setattr(asyncio, "sleep", sleep)
    for _ in range(20):
        await brake.wait("me")
        await brake.failed("me")
    await brake.wait("somebody else")
    assert waits == [1, 2, 3, 4, 5, 6, 7, 8, 9, *[10] * 8]


LOG_IN = """
import logging, sys, structlog
from roomserver.edge.routes.accounts import LoginRequest
from roomserver.logs import configure_logging

def log_in(password):
    body = LoginRequest("me@example.org", password)
    try:
        1 / 0
    except ZeroDivisionError:
        structlog.stdlib.get_logger("ours").exception("one")
        logging.getLogger("another's").exception("two")

configure_logging(sys.argv[1], "info")
log_in("HIDDEN".lower())
"""


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_in_the_log_does_not_tell_what_variables_held(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOG_IN, style], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("ZeroDivisionError: division by zero") == 2
    assert done.stderr.count("in log_in") == 2
    assert "hidden" not in done.stderr


def test_requests_do_not_tell_their_secrets_where_they_are_printed() -> None:
    body = LoginRequest("me@example.org", "hidden")
    message = RegisterListener(room_id="A", room_token="hidden")
    assert (repr(body), repr(message)) == ("LoginRequest(...)", "RegisterListener(...)")


def test_secrets_do_not_reach_the_log() -> None:
    event = hide_secrets(None, "info", {"event": "x", "password": "p", "roomToken": "t", "a": 1})
    assert event == {"event": "x", "password": "***", "roomToken": "***", "a": 1}
