"""The REST interface of a running server: each success and each refusal."""

from __future__ import annotations

import asyncio
import re
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from roomserver.edge.requests import BODY_TIMEOUT_S
from support.api_client import ROOM_PASSWORD, Answer, Api
from support.hostile import Hostile
from support.server import PASSWORD, ServerProcess

CODE = re.compile(r"[ABCDEFGHJKLMNPQRSTUVWXYZ23456789]{6}")


def is_problem(answer: Answer, status: int, code: str) -> None:
    """An RFC 9457 problem document with this code."""
    assert (answer.status, answer.body["code"]) == (status, code), answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["status"] == status
    assert answer.body["type"] == "about:blank"
    assert answer.body["title"]
    assert answer.body["detail"]


async def test_health(api: Api) -> None:
    answer = await api.call("GET", "/health")
    assert answer.status == 200
    assert answer.body["status"] == "ok"


async def test_what_a_client_has_to_know_is_told_to_anybody(api: Api) -> None:
    answer = await api.call("GET", "/api/server")
    assert answer.status == 200
    assert answer.body["registration"] == "closed"
    assert answer.body["maxRoomListeners"] is None or answer.body["maxRoomListeners"] > 0
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", answer.body["version"])


async def test_a_broadcaster_logs_in_in_any_case_of_the_address(api: Api) -> None:
    tokens = await api.login("Engineer@EXAMPLE.org")
    assert set(tokens) == {"accessToken", "refreshToken"}
    assert len(tokens["accessToken"].split(".")) == 3


async def test_a_wrong_password_and_an_unknown_address_look_alike(api: Api) -> None:
    answers = [
        await api.call("POST", "/auth/broadcaster", json={"email": email, "password": "wrong"})
        for email in ("engineer@example.org", "nobody@example.org")
    ]
    for answer in answers:
        is_problem(answer, 401, "invalid_credentials")
    assert answers[0].body == answers[1].body


async def test_a_password_typed_as_the_address_is_not_logged(
    api: Api, server: ServerProcess
) -> None:
    for email in ("nobody@else.example", "my-secret-phrase"):
        body = {"email": email, "password": "wrong"}
        answer = await api.call("POST", "/auth/broadcaster", json=body)
        is_problem(answer, 401, "invalid_credentials")
    failed = "login_failure"
    await asyncio.to_thread(server.wait_for_event, failed, where=lambda e: e["email"] is None)
    server.wait_for_event(failed, where=lambda e: e["email"] == "nobody@else.example")
    assert "my-secret-phrase" not in server.output()


async def test_a_room_is_made_joined_listed_and_closed(api: Api, access_token: str) -> None:
    answer = await api.call(
        "POST",
        "/auth/room/create",
        token=access_token,
        json={
            "password": ROOM_PASSWORD,
            "name": "Main stage",
            "public": True,
            "metadata": {"genre": "jazz"},
        },
    )
    assert answer.status == 201
    room = answer.body
    assert set(room) == {"roomId", "roomCode", "roomToken", "name", "persisted"}
    assert str(uuid.UUID(room["roomId"])) == room["roomId"]
    assert CODE.fullmatch(room["roomCode"])
    assert room["name"] == "Main stage"

    for name in (room["roomCode"], room["roomCode"].lower(), room["roomId"]):
        answer = await api.call(
            "POST",
            "/auth/room/join",
            json={"roomCode": name, "password": ROOM_PASSWORD, "nickname": "Ann"},
        )
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        token = answer.body.pop("roomToken")
        assert len(token.split(".")) == 3
        assert answer.body == {
            "roomId": room["roomId"],
            "roomName": "Main stage",
            "listenerCount": 0,
            "state": "waiting",
        }

    answer = await api.call("GET", "/api/rooms/public")
    listed = next(r for r in answer.body["rooms"] if r["roomId"] == room["roomId"])
    created_at = listed.pop("createdAt")
    assert created_at > 1_600_000_000_000_000
    assert listed == {
        "roomId": room["roomId"],
        "roomCode": room["roomCode"],
        "name": "Main stage",
        "state": "waiting",
        "hasBroadcaster": False,
        "live": False,
        "open": False,
        "listenerCount": 0,
        "metadata": {"genre": "jazz"},
    }

    path = f"/api/broadcaster/rooms/{room['roomCode']}"
    answer = await api.call("POST", path + "/token", token=access_token)
    assert answer.status == 200
    assert answer.body["roomId"] == room["roomId"]
    assert answer.body["expiresAt"] > created_at

    answer = await api.call("DELETE", path, token=access_token)
    assert (answer.status, answer.body) == (204, "")
    is_problem(await api.call("DELETE", path, token=access_token), 410, "room_closed")
    is_problem(
        await api.call(
            "POST",
            "/auth/room/join",
            json={"roomCode": room["roomCode"], "password": ROOM_PASSWORD},
        ),
        401,
        "invalid_credentials",
    )


