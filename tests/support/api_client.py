"""A test's client of a running server: REST calls as they are, and sockets message by message."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from support.peer import Closed, Frame, source_packet
from support.server import PASSWORD

TIMEOUT_S = 60.0
ROOM_PASSWORD = "let me in"


@dataclass
class Answer:
    """Status, headers and JSON body of an HTTP answer."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class RoomKeys:
    """A room that was made, with a broadcaster's token."""

    id: str
    code: str
    token: str


@dataclass
class Socket:
    """A WebSocket of the server; every message is kept in `seen`, in order."""

    ws: aiohttp.ClientWebSocketResponse
    seen: list[dict[str, Any] | Frame | Closed] = field(default_factory=list)

    async def say(self, kind: str, **fields: Any) -> None:
        """Sends a text message."""
        await self.ws.send_str(json.dumps({"type": kind, **fields}))

    async def next(self) -> dict[str, Any] | Frame | Closed:
        """The next message, or how the connection was closed."""
        message = await self.ws.receive(TIMEOUT_S)
        result: dict[str, Any] | Frame | Closed
        if message.type is aiohttp.WSMsgType.TEXT:
            result = json.loads(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            result = Frame.parse(message.data)
        else:
            result = Closed(self.ws.close_code or 1006, str(message.extra or ""))
        self.seen.append(result)
        return result

    async def until(self, *kinds: str) -> dict[str, Any]:
        """The next text message of one of these types; what comes before is passed over."""
        while True:
            message = await self.next()
            if isinstance(message, Closed):
                raise AssertionError(f"closed with {message}; seen: {self.texts()}")
            if isinstance(message, dict) and message["type"] in kinds:
                return message

    async def frames(self, count: int) -> list[Frame]:
        """The next frames; texts between them are passed over."""
        frames: list[Frame] = []
        while len(frames) < count:
            message = await self.next()
            if isinstance(message, Closed):
                raise AssertionError(f"closed with {message}; seen: {self.texts()}")
            if isinstance(message, Frame) and message.kind == 2:
                frames.append(message)
        return frames

    async def closed(self) -> Closed:
        """Waits for the end; how it was closed."""
        while True:
            message = await self.next()
            if isinstance(message, Closed):
                return message

    def texts(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The text messages seen so far, of one type or all."""
        return [m for m in self.seen if isinstance(m, dict) and kind in (None, m["type"])]

    async def play(
        self,
        samples: NDArray[Any],
        *,
        rate: int,
        timestamp: int = 0,
        packet: int | None = None,
        sequence: int = 0,
    ) -> int:
        """Sends samples [channels, n] in real time; the timestamp after the last one."""
        packet = packet or rate // 50
        loop = asyncio.get_running_loop()
        start = loop.time()
        for at in range(0, samples.shape[1], packet):
            await asyncio.sleep(max(0.0, start + at / rate - loop.time()))
            piece = samples[:, at : at + packet]
            await self.ws.send_bytes(source_packet(piece, timestamp + at, sequence=sequence))
            sequence += 1
        return timestamp + int(samples.shape[1])


@dataclass
class Api:
    """REST calls of one server."""

    url: str
    session: aiohttp.ClientSession
    ssl: ssl.SSLContext | bool = True

    async def call(
        self, method: str, path: str, *, token: str | None = None, **options: Any
    ) -> Answer:
        """One request; `json=` or `data=` is its body."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self.session.request(
            method, self.url + path, headers=headers, ssl=self.ssl, **options
        ) as response:
            text = await response.text()
            is_json = "json" in response.content_type
            body = json.loads(text) if is_json and text else text
            return Answer(response.status, dict(response.headers), body)

    async def login(
        self, email: str = "engineer@example.org", password: str = PASSWORD
    ) -> dict[str, str]:
        """Access and refresh token of an account."""
        answer = await self.call(
            "POST", "/auth/broadcaster", json={"email": email, "password": password}
        )
        assert answer.status == 200, answer
        tokens: dict[str, str] = answer.body
        return tokens

    async def create_room(self, access_token: str, **wishes: Any) -> RoomKeys:
        """A new room."""
        answer = await self.call(
            "POST",
            "/auth/room/create",
            token=access_token,
            json={"password": ROOM_PASSWORD, **wishes},
        )
        assert answer.status == 201, answer
        body = answer.body
        return RoomKeys(body["roomId"], body["roomCode"], body["roomToken"])

    async def join(self, room: str, password: str = ROOM_PASSWORD, **wishes: Any) -> str:
        """A listener's token."""
        answer = await self.call(
            "POST",
            "/auth/room/join",
            json={"roomCode": room, "password": password, **wishes},
        )
        assert answer.status == 200, answer
        return str(answer.body["roomToken"])

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[Socket]:
        """A WebSocket that has been greeted."""
        async with self.session.ws_connect(
            self.url + "/ws", ssl=self.ssl, max_msg_size=0, **options
        ) as ws:
            socket = Socket(ws)
            config = await socket.next()
            assert isinstance(config, dict)
            assert config["type"] == "config"
            yield socket

    @asynccontextmanager
    async def listener(self, room: RoomKeys, **wishes: Any) -> AsyncIterator[Socket]:
        """A WebSocket that is registered as a listener."""
        token = await self.join(room.code)
        async with self.socket() as socket:
            await socket.say("registerListener", roomId=room.id, roomToken=token, **wishes)
            await socket.until("listenerRegistered")
            yield socket

    @asynccontextmanager
    async def source(self, room: RoomKeys, **wishes: Any) -> AsyncIterator[Socket]:
        """A WebSocket that is registered as the source."""
        async with self.socket() as socket:
            await socket.say("registerSource", **source_wish(room, **wishes))
            await socket.until("sourceRegistered")
            yield socket


def source_wish(room: RoomKeys, **wishes: Any) -> dict[str, Any]:
    """Fields of a `registerSource`."""
    return {
        "roomId": room.id,
        "roomToken": room.token,
        "channels": 2,
        "sampleRate": 48000,
        "encoding": "pcm_s16le",
        "bufferMs": 300,  # the test itself, not the network, may be late on a busy machine
        **wishes,
    }


def noise(channels: int, samples: int, *, seed: int = 1) -> NDArray[np.int16]:
    """Loud noise, different on every channel."""
    random = np.random.default_rng(seed)
    return random.integers(-32768, 32768, (channels, samples), dtype=np.int16)
