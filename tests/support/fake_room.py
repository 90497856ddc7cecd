"""A stand-in for a server: one room over real HTTP and WebSocket, scripted by the test.

    async with FakeRoom() as room:
        room.listener_scripts.append(script)   # async def script(room, websocket): ...

Every connection of a role takes the next script of that role; the last one stays. The REST side
accepts `EMAIL` with `PASSWORD` and the room `CODE` with `ROOM_PASSWORD`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from aiohttp import WSMessage, WSMsgType, web

from roomserver.clients.wire import HEADER, Encoding, Samples

EMAIL = "engineer@example.org"
PASSWORD = "correct horse"
ROOM_PASSWORD = "hall"
CODE = "ABC234"
ROOM_ID = "0b5e4b2e-2f0a-4c73-9f3e-7d3a4d6f5a11"

Script = Callable[["FakeRoom", web.WebSocketResponse], Awaitable[None]]


def pack_frame(
    samples: Samples,
    *,
    stream: int = 1,
    sequence: int = 0,
    timestamp: int = 0,
    time_us: int = 0,
    flags: int = 0,
) -> bytes:
    """A frame as the relay sends it; `samples` has the shape (samples, channels)."""
    code = Encoding.of(samples).wire_code
    count, channels = samples.shape
    header = HEADER.pack(
        1, 2, code, flags, stream, channels, sequence % 2**32, count, timestamp, time_us
    )
    return header + np.ascontiguousarray(samples).tobytes()


class Packet:
    """A source packet as the relay reads it."""

    def __init__(self, data: bytes) -> None:
        fields = HEADER.unpack_from(data)
        assert fields[:2] == (1, 1)
        assert fields[3] == 0
        (_, _, code, _, self.first_channel, channels, self.sequence, count) = fields[:8]
        self.timestamp, self.time_us = fields[8:]
        self.arrived = time.monotonic()
        dtype = "<f4" if code else "<i2"
        self.planes = np.frombuffer(data, dtype, offset=HEADER.size).reshape(channels, count)

    @property
    def end(self) -> int:
        """The first timestamp after the packet."""
        return int(self.timestamp + self.planes.shape[1])


class FakeRoom:
    """An async context manager; `url` is where it listens."""

    def __init__(self) -> None:
        self.url = ""
        self.token = "token-1"
        self.tokens_given = 0
        self.registrations: list[dict[str, Any]] = []
        self.registered_at: list[float] = []
        self.texts: list[dict[str, Any]] = []
        self.packets: list[Packet] = []
        self.source_scripts: list[Script] = [take_all]
        self.listener_scripts: list[Script] = [send_nothing]
        self.registered_extra: dict[str, Any] = {}
        self.moved_to: str | None = None  # the room is on another server
        self._runner: web.AppRunner | None = None
        self._stream = itertools.count(1)
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._or_elsewhere])
        app.router.add_post("/auth/broadcaster", self._login)
        app.router.add_post("/auth/room/create", self._create)
        app.router.add_post("/auth/room/join", self._join)
        app.router.add_post("/api/broadcaster/rooms/{room}/token", self._token)
        app.router.add_get("/ws", self._websocket)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @web.middleware
    async def _or_elsewhere(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.moved_to is not None and "/room" in request.path:
            return refuse(421, "wrong_server", "the room is on another server", url=self.moved_to)
        response: web.StreamResponse = await handler(request)
        return response

    async def _login(self, request: web.Request) -> web.Response:
        body = await request.json()
        if (body["email"], body["password"]) != (EMAIL, PASSWORD):
            return refuse(401, "invalid_credentials", "wrong email or password")
        return web.json_response({"accessToken": "access", "refreshToken": "refresh"})

    async def _create(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer access"
        body = await request.json()
        return web.json_response(
            {
                "roomId": ROOM_ID,
                "roomCode": CODE,
                "roomToken": self._give(),
                "name": body.get("name", "Room"),
            }
        )

    async def _join(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["roomCode"] not in (CODE, ROOM_ID) or body["password"] != ROOM_PASSWORD:
            return refuse(401, "invalid_credentials", "no such room, or another password")
        return web.json_response(
            {
                "roomId": ROOM_ID,
                "roomToken": self._give(),
                "roomName": "Hall",
                "listenerCount": 0,
                "state": "active",
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer access"
        assert request.match_info["room"] in (CODE, ROOM_ID)
        return web.json_response({"roomId": ROOM_ID, "roomToken": self._give()})

    def _give(self) -> str:
        self.tokens_given += 1
        return self.token

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(max_msg_size=16 << 20)
        await websocket.prepare(request)
        await websocket.send_json({"type": "config", "protocol": 1, "serverTime": now_us()})
        registration = await websocket.receive_json()
        self.registrations.append(registration)
        self.registered_at.append(time.monotonic())
        await self._arrived()
        if self.moved_to is not None:
            await leave_for(websocket, self.moved_to)
            return websocket
        if registration["roomToken"] != self.token:
            await close_with_error(websocket, 4401, "token_expired", "the token has expired")
            return websocket
        if registration["type"] == "registerSource":
            await websocket.send_json(
                {
                    "type": "sourceRegistered",
                    "stream": next(self._stream),
                    "channels": registration["channels"],
                    "sampleRate": registration["sampleRate"],
                    "frameMs": registration["frameMs"],
                    "bufferMs": registration.get("bufferMs"),
                    "listenerCount": 0,
                }
            )
            scripts = self.source_scripts
        else:
            await websocket.send_json(
                {
                    "type": "listenerRegistered",
                    "roomId": ROOM_ID,
                    "state": "active",
                    "listenerCount": 1,
                    "mode": registration["mode"],
                }
                | self.registered_extra
            )
            scripts = self.listener_scripts
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        await script(self, websocket)
        await websocket.close()
        return websocket

    async def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Waits until a condition on what arrived holds."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(condition)

    async def _arrived(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def take(self, websocket: web.WebSocketResponse) -> bool:
        """Takes in one message of a client and answers as a server does; False at its end."""
        message = await websocket.receive()
        try:
            return await self._answer(websocket, message)
        finally:
            await self._arrived()

    async def _answer(self, websocket: web.WebSocketResponse, message: WSMessage) -> bool:
        if message.type is WSMsgType.BINARY:
            self.packets.append(Packet(message.data))
            return True
        if message.type is not WSMsgType.TEXT:
            return False
        text = json.loads(message.data)
        self.texts.append(text)
        if text["type"] == "ping":
            stamp = now_us()
            await websocket.send_json(
                {"type": "pong", "t": text["t"], "received": stamp, "sent": stamp}
            )
        elif text["type"] == "unregisterSource":
            await websocket.send_json(
                {"type": "roomSuspended", "roomId": ROOM_ID, "suspendedUntil": now_us()}
            )
        return True


def refuse(status: int, code: str, message: str, **more: str) -> web.Response:
    """A REST error."""
    problem = {"type": "about:blank", "title": "Refused", "status": status, "code": code} | more
    return web.json_response(problem | {"detail": message}, status=status)


async def close_with_error(
    websocket: web.WebSocketResponse, close_code: int, code: str, message: str
) -> None:
    """`error`, then the close that goes with it."""
    await websocket.send_json({"type": "error", "code": code, "message": message})
    await websocket.close(code=close_code)


async def leave_for(websocket: web.WebSocketResponse, url: str) -> None:
    """The room is on another server."""
    message = "the room is on another server"
    await websocket.send_json(
        {"type": "error", "code": "wrong_server", "message": message, "url": url}
    )
    await websocket.close(code=4421)


async def take_all(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
    """A script: takes what comes until the client leaves."""
    while await room.take(websocket):
        pass


async def send_nothing(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
    """A script for a room without a source."""
    await take_all(room, websocket)


def sever(websocket: web.WebSocketResponse) -> None:
    """Cuts the connection without a close frame."""
    transport = websocket._req.transport if websocket._req is not None else None
    assert transport is not None
    transport.abort()


def now_us() -> int:
    """The clock of this server."""
    return time.time_ns() // 1000