async def test_a_room_is_private_and_named_after_its_code_unless_told(
    api: Api, access_token: str
) -> None:
    answer = await api.call("POST", "/auth/room/create", token=access_token, json={"password": "x"})
    assert answer.body["name"] == f"Room {answer.body['roomCode']}"
    listed = await api.call("GET", "/api/rooms/public")
    assert answer.body["roomId"] not in {room["roomId"] for room in listed.body["rooms"]}


async def test_an_unknown_room_and_a_wrong_password_look_alike(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token)
    answers = [
        await api.call("POST", "/auth/room/join", json={"roomCode": name, "password": password})
        for name, password in ((room.code, "wrong"), ("NNNNNN", ROOM_PASSWORD))
    ]
    for answer in answers:
        is_problem(answer, 401, "invalid_credentials")
    assert answers[0].body == answers[1].body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/auth/room/create"),
        ("POST", "/api/broadcaster/rooms/ABCDEF/token"),
        ("DELETE", "/api/broadcaster/rooms/ABCDEF"),
    ],
)
async def test_what_is_for_broadcasters_needs_an_access_token(
    api: Api, access_token: str, method: str, path: str
) -> None:
    answer = await api.call(method, path, json={"password": "x"})
    is_problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    is_problem(
        await api.call(method, path, token="a.b.c", json={"password": "x"}), 401, "token_invalid"
    )
    room = await api.create_room(access_token)
    is_problem(
        await api.call(method, path, token=room.token, json={"password": "x"}),
        401,
        "token_invalid",
    )


