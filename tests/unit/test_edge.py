"""The edge without sockets: addresses, limits on failures, logs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from limits.aio.storage import MemoryStorage
from multidict import CIMultiDict

from roomserver.edge.addresses import ClientAddresses, limit_key
from roomserver.edge.failures import FailureLimiter, TooManyFailuresError
from roomserver.logs import hide_secrets


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


async def fail(limiter: FailureLimiter, *key: str, same: object = None) -> None:
    async with limiter.attempt(*key, same=cast(Any, same)) as attempt:
        await asyncio.sleep(0)
        attempt.failed()


async def test_failures_are_limited_and_successes_are_not() -> None:
    limiter = FailureLimiter("join", "3 per minute", MemoryStorage())
    for _ in range(100):
        async with limiter.attempt("address", "room"):
            pass
    for _ in range(3):
        await fail(limiter, "address", "room")
    with pytest.raises(TooManyFailuresError) as caught:
        await fail(limiter, "address", "room")
    assert 0 < caught.value.retry_after_s <= 60
    await fail(limiter, "address", "another room")
    await fail(limiter, "another address", "room")


async def test_attempts_at_the_same_time_get_no_further_than_one_after_the_other() -> None:
    limiter = FailureLimiter("join", "3 per minute", MemoryStorage())
    results = await asyncio.gather(
        *(fail(limiter, "address", same=number) for number in range(50)), return_exceptions=True
    )
    assert results.count(None) == 3
    assert sum(isinstance(result, TooManyFailuresError) for result in results) == 47


async def test_a_crowd_with_the_right_password_is_not_limited() -> None:
    limiter = FailureLimiter("join", "3 per minute", MemoryStorage())

    async def join() -> None:
        async with limiter.attempt("hall", same="right"):
            await asyncio.sleep(0)

    await asyncio.gather(*(join() for _ in range(1000)))
    assert limiter._running == {}


async def test_limiters_on_one_storage_do_not_mix() -> None:
    storage = MemoryStorage()
    one = FailureLimiter("one", "1 per minute", storage)
    two = FailureLimiter("two", "1 per minute", storage)
    await fail(one, "key")
    await fail(two, "key")


def test_secrets_do_not_reach_the_log() -> None:
    event = hide_secrets(None, "info", {"event": "x", "password": "p", "roomToken": "t", "a": 1})
    assert event == {"event": "x", "password": "***", "roomToken": "***", "a": 1}
