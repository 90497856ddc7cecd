"""A WebSocket peer of a `Relay`, byte by byte: what a test needs to see the wire as it is."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from relaycore import Relay
from relaycore.events import Event

TIMEOUT_S = 30.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HEADER = struct.Struct("<BBBBHHIIQQ")
ENCODINGS = {"pcm_s16le": (0, np.dtype("<i2")), "pcm_f32le": (1, np.dtype("<f4"))}

E = TypeVar("E")


class Closed(NamedTuple):
    """The close frame of the other side; code 1006 when there was none."""

    code: int
    detail: str


@dataclass(frozen=True)
class Frame:
    """A frame (kind 2) or levels (kind 3) as it came."""

    kind: int
    encoding: int
    flags: int
    stream: int
    channels: int
    sequence: int
    samples: int
    timestamp: int
    time_us: int
    data: NDArray[Any]  # [samples, channels], or [channels, 2] of levels
    received_s: float

    @classmethod
    def parse(cls, message: bytes) -> Self:
        _, kind, encoding, flags, stream, channels, sequence, samples, timestamp, time_us = (
            HEADER.unpack_from(message)
        )
        dtype = np.dtype("<f4") if encoding == 1 else np.dtype("<i2")
        data = np.frombuffer(message, dtype, offset=HEADER.size)
        shape = (channels, 2) if kind == 3 else (samples, channels)
        return cls(
            kind,
            encoding,
            flags,
            stream,
            channels,
            sequence,
            samples,
            timestamp,
            time_us,
            data.reshape(shape),
            time.monotonic(),
        )


Message = dict[str, Any] | Frame | bytes | Closed


def source_packet(
    planes: NDArray[Any],
    timestamp: int,
    *,
    first_channel: int = 0,
    sequence: int = 0,
    time_us: int = 0,
) -> bytes:
    """A source packet of planar samples [channels, n], int16 or float32."""
    planes = np.ascontiguousarray(planes)
    encoding = 0 if planes.dtype == np.int16 else 1
    channels, samples = planes.shape
    header = HEADER.pack(
        1, 1, encoding, 0, first_channel, channels, sequence, samples, timestamp, time_us
    )
    return header + planes.tobytes()


def mask(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """One client frame."""
    first = opcode | (0x80 if fin else 0)
    n = len(payload)
    if n < 126:
        head = struct.pack(">BB", first, 0x80 | n)
    elif n < 65536:
        head = struct.pack(">BBH", first, 0x80 | 126, n)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, n)
    key = os.urandom(4)
    keys = np.frombuffer((key * (n // 4 + 1))[:n], np.uint8)
    return head + key + (np.frombuffer(payload, np.uint8) ^ keys).tobytes()


@dataclass
class Peer:
    """The client's end of a connection; answers pings unless told not to."""

    sock: socket.socket
    connection: int
    answer_pings: bool = True
    buffer: bytearray = field(default_factory=bytearray)
    opened: ClassVar[list[Peer]] = []

    def __post_init__(self) -> None:
        self.opened.append(self)

    @classmethod
    def close_all(cls) -> None:
        """Closes whatever a test has left open."""
        while cls.opened:
            cls.opened.pop().close()

    @classmethod
    def attach(cls, relay: Relay, **options: Any) -> Self:
        """A new loopback connection, its server's end handed to the relay."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        client.settimeout(TIMEOUT_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(client, relay.attach(server, **options))

    @classmethod
    def connect(cls, address: tuple[str, int], registration: dict[str, Any]) -> Self:
        """A client of a server (or of a proxy before it) that has sent its registration."""
        peer = cls(socket.create_connection(address, TIMEOUT_S), 0)
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        while b"\r\n\r\n" not in peer.buffer:
            peer.buffer += peer.sock.recv(65536)
        head, _, rest = bytes(peer.buffer).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        peer.buffer[:] = rest
        peer.send_json(**registration)
        return peer

    def close(self) -> None:
        self.sock.close()

    def send(self, opcode: int, payload: bytes = b"") -> None:
        self.sock.sendall(mask(opcode, payload))

    def send_json(self, **message: Any) -> None:
        self.send(TEXT, json.dumps(message).encode())

    def send_packet(self, planes: NDArray[Any], timestamp: int, **header: Any) -> None:
        self.send(BINARY, source_packet(planes, timestamp, **header))

    def _read(self, n: int) -> bytes:
        while len(self.buffer) < n:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError
            self.buffer += chunk
        data = bytes(self.buffer[:n])
        del self.buffer[:n]
        return data

    def read_frame(self) -> tuple[int, bytes]:
        """The next WebSocket frame: opcode and payload."""
        first, second = self._read(2)
        assert first & 0xF0 == 0x80, "servers send whole messages here"
        assert second < 128, "servers do not mask"
        n = second
        if n == 126:
            (n,) = struct.unpack(">H", self._read(2))
        elif n == 127:
            (n,) = struct.unpack(">Q", self._read(8))
        return first & 15, self._read(n)

    def receive(self) -> Message:
        """The next message; a close frame is answered, and the end of the connection is one too."""
        while True:
            try:
                opcode, payload = self.read_frame()
            except (EOFError, ConnectionError):
                return Closed(1006, "")
            if opcode == PING:
                if self.answer_pings:
                    self.send(PONG, payload)
            elif opcode == CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                with contextlib.suppress(OSError):
                    self.send(CLOSE, payload[:2])
                return Closed(code, payload[2:].decode())
            elif opcode == TEXT:
                message: dict[str, Any] = json.loads(payload)
                return message
            elif opcode == BINARY:
                return Frame.parse(payload) if payload[:1] == b"\x01" else payload
            else:
                assert opcode == PONG

    def next_text(self, type_: str | None = None) -> dict[str, Any]:
        """The next text (of that type); frames before it are passed over."""
        while True:
            message = self.receive()
            assert not isinstance(message, Closed), message
            if isinstance(message, dict) and type_ in (None, message.get("type")):
                return message

    def next_frame(self, kind: int = 2) -> Frame:
        """The next frame; texts before it are passed over."""
        while True:
            message = self.receive()
            assert not isinstance(message, Closed), message
            if isinstance(message, Frame) and message.kind == kind:
                return message

    def wait_closed(self) -> Closed:
        """The end; everything before it is passed over."""
        while True:
            message = self.receive()
            if isinstance(message, Closed):
                return message

    def is_reset(self) -> bool:
        """Whether the connection ends with a reset, and not as if all had been said.

        What comes before that is passed over.
        """
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return False


class Events:
    """The events of a relay, waited for instead of slept for."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.seen: list[Event] = []

    def wait(
        self,
        kind: type[E],
        where: Callable[[E], bool] = lambda _: True,
        *,
        timeout: float = TIMEOUT_S,
    ) -> E:
        """Takes out the first event of that type for which `where` holds."""
        end = time.monotonic() + timeout
        while True:
            for i, event in enumerate(self.seen):
                if isinstance(event, kind) and where(event):
                    del self.seen[i]
                    return event
            left = end - time.monotonic()
            assert left > 0, f"no {kind.__name__} in time; seen: {self.seen}"
            select.select([self.relay.fileno()], [], [], left)
            self.seen += self.relay.poll()
