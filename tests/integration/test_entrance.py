"""The way into a room that most take, and that of aiohttp: nobody can tell one from the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import bcrypt
import pytest
from pydantic import SecretStr

from roomserver.app import Server
from roomserver.config import Settings
from roomserver.edge.http import HttpConnection
from roomserver.store.accounts import AccountFile
from support.api_client import ROOM_PASSWORD, Api, RoomKeys
from support.hostile import Hostile, upgrade
from support.server import PASSWORD, ServerProcess

NAMED = "https://stage.example.org"
SECOND = "X-Any: a\r\nX-Any: b\r\n"  # a name that comes twice is for aiohttp to look at


@pytest.fixture(scope="module", params=["", NAMED, "*"], ids=["nobody", "named", "any"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """With pages of these other origins."""
    options = ["--join-success-limit", "50000 per hour", "--trusted-proxies", "127.0.0.1"]
    if request.param:
        options += ["--allowed-origins", request.param]
    with ServerProcess.start(tmp_path_factory.mktemp("entrance"), *options) as process:
        process.add_user()
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


@pytest.fixture
async def room(api: Api) -> RoomKeys:
    return await api.create_room((await api.login())["accessToken"], name="Großer Saal")


def post(
    body: bytes, *lines: str, length: int | None = None, kind: str = "application/json"
) -> bytes:
    """A request to come in."""
    fields = [
        "Host: x",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body) if length is None else length}",
        *lines,
    ]
    return "\r\n".join(["POST /auth/room/join HTTP/1.1", *fields, "", ""]).encode() + body


def long_way(request: bytes) -> bytes:
    """The same request, as only aiohttp takes it."""
    return request.replace(b"\r\n", b"\r\n" + SECOND.encode(), 1)


def asking(room: RoomKeys, **wishes: Any) -> bytes:
    """Who brings the password."""
    return json.dumps({"roomCode": room.code, "password": ROOM_PASSWORD, **wishes}).encode()


async def answers(server: ServerProcess, sent: bytes, count: int = 1) -> list[dict[str, Any]]:
    """The answers to what is sent over a connection: status, headers and body, and if it ended."""
    found: list[dict[str, Any]] = []
    async with Hostile.open(server) as hostile:
        hostile.send(sent)
        for _ in range(count):
            head = (await asyncio.wait_for(hostile.reader.readuntil(b"\r\n\r\n"), 60)).decode()
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            fields = sorted(
                (name, value) for name, _, value in (line.partition(": ") for line in lines)
            )
            length = int(dict(fields)["Content-Length"])
            body = json.loads(await hostile.reader.readexactly(length))
            found.append({"first": first, "fields": fields, "body": body})
    return found


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what another answer has differently, though nothing is different."""
    fields = []
    for name, value in answer["fields"]:
        if name == "Date":
            assert value.endswith(" GMT")
            value = ""
        elif name == "RateLimit":  # the other way counted, too
            value = value.partition(";r=")[0]
        fields.append((name, value))
    body = dict(answer["body"])
    if "roomToken" in body:
        body["roomToken"] = body["roomToken"].count(".")
    return {"first": answer["first"], "fields": fields, "body": body}


async def test_both_ways_give_the_same_answers(server: ServerProcess, room: RoomKeys) -> None:
    body = asking(room)
    right = {
        "plain": post(body),
        "by its id": post(asking(room, roomCode=room.id)),
        "in small letters": post(asking(room, roomCode=room.code.lower())),
        "with a name": post(asking(room, nickname="Zoë", more=[1])),
        "of our page": post(body, "Origin: http://x", "Referer: http://x/listen", "Cookie: a=b"),
        "of a named page": post(body, f"Origin: {NAMED}"),
        "of another page": post(body, "Origin: https://evil.example"),
        "of a strange page": post(body, "Origin: http://[::1"),
        "through a proxy": post(body, "X-Forwarded-For: 203.0.113.9, 198.51.100.1"),
        "staying": post(body, "Connection: keep-alive"),
        "with a charset": post(body, kind="application/json; charset=utf-8"),
        "leaving": post(body, "Connection: close"),
    }
    wrong = {
        "password": (401, post(asking(room, password="wrong"))),
        "no password": (401, post(asking(room, password=None))),
        "an empty password": (400, post(asking(room, password=""))),
        "a password over 72 bytes": (400, post(asking(room, password="x" * 73))),
        "a name of two lines": (400, post(asking(room, nickname="a\nb"))),
        "a NUL": (400, post(asking(room, nickname="a\0b"))),
        "no room": (400, post(b"{}")),
        "no JSON": (400, post(body[:-1])),
        "half a surrogate": (400, post(body.replace(ROOM_PASSWORD.encode(), b"\\ud800"))),
        "no body": (400, post(b"")),
        "another kind": (415, post(body, kind="text/plain")),
        "a token that is none": (401, post(body, "Authorization: Bearer x")),
    }
    requests = {name: (200, request) for name, request in right.items()} | wrong
    for name, (status, request) in requests.items():
        [short] = await answers(server, request)
        [long] = await answers(server, long_way(request))
        assert short["first"].split()[1] == str(status), name
        assert comparable(short) == comparable(long), name