async def test_an_account_has_no_say_over_the_rooms_of_another(
    api: Api, access_token: str, server: ServerProcess
) -> None:
    room = await api.create_room(access_token)
    server.add_user("other@example.org")
    other = (await api.login("other@example.org"))["accessToken"]
    path = f"/api/broadcaster/rooms/{room.id}"
    nowhere = "/api/broadcaster/rooms/NNNNNN"
    for method, what in (("DELETE", ""), ("POST", "/token"), ("GET", "")):
        theirs = await api.call(method, path + what, token=other)
        is_problem(theirs, 404, "room_not_found")
        unknown = await api.call(method, nowhere + what, token=other)
        assert (unknown.status, unknown.body) == (theirs.status, theirs.body)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"{}", 400, "invalid_request"),
        (b'{"email":1,"password":"x"}', 400, "invalid_request"),
        (b'{"email":"a@b","password":""}', 400, "invalid_request"),
        (b'{"email":"a@b","password":"a\\u0000b"}', 400, "invalid_request"),
        (b'{"email":"a@b","password":"' + b"x" * 73 + b'"}', 400, "invalid_request"),
        (b'{"email":"a@b","password":"\xff"}', 400, "invalid_request"),
        (b'{"x":' + b"[" * 60_000, 400, "invalid_request"),
        (b'{"email":"a@b","password":"' + b"x" * 70_000 + b'"}', 413, "body_too_large"),
    ],
)
async def test_a_body_that_cannot_be_taken_is_refused(
    api: Api, body: bytes, status: int, code: str
) -> None:
    answer = await api.call(
        "POST", "/auth/broadcaster", data=body, headers={"Content-Type": "application/json"}
    )
    is_problem(answer, status, code)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes bodies longer than any buffer."""
    options = ("--max-body-bytes", str(4 << 20))
    with ServerProcess.start(tmp_path_factory.mktemp("patient"), *options) as process:
        yield process


@pytest.mark.parametrize("length", [300_000, 600_000, 768_000, 4_000_000])
async def test_a_body_of_any_length_that_may_be_is_read_to_its_end(
    patient: ServerProcess, length: int
) -> None:
    body = b'{"email":"a@b","password":"' + b"x" * length + b'"}'
    head = b"POST /auth/broadcaster HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with Hostile.open(patient) as client:
        begin = time.monotonic()
        for _ in range(2):  # and what comes behind it on the connection is another request
            client.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        for _ in range(2):
            assert await client.reply() == (400, "invalid_request", False)
        assert time.monotonic() - begin < BODY_TIMEOUT_S / 2


async def test_other_media_types_paths_and_methods_are_refused(api: Api) -> None:
    answer = await api.call("POST", "/auth/broadcaster", data=b"email=a")
    is_problem(answer, 415, "unsupported_media_type")
    is_problem(await api.call("GET", "/nowhere"), 404, "not_found")
    answer = await api.call("GET", "/auth/broadcaster")
    is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"
    async with api.session.head(api.url + "/ws") as head:
        assert (head.status, head.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "wish",
    [
        {"password": "x" * 73},
        {"password": ""},
        {"name": "x" * 121},
        {"name": "a\nb"},
        {"metadata": {"x": "y" * 20_000}},
        {"metadata": [1]},
        {"public": "yes"},
    ],
)
async def test_a_room_that_cannot_be_made_is_refused(
    api: Api, access_token: str, wish: dict[str, object]
) -> None:
    answer = await api.call(
        "POST", "/auth/room/create", token=access_token, json={"password": "x"} | wish
    )
    is_problem(answer, 400, "invalid_request")


async def test_failures_are_limited_per_account_and_per_room_and_say_when_to_return(
    tmp_path: Path,
) -> None:
    with ServerProcess.start(tmp_path) as server:
        server.add_user()
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            room = await api.create_room((await api.login())["accessToken"])
            for _ in range(5):
                wrong = {"email": "Engineer@example.org", "password": "wrong"}
                answer = await api.call("POST", "/auth/broadcaster", json=wrong)
                is_problem(answer, 401, "invalid_credentials")
            right = {"email": "engineer@example.org", "password": PASSWORD}
            answer = await api.call("POST", "/auth/broadcaster", json=right)
            is_problem(answer, 429, "rate_limited")
            assert 800 < int(answer.headers["Retry-After"]) <= 900
            answer = await api.call("POST", "/auth/broadcaster", json=right | {"email": "b@c"})
            is_problem(answer, 401, "invalid_credentials")

            for _ in range(20):
                await api.join(room.code)  # successes do not count as failures
            for number in range(10):
                name = room.code if number % 2 else room.id
                wrong = {"roomCode": name, "password": "wrong"}
                answer = await api.call("POST", "/auth/room/join", json=wrong)
                is_problem(answer, 401, "invalid_credentials")
            right = {"roomCode": room.code, "password": ROOM_PASSWORD}
            answer = await api.call("POST", "/auth/room/join", json=right)
            is_problem(answer, 429, "rate_limited")
            assert 250 < int(answer.headers["Retry-After"]) <= 300
        assert "wrong" not in server.output()
        assert PASSWORD not in server.output()


async def test_when_too_many_passwords_wait_the_answer_is_503(tmp_path: Path) -> None:
    options = ("--password-queue", "1", "--join-limit", "1000 per minute")
    with ServerProcess.start(tmp_path, *options, bcrypt_rounds=12) as server:
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)

            async def join(number: int) -> Answer:
                body = {"roomCode": "NNNNNN", "password": str(number)}
                return await api.call("POST", "/auth/room/join", json=body)

            answers = await asyncio.gather(*(join(number) for number in range(20)))
            busy = [answer for answer in answers if answer.status == 503]
            assert busy
            assert len(busy) < 20
            is_problem(busy[0], 503, "busy")
            assert busy[0].headers["Retry-After"]
        audited = [event for event in server.events if event["event"] == "request_refused"]
        assert [event["code"] for event in audited] == ["busy"] * len(busy)


async def test_what_is_not_a_websocket_handshake_is_refused(api: Api) -> None:
    answer = await api.call("GET", "/ws")
    is_problem(answer, 426, "upgrade_refused")
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "12",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = await api.call("GET", "/ws", headers=headers)
    is_problem(answer, 426, "upgrade_refused")
    assert answer.headers["Sec-WebSocket-Version"] == "13"
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "c2hvcnQ="}
    is_problem(await api.call("GET", "/ws", headers=headers), 400, "upgrade_refused")


async def test_bytes_before_the_answer_to_the_upgrade_are_refused(server: ServerProcess) -> None:
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            b"\x81\x80\0\0\0\0"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


async def test_pages_of_other_origins_may_not_connect(api: Api, server: ServerProcess) -> None:
    async with api.socket(origin=server.url):
        pass
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with api.socket(origin="https://evil.example"):
            pass
    assert caught.value.status == 403


async def test_every_refusal_is_audited_once(tmp_path: Path) -> None:
    options = ("--max-unregistered-per-address", "1", "--login-limit", "1 per hour")
    with ServerProcess.start(tmp_path, *options) as server:
        server.add_user()
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            owner = (await api.login())["accessToken"]
            room = await api.create_room(owner)
            server.add_user("other@example.org")
            other = (await api.login("other@example.org"))["accessToken"]
            path = f"/api/broadcaster/rooms/{room.id}"
            login = {"email": "a@b", "password": "wrong"}
            join = {"roomCode": room.code, "password": "wrong"}
            statuses = [
                (await api.call("DELETE", path)).status,
                (await api.call("DELETE", path, token="nonsense")).status,
                (await api.call("DELETE", path, token=other)).status,
                (await api.call("GET", "/ws", headers={"Origin": "https://evil.example"})).status,
                (await api.call("POST", "/auth/broadcaster", json=login)).status,
                (await api.call("POST", "/auth/broadcaster", json=login)).status,
                (await api.call("POST", "/auth/room/join", json=join)).status,
            ]
            async with api.socket():
                statuses.append((await api.call("GET", "/ws")).status)
            assert statuses == [401, 401, 404, 403, 401, 429, 401, 429]
    lines = [event for event in server.events if event.get("logger") == "roomserver.audit"]
    refused = [(e["event"], e["code"]) for e in lines if "path" in e]
    assert refused == [
        ("invalid_token", "unauthorized"),
        ("invalid_token", "token_invalid"),
        ("room_access_denied", "room_not_found"),
        ("request_refused", "origin_not_allowed"),
        ("login_failure", "invalid_credentials"),
        ("rate_limit_exceeded", "rate_limited"),
        ("room_access_denied", "invalid_credentials"),
        ("rate_limit_exceeded", "too_many_connections"),
    ]
    assert not [e for e in lines if "path" not in e and not e["event"].endswith(("ss", "created"))]
    assert all(e["address"] == "127.0.0.1" for e in lines)
