"""Handshakes that are malformed, oversized, truncated or slow, through the server's real port.

Each gets the right answer, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.certificates import write_certificate
from support.hostile import (
    PING_TEXT,
    Hostile,
    Reply,
    all_of,
    of_length,
    upgrade,
    with_line,
)
from support.peer import TEXT, mask
from support.server import ServerProcess

from .conftest import REQUEST_TIMEOUT_S, SlowSource

MAX_HEAD = 16_384
LINGERING_S = 10.0  # in which aiohttp reads what is left of a body after its answer

pytestmark = pytest.mark.timeout(300)

BAD = (400, "invalid_request")
REFUSED = (400, "upgrade_refused")
NO_UPGRADE = (426, "upgrade_refused")
TOO_LONG = (431, "head_too_large")
HANDSHAKES: dict[str, tuple[bytes, tuple[int, str]]] = {
    "no upgrade": (upgrade(Upgrade=None), NO_UPGRADE),
    "another protocol": (upgrade(Upgrade="h2c"), NO_UPGRADE),
    "no connection": (upgrade(Connection="keep-alive"), REFUSED),
    "old version": (upgrade(Sec_WebSocket_Version="8"), NO_UPGRADE),
    "two versions": (upgrade(Sec_WebSocket_Version="13, 13"), NO_UPGRADE),
    "no version": (upgrade(Sec_WebSocket_Version=None), NO_UPGRADE),
    "no key": (upgrade(Sec_WebSocket_Key=None), REFUSED),
    "short key": (upgrade(Sec_WebSocket_Key="c2hvcnQ="), REFUSED),
    "long key": (upgrade(Sec_WebSocket_Key="A" * 4096 + "=="), REFUSED),
    "two keys": (with_line("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), REFUSED),
    "old draft": (with_line("Sec-WebSocket-Key1: x"), BAD),
    "no host": (upgrade(Host=None), BAD),
    "two hosts": (with_line("Host: y"), BAD),
    "control in an extension": (upgrade(Sec_WebSocket_Extensions="a\x01"), BAD),
    "HTTP/1.0": (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"), REFUSED),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), BAD),
    "noise": (bytes(range(256)) * 4, BAD),
    "another method": (upgrade().replace(b"GET", b"BREW"), BAD),
    "NUL": (upgrade(Host="x\0y"), BAD),
    "a URI of another scheme": (upgrade().replace(b"/ws", b"ftp://x/ws"), REFUSED),
    "bytes in the path": (upgrade().replace(b"/ws", b"/ws\xff\xfe"), BAD),
    # Smuggling: what could be two requests to one side of a proxy and one to the other.
    "a body": (with_line("Content-Length: 5") + b"hello", REFUSED),
    "a chunked body": (with_line("Transfer-Encoding: chunked") + b"0\r\n\r\n", REFUSED),
    "length and chunks": (
        with_line("Content-Length: 4\r\nTransfer-Encoding: chunked")
        + b"5c\r\nGET /health HTTP/1.1\r\n\r\n0\r\n\r\n",
        BAD,
    ),
    "two lengths": (with_line("Content-Length: 0\r\nContent-Length: 5"), BAD),
    "a negative length": (with_line("Content-Length: -1"), BAD),
    "a length with a sign": (with_line("Content-Length: +0"), BAD),
    "a length of 80 bits": (with_line("Content-Length: 1208925819614629174706176"), BAD),
    "unknown coding": (with_line("Transfer-Encoding: xchunked"), REFUSED),
    "space before the colon": (upgrade().replace(b"Host:", b"Host :"), BAD),
    "a folded line": (upgrade(Host="x\r\n folded"), BAD),
    "line feeds alone": (upgrade().replace(b"\r\n", b"\n"), BAD),
    "carriage returns alone": (upgrade(Host="x\rTransfer-Encoding: chunked"), BAD),
    "another request behind it": (upgrade() + b"GET /health HTTP/1.1\r\n\r\n", REFUSED),
    "a frame behind it": (upgrade() + mask(TEXT, PING_TEXT), REFUSED),
    # Length.
    "a byte too long": (of_length(MAX_HEAD + 1), TOO_LONG),
    "a long line": (b"GET /ws?" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n", TOO_LONG),
    "a long header": (upgrade(X="a" * MAX_HEAD), TOO_LONG),
    "long headers": (upgrade(**{f"X{i}": "a" * 1000 for i in range(20)}), TOO_LONG),
    "many headers": (upgrade(**{f"X{i}": "" for i in range(1000)}), BAD),
    "a long name": (upgrade(**{"X" * 9000: ""}), BAD),
}


def post(body: bytes) -> bytes:
    """A request with a body, which is refused for what it lacks."""
    head = b"POST /auth/room/join HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
    return head + b"Content-Type: application/json\r\n\r\n" + body


async def test_bad_handshakes_are_answered_and_ended(server: ServerProcess) -> None:
    async def answer(request: bytes) -> Reply:
        async with Hostile.open(server) as hostile:
            hostile.send(request)
            return await hostile.reply()

    answers = await all_of({name: answer(sent) for name, (sent, _) in HANDSHAKES.items()})
    expected = {name: Reply(*answer, over=True) for name, (_, answer) in HANDSHAKES.items()}
    assert answers == expected


async def test_a_request_that_is_refused_for_what_it_says_may_be_followed_by_another(
    server: ServerProcess,
) -> None:
    for origin in ("https://evil.example", "http://[::1", "http://x:99999999", "null", ""):
        async with Hostile.open(server) as hostile:
            hostile.send(upgrade(Origin=origin))
            assert await hostile.reply() == (403, "origin_not_allowed", False)
            hostile.send(upgrade())
            assert await hostile.head() == 101
        async with Hostile.open(server) as hostile:
            hostile.send(upgrade(Origin=origin))
            assert (await hostile.reply()).status == 403
            hostile.send(of_length(MAX_HEAD + 1))
            assert await hostile.reply() == (*TOO_LONG, True)


async def test_handshakes_that_are_strange_but_right_are_accepted(server: ServerProcess) -> None:
    requests = {
        "extensions": upgrade(Sec_WebSocket_Extensions='x; y="; z", permessage-deflate;;,,; =\xff'),
        "subprotocols": upgrade(Sec_WebSocket_Protocol="a, b"),
        "any case": upgrade(Upgrade="WebSocket", Connection="keep-alive, UPGRADE"),
        "a whole URI": upgrade(Host="y").replace(b"/ws", b"HTTP://x/ws?a"),
        "a page of ours by a whole URI": upgrade(Host="y", Origin="http://x").replace(
            b"/ws", b"http://x/ws"
        ),
        "blank lines first": b"\r\n\r\n\r\n" + upgrade(),
        "as long as may be": of_length(MAX_HEAD),
        "after another request": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + upgrade(),
        "after a body": post(b"{}") + upgrade(),
    }

    async def status(request: bytes) -> int:
        async with Hostile.open(server) as hostile:
            hostile.send(request)
            if request.startswith(b"GET /health"):
                assert (await hostile.reply()).status == 200
            elif request.startswith(b"POST"):
                assert (await hostile.reply()).status == 400
            code = await hostile.head()
            if code == 101:
                await hostile.text("config")
                hostile.send(mask(TEXT, PING_TEXT))
                await hostile.text("pong")
            return code

    answers = await all_of({name: status(request) for name, request in requests.items()})
    assert answers == dict.fromkeys(requests, 101)


async def test_a_handshake_in_a_body_is_a_body(server: ServerProcess) -> None:
    """However it is cut: where a request begins is known by its length, and not by its looks."""
    unnamed = b"POST /auth/room/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    requests = {
        "with a length": (post(upgrade()), b"", False),
        "in pieces": (post(upgrade())[: -len(upgrade())], upgrade(), False),
        "in a head": (b"GET /health HTTP/1.1\r\nX: ", upgrade(), False),
        "in chunks": (unnamed + b"%x\r\n" % len(upgrade()), upgrade() + b"\r\n0\r\n\r\n", True),
    }

    async def answer(first: bytes, then: bytes) -> tuple[int, bool]:
        async with Hostile.open(server) as hostile:
            hostile.send(first)
            await asyncio.sleep(0.1)  # so that it is read in two pieces; neither order is wrong
            hostile.send(then)
            reply = await hostile.reply()
            return reply.status, reply.over

    answers = await all_of({name: answer(*sent[:2]) for name, sent in requests.items()})
    assert all(status < 500 and status != 101 for status, _ in answers.values())
    assert {name: over for name, (_, over) in answers.items()} == {
        name: over for name, (*_, over) in requests.items()
    }


async def test_a_handshake_may_come_in_pieces_cut_anywhere(server: ServerProcess) -> None:
    async def status(cut: int) -> int:
        async with Hostile.open(server) as hostile:
            hostile.send(upgrade()[:cut])
            await asyncio.sleep(0.05)
            hostile.send(upgrade()[cut:])
            return await hostile.head()

    assert set(await asyncio.gather(*map(status, range(1, len(upgrade()))))) == {101}


async def test_a_handshake_cut_off_in_the_middle_is_over(server: ServerProcess) -> None:
    """Truncated: the client ends its side, and waits for what the server says to that."""

    async def rest(cut: int) -> bytes:
        async with Hostile.open(server) as hostile:
            hostile.send(upgrade()[:cut])
            hostile.writer.write_eof()
            return await hostile.rest()

    assert set(await asyncio.gather(*map(rest, range(0, len(upgrade()), 5)))) == {b""}


async def test_a_body_over_the_limit_is_read_to_its_end_at_once(server: ServerProcess) -> None:
    """However much of it came before it was refused: nobody waits for what is there already."""
    for length in (300_000, 600_000, 768_000):
        async with Hostile.open(server) as hostile:
            begin = time.monotonic()
            hostile.send(post(b"x" * length))
            assert await hostile.reply() == (413, "body_too_large", True)
            assert time.monotonic() - begin < LINGERING_S / 2


async def test_an_answer_is_whole_though_much_of_the_request_is_not_read(
    server: ServerProcess,
) -> None:
    """A body that nobody asked for is no head that is too long."""
    request = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for path, status in ((b"nowhere", 404), (b"auth/broadcaster", 413)):
        async with Hostile.open(server) as hostile:
            hostile.send(request % path + b"Content-Length: 300000\r\n\r\n")
            for _ in range(300):
                hostile.send(b"x" * 1000)
                await asyncio.sleep(0)
            reply = await hostile.reply()
            assert (reply.status, reply.over) == (status, True)


async def test_a_request_at_a_byte_a_second_ends_with_its_time_out(
    server: ServerProcess,
    slow_packets: Future[dict[str, SlowSource]],  # which begin here, and are looked at later
) -> None:
    request = upgrade()

    async def slow(before: bytes, trickled: bytes, every_s: float) -> tuple[Reply | None, bool]:
        async with Hostile.open(server) as hostile:
            begin = time.monotonic()
            hostile.send(before)
            if before.startswith(b"GET /health"):
                assert (await hostile.reply()).status == 200
            sending = asyncio.create_task(hostile.trickle(trickled, every_s))
            reply = await hostile.reply() if before or trickled else None
            if reply is None:
                assert await hostile.rest() == b"", "who asked nothing is told nothing"
            sending.cancel()
            return reply, REQUEST_TIMEOUT_S - 0.1 < time.monotonic() - begin < 40

    cases = {
        "a byte a second": slow(b"", request, 1.0),
        "a header that does not end": slow(request[:-4] + b"\r\nX: ", b"a" * 5000, 0.02),
        "headers that do not end": slow(request[:-2], b"X: y\r\n" * 1000, 0.02),
        "blank lines": slow(b"", b"\r\n" * 1000, 0.05),
        "half a request": slow(request[:50], b"", 1),
        "a second request": slow(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", request, 1.0),
        "nothing": slow(b"", b"", 1),
    }
    answers = await all_of(cases)
    late = Reply(408, "request_timeout", over=True)
    assert answers == {name: (None if name == "nothing" else late, True) for name in cases}


async def test_who_begins_with_what_is_no_http_is_refused_and_not_waited_for(
    server: ServerProcess,
) -> None:
    """Methods of other protocols too: a parser that knows them would wait for the rest."""
    for begun in (
        b"M-",
        b"M-SEARCH * HTTP/1.1\r\n",
        b"GET_PARAMETER ",
        b"\x16\x03\x01",
        b"GET /\n",
    ):
        async with Hostile.open(server) as hostile:
            hostile.send(begun)
            assert await hostile.reply() == (400, "invalid_request", True), begun


async def test_over_tls_slow_handshakes_and_requests_are_cut_off_too(tmp_path: Path) -> None:
    """Neither the handshake of TLS nor the request in it is waited for longer."""
    certificate, key = write_certificate(tmp_path, "slow")
    options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--request-timeout-s", "1")
    with ServerProcess.start(tmp_path, *options) as secure:
        address = urlsplit(secure.url)
        context = ssl.create_default_context(cafile=str(certificate))

        async def handshake() -> bytes:
            async with Hostile.open(secure) as hostile:
                sending = asyncio.create_task(hostile.trickle(b"\x16\x03\x01\x02" * 10, 1.0))
                rest = await hostile.rest()
                sending.cancel()
                return rest

        async def request() -> Reply:
            streams = await asyncio.open_connection(address.hostname, address.port, ssl=context)
            hostile = Hostile(*streams)
            sending = asyncio.create_task(hostile.trickle(upgrade(), 0.5))
            reply = await hostile.reply()
            sending.cancel()
            streams[1].transport.abort()
            return reply

        rest, reply = await asyncio.gather(handshake(), request())
        assert rest == b""
        assert reply == Reply(408, "request_timeout", over=True)