async def test_the_plain_request_is_answered_without_aiohttp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_on: list[bytes] = []
    pass_on = HttpConnection._pass_on

    def counted(connection: HttpConnection, data: bytes) -> None:
        passed_on.append(data)
        pass_on(connection, data)

    monkeypatch.setattr(HttpConnection, "_pass_on", counted)
    with AccountFile(tmp_path) as accounts:
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))
        accounts.add_account("engineer@example.org", hashed, "user")
    server = Server(
        Settings(port=0, data_dir=tmp_path, bcrypt_rounds=4, database_url=SecretStr("none"))
    )
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            api = Api(server.urls[0], session)
            room = await api.create_room((await api.login())["accessToken"])
        passed_on.clear()
        address = urlsplit(server.urls[0])
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for request in (post(asking(room)), long_way(post(asking(room)))):
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert head.startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
        writer.close()
    finally:
        await server.stop()
    assert b"".join(passed_on) == long_way(post(asking(room)))


async def test_both_ways_count_alike(server: ServerProcess, room: RoomKeys) -> None:
    request = post(asking(room), "X-Forwarded-For: 192.0.2.77")
    left = []
    for sent in (request, long_way(request), request, request, long_way(request)):
        [answer] = await answers(server, sent)
        limits = [value for name, value in answer["fields"] if name == "RateLimit"]
        left.append([int(limit.split("r=")[1].split(";")[0]) for limit in sorted(limits)])
    failures, joins = zip(*left, strict=True)
    assert failures == (10,) * 5
    assert joins == tuple(range(joins[0], joins[0] - 5, -1))


async def test_who_failed_too_often_is_refused_with_the_right_password_too(
    server: ServerProcess, room: RoomKeys
) -> None:
    forwarded = "X-Forwarded-For: 192.0.2.78"
    for _ in range(10):
        [answer] = await answers(server, post(asking(room, password="wrong"), forwarded))
        assert answer["body"]["code"] == "invalid_credentials"
    [answer] = await answers(server, post(asking(room), forwarded))
    assert answer["body"]["code"] == "rate_limited"
    [answer] = await answers(server, post(asking(room)))
    assert "roomToken" in answer["body"]


async def test_a_room_that_is_full_or_closed_lets_nobody_in(
    api: Api, server: ServerProcess
) -> None:
    token = (await api.login())["accessToken"]
    room = await api.create_room(token, maxListeners=1)
    async with api.listener(room):
        [answer] = await answers(server, post(asking(room)))
        assert answer["body"]["code"] == "room_full"
    path = f"/api/broadcaster/rooms/{room.id}"
    assert (await api.call("DELETE", path, token=token)).status == 204
    [answer] = await answers(server, post(asking(room)))
    assert answer["body"]["code"] == "invalid_credentials"


async def test_a_password_that_was_changed_opens_nothing(api: Api, server: ServerProcess) -> None:
    token = (await api.login())["accessToken"]
    room = await api.create_room(token)
    [answer] = await answers(server, post(asking(room)))
    assert "roomToken" in answer["body"]
    path = f"/api/broadcaster/rooms/{room.id}/password"
    changed = {"password": "another", "dropListeners": False}
    assert (await api.call("POST", path, token=token, json=changed)).status in (200, 204)
    [answer] = await answers(server, post(asking(room)))
    assert answer["body"]["code"] == "invalid_credentials"
    [answer] = await answers(server, post(asking(room, password="another")))
    assert "roomToken" in answer["body"]


async def test_many_requests_at_once_are_answered_in_their_order(
    server: ServerProcess, room: RoomKeys
) -> None:
    right, wrong = post(asking(room)), post(b"[]")
    health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = (right, right, long_way(right), health, right, wrong, right, health, health, right)
    found = await answers(server, b"".join(sent), len(sent))
    kinds = [
        right if "roomToken" in body else wrong if "code" in body else health
        for body in (answer["body"] for answer in found)
    ]
    assert kinds == [health if one is health else wrong if one is wrong else right for one in sent]


async def test_a_websocket_may_follow_on_the_same_connection(
    server: ServerProcess, room: RoomKeys
) -> None:
    async with Hostile.open(server) as hostile:
        hostile.send(post(asking(room)) + upgrade())
        assert (await hostile.reply()).status == 200
        assert await hostile.head() == 101
        await hostile.text("config")


async def test_a_length_that_is_not_that_of_the_body_decides_where_the_request_ends(
    server: ServerProcess, room: RoomKeys
) -> None:
    body = asking(room)
    async with Hostile.open(server) as hostile:  # the rest of the body begins another request
        hostile.send(post(body, length=len(body) - 1))
        assert (await hostile.reply()).code == "invalid_request"
        assert (await hostile.reply()).code == "invalid_request"
    async with Hostile.open(server) as hostile:
        hostile.send(post(body, length=len(body) + 1))
        hostile.send(b" ")
        assert (await hostile.reply()).status == 200


async def test_joins_are_counted_as_requests_whichever_way_they_come(
    api: Api, server: ServerProcess, room: RoomKeys
) -> None:
    async def count() -> float:
        text = (await api.call("GET", "/metrics", token=token)).body
        series = (
            'roomserver_http_requests_total{method="POST",route="/auth/room/join",status="200"}'
        )
        found = [line.split()[-1] for line in text.splitlines() if line.startswith(series)]
        return float(found[0]) if found else 0.0

    server.add_user("admin@example.org", admin=True)
    token = (await api.login("admin@example.org"))["accessToken"]
    before = await count()
    await answers(server, post(asking(room)))
    await answers(server, long_way(post(asking(room))))
    assert await count() - before == 2
