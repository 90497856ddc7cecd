"""For tests with hostile clients: connections byte by byte, and a room that must not notice."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp

from support.api_client import Api, RoomKeys, noise, source_wish
from support.peer import CLOSE, HEADER, TEXT, Closed, Frame, Peer, mask
from support.server import ServerProcess

TIMEOUT_S = 60.0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
RATE = 48_000
FRAME = 960
PING_TEXT = b'{"type":"ping","t":1}'
PACKETS_PER_S = RATE // FRAME
BUFFER_MS = 1000
SPARE_S = 0.7  # so late a packet is heard with that buffer
MAX_LATE_S = 4.0  # a listener that shares a busy machine, and Python, with hostile clients
OWN_LATE_S = 0.5  # so late is whoever gets no time at all

T = TypeVar("T")


async def make_room(server: ServerProcess) -> tuple[RoomKeys, str]:
    """A new room and the token of one who listens there."""
    async with aiohttp.ClientSession() as session:
        api = Api(server.url, session)
        room = await api.create_room((await api.login())["accessToken"])
        return room, await api.join(room.code)


async def all_of(cases: Mapping[str, Awaitable[T]]) -> dict[str, T]:
    """Every case at once."""
    return dict(zip(cases, await asyncio.gather(*cases.values()), strict=True))


def upgrade(**headers: str | None) -> bytes:
    """A handshake; a header that is None is left out, and `_` in names stands for a hyphen."""
    fields: dict[str, str | None] = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join(["GET /ws HTTP/1.1", *lines, "", ""]).encode("latin-1")


def with_line(line: str) -> bytes:
    """A handshake with another header line."""
    return upgrade().replace(b"\r\n\r\n", b"\r\n" + line.encode("latin-1") + b"\r\n\r\n")


def of_length(length: int) -> bytes:
    """A handshake of so many bytes."""
    shorter = upgrade(X="", Y="b" * 8000, Z="c" * 7000)
    return shorter.replace(b"X: ", b"X: " + b"a" * (length - len(shorter)))


def raw(first: int, length: bytes, payload: bytes = b"", *, masked: bool = True) -> bytes:
    """A frame from its parts, masked with zeros: `length` is the 7 bits and what extends them."""
    bit = 0x80 if masked else 0
    return bytes([first, bit | length[0]]) + length[1:] + bytes(4 if masked else 0) + payload


def packet(payload: bytes | None = None, **fields: int) -> bytes:
    """A packet for two channels, ten samples each, with these header fields."""
    header = {
        "version": 1, "kind": 1, "encoding": 0, "flags": 0, "first": 0, "channels": 2,
        "sequence": 0, "samples": 10, "timestamp": 0, "time_us": 0,
    } | fields  # fmt: skip
    return HEADER.pack(*header.values()) + (bytes(40) if payload is None else payload)


def closing(code: int, reason: bytes = b"") -> bytes:
    """A close frame."""
    return mask(CLOSE, struct.pack(">H", code) + reason)


class Reply(NamedTuple):
    """An HTTP answer. `code` is that of a problem document, and `over` that nothing follows it."""

    status: int
    code: str
    over: bool


@dataclass
class Hostile:
    """A connection that sends any bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    @asynccontextmanager
    async def open(cls, server: ServerProcess) -> AsyncIterator[Self]:
        """A connection to the server's port."""
        address = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    @classmethod
    @asynccontextmanager
    async def upgraded(
        cls, server: ServerProcess, register: dict[str, Any] | None = None
    ) -> AsyncIterator[Self]:
        """A WebSocket, registered if it is to be."""
        async with cls.open(server) as hostile:
            hostile.send(upgrade())
            assert await hostile.head() == 101
            await hostile.text("config")
            if register is not None:
                hostile.send(mask(TEXT, json.dumps(register).encode()))
                await hostile.text("sourceRegistered", "listenerRegistered")
            yield hostile

    def send(self, data: bytes) -> None:
        """Sends at once, as far as the socket takes it; the rest follows by itself."""
        self.writer.write(data)

    async def trickle(self, data: bytes, every_s: float) -> None:
        """A byte at a time, for as long as the other side takes them."""
        for at in range(len(data)):
            if self.writer.is_closing():
                return
            self.writer.write(data[at : at + 1])
            await asyncio.sleep(every_s)

    async def head(self) -> int:
        """The status of the answer, whose head is read."""
        head = await self._within(self.reader.readuntil(b"\r\n\r\n"))
        assert b"sec-websocket-extensions" not in head.lower(), "no extension is ever agreed to"
        assert b"sec-websocket-protocol" not in head.lower()
        return int(head.split()[1])

    async def reply(self) -> Reply:
        """An HTTP answer, and whether the connection is over then (or goes on, after a moment)."""
        head = await self._within(self.reader.readuntil(b"\r\n\r\n"))
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        body = await self._within(self.reader.readexactly(int(fields[b"Content-Length"])))
        over = b"close" in fields.get(b"Connection", b"") or head.startswith(b"HTTP/1.0")
        if over:
            assert await self.rest() == b""
        is_problem = fields[b"Content-Type"] == b"application/problem+json"
        return Reply(int(head.split()[1]), json.loads(body)["code"] if is_problem else "", over)

    async def rest(self) -> bytes:
        """All that still comes; a reset is an end like any other."""
        try:
            return await self._within(self.reader.read())
        except ConnectionError:
            return b""

    async def frame(self) -> tuple[int, bytes]:
        """The next WebSocket frame: opcode and payload."""
        first, second = await self._within(self.reader.readexactly(2))
        assert first & 0xF0 == 0x80
        n = second
        if n == 126:
            (n,) = struct.unpack(">H", await self._within(self.reader.readexactly(2)))
        elif n == 127:
            (n,) = struct.unpack(">Q", await self._within(self.reader.readexactly(8)))
        return first & 15, await self._within(self.reader.readexactly(n))

    async def text(self, *kinds: str) -> dict[str, Any]:
        """The next text of one of these types."""
        while True:
            opcode, payload = await self.frame()
            assert opcode != CLOSE, payload
            if opcode == TEXT:
                message: dict[str, Any] = json.loads(payload)
                if message["type"] in kinds:
                    return message

    async def closed(self) -> int:
        """The code of the close frame, 1006 if there is none; then the connection ends."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006
        self.send(mask(CLOSE, payload[:2]))
        assert await self.rest() == b""
        return int.from_bytes(payload[:2], "big")

    @staticmethod
    async def _within(read: Any) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            data: bytes = await read
        return data


def websocket_peer(server: ServerProcess, registration: dict[str, Any] | None = None) -> Peer:
    """A blocking client of the server, registered if it is to be."""
    address = urlsplit(server.url)
    assert address.hostname is not None
    assert address.port is not None
    sock = socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S)
    sock.sendall(upgrade())
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # no byte of what follows
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    peer = Peer(sock, connection=0)
    if registration is None:
        peer.next_text("config")
    else:
        peer.send_json(**registration)
        peer.next_text(registration["type"].removeprefix("register").lower() + "Registered")
    return peer


@dataclass
class Bystanders:
    """A source that plays, and a listener that hears each frame, in threads of their own.

    The listener judges all it hears to the end: that no frame is missing, none late, and each as it
    was sent. Where this process got no time to send or to listen, that alone is let pass.
    """

    room: RoomKeys
    token: str  # a listener's
    source: Peer
    listener: Peer
    frames: int = 0
    failure: str = ""
    _late_s: list[float] = field(default_factory=list)  # by packet: how late it was sent
    _first: Frame | None = None
    _last: Frame | None = None
    _prompt_s: float = math.inf  # from deadline to arrival at best, + constant
    _stop: threading.Event = field(default_factory=threading.Event)
    _came: threading.Condition = field(default_factory=threading.Condition)

    @classmethod
    @contextmanager
    def in_room(cls, server: ServerProcess, room: RoomKeys, token: str) -> Iterator[Self]:
        """Both, until the end of the block."""
        register = {"type": "registerListener", "roomId": room.id, "roomToken": token}
        listener = websocket_peer(server, register)
        wish = source_wish(room, bufferMs=BUFFER_MS)
        source = websocket_peer(server, {"type": "registerSource", **wish})
        bystanders = cls(room, token, source, listener)
        threads = [
            threading.Thread(target=run, daemon=True)
            for run in (bystanders._play, bystanders._hear, bystanders._answer_pings)
        ]
        for thread in threads:
            thread.start()
        try:
            bystanders.check()
            yield bystanders
        finally:
            bystanders._stop.set()
            threads[0].join()
            for peer in (source, listener):
                peer.sock.shutdown(2)
            for thread in threads[1:]:
                thread.join()
            for peer in (source, listener):
                peer.close()

    def check(self) -> None:
        """Waits for another frame; fails if any so far was missing, late, or not as it was sent."""
        with self._came:
            seen = self.frames
            assert self._came.wait_for(lambda: self.failure or self.frames > seen, TIMEOUT_S)
            assert not self.failure, self.failure

    def _play(self) -> None:
        begin = time.monotonic()
        at = 0
        while not self._stop.wait(max(0.0, begin + at / RATE - time.monotonic())):
            self._late_s.append(time.monotonic() - begin - at / RATE)
            place = at % LOOP.shape[1]
            self.source.send_packet(LOOP[:, place : place + FRAME], at, sequence=at // FRAME)
            at += FRAME

    def _answer_pings(self) -> None:
        while not self._stop.is_set() and not isinstance(self.source.receive(), Closed):
            pass

    def _hear(self) -> None:
        while not self._stop.is_set():
            try:
                message = self.listener.receive()
                problem = self._judge(message) if isinstance(message, Frame) else ""
                if isinstance(message, Closed):
                    problem = f"the listener was closed: {message}"
            except Exception as error:
                problem = repr(error)
            with self._came:
                if not self._stop.is_set():
                    self.failure = self.failure or problem
                self.frames += isinstance(message, Frame)
                self._came.notify_all()
            if problem:
                return

    def _judge(self, frame: Frame) -> str:
        """What is wrong with the frame that came."""
        last, self._last = self._last, frame
        if last is None:
            self._first = frame  # it plays what was sent first
        elif frame.sequence != last.sequence + 1:
            return f"frame {last.sequence} was followed by {frame.sequence}"
        assert self._first is not None
        took_s = frame.received_s - frame.time_us / 1e6
        self._prompt_s = min(self._prompt_s, took_s)
        late_s = took_s - self._prompt_s
        if late_s > MAX_LATE_S and max(self._late_s[-PACKETS_PER_S:]) < OWN_LATE_S:
            return f"frame {frame.sequence} came {late_s:.2f} s late"
        at = frame.timestamp - self._first.timestamp
        if last is not None and (frame.flags or frame.timestamp != last.timestamp + FRAME):
            packet = at // FRAME
            around = self._late_s[max(0, packet - PACKETS_PER_S) : packet + PACKETS_PER_S]
            if max(around) > SPARE_S:
                return ""
            return f"frame {frame.sequence} has flags {frame.flags} at {frame.timestamp}"
        place = at % LOOP.shape[1]
        same = (frame.data == LOOP.T[place : place + FRAME]).all()
        return "" if same else f"frame {frame.sequence} is not what was sent"


LOOP = noise(2, RATE, seed=7)  # played over and over


class Memory(NamedTuple):
    """Of the server, in bytes."""

    resident: int
    data: int  # what it has asked for, touched or not

    @classmethod
    def of(cls, server: ServerProcess) -> Self:
        """As of now."""
        status = Path(f"/proc/{server.pid}/status").read_text()
        sizes = dict(line.split(":", 1) for line in status.splitlines())
        return cls(*(int(sizes[name].split()[0]) << 10 for name in ("VmRSS", "VmData")))

    def since(self, before: Memory) -> int:
        """By how much either grew."""
        return max(self.resident - before.resident, self.data - before.data)


def unread(server: ServerProcess) -> int:
    """Bytes on their way into the server's TCP connections that it has not read."""
    port = urlsplit(server.url).port
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        sending, receiving = (int(part, 16) for part in queues.split(":"))
        waiting += receiving if int(local.split(":")[1], 16) == port else 0
        waiting += sending if int(remote.split(":")[1], 16) == port else 0
    return waiting


async def wait_until_read(server: ServerProcess) -> None:
    """Until the server has read what was sent to it, but for some packets of a source."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            if unread(server) < 20_000:
                return
            await asyncio.sleep(0.003)
