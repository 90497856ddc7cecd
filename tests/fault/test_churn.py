"""Thousands of connections that end wherever it is least convenient: nothing of them is left."""

from __future__ import annotations

import contextlib
import enum
import itertools
import json
import queue
import random
import socket
import ssl
import struct
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from roomserver.store.memory import HISTORY
from support.certificates import write_certificate
from support.peer import BINARY, CLOSE, PING, TEXT, Closed, Frame, Peer, mask, source_packet
from support.server import PASSWORD, ServerProcess

RATE = 8000
SAMPLES = 160  # a packet, and a frame of 20 ms
FRAME_BYTES = 4 + 32 + 2 * SAMPLES
RAMP = 30011  # values, after which the source's samples begin again
CONCEALED, DISCONTINUITY = 1, 2  # flags of a frame
ROOM_PASSWORD = "let me in"
TIMEOUT_S = 120.0  # for a machine with ten times as much to do
VISITORS = 12  # at once
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PACKET = mask(BINARY, source_packet(np.zeros((1, SAMPLES), np.int16), 0))
# What a listener may say: a text message, a ping, a close.
SAYINGS = (
    mask(TEXT, b'{"type":"setMix","faders":[0.5],"pans":[-1],"mutes":[false],"solos":[false]}'),
    mask(PING, b"are you there?"),
    mask(CLOSE, struct.pack(">H", 1000) + b"enough"),
)


class Stage(enum.Enum):
    """Where a visit ends."""

    TLS = "in the TLS handshake"
    REQUEST = "in the HTTP request"
    GREETING = "in what the server says first"
    REGISTRATION = "in the frame that registers"
    FRAME = "in a frame from the server"
    SAYING = "in a frame of a listener"
    PACKET = "in a packet of a source"


@dataclass(frozen=True)
class Visit:
    """One connection: how far it goes (`part` of its last stage, 0 to 1), and how it ends."""

    address: str
    stage: Stage
    part: float
    reset: bool
    saying: bytes


def visits(count: int, resets: int, stages: Sequence[Stage], *, seed: int) -> list[Visit]:
    """So many visits, so many of them ended by reset, from addresses all over 127.0.0.0/8."""
    chance = random.Random(seed)
    by_reset = set(chance.sample(range(count), resets))
    return [
        Visit(
            f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}.{chance.randrange(1, 255)}",
            chance.choice(stages),
            chance.random(),
            number in by_reset,
            chance.choice(SAYINGS),
        )
        for number in range(count)
    ]


@dataclass(frozen=True)
class Keys:
    """A room, and what registers there."""

    code: str
    source: bytes
    listener: bytes


@dataclass
class Venue:
    """A running server and how to get in."""

    server: ServerProcess
    context: ssl.SSLContext | None = None
    greeting_bytes: int = 0

    def call(self, path: str, body: Any = None, token: str = "") -> Any:
        """One REST call."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self.context) as answer:
            return json.load(answer)

    def rooms(self, count: int) -> list[Keys]:
        """New rooms."""
        login = {"email": "engineer@example.org", "password": PASSWORD}
        token = self.call("/auth/broadcaster", login)["accessToken"]
        return [self._room(token) for _ in range(count)]

    def _room(self, token: str) -> Keys:
        room = self.call("/auth/room/create", {"password": ROOM_PASSWORD}, token)
        heard = self.call(
            "/auth/room/join", {"roomCode": room["roomCode"], "password": ROOM_PASSWORD}
        )
        source = {
            "type": "registerSource",
            "roomId": room["roomId"],
            "roomToken": room["roomToken"],
            "channels": 1,
            "sampleRate": RATE,
            "encoding": "pcm_s16le",
            "bufferMs": 1000,  # the test itself may be late on a busy machine
        }
        listener = {
            "type": "registerListener",
            "roomId": room["roomId"],
            "roomToken": heard["roomToken"],
        }
        return Keys(room["roomCode"], json.dumps(source).encode(), json.dumps(listener).encode())

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        """A TCP connection."""
        at = urlsplit(self.server.url)
        assert at.hostname
        sock = socket.create_connection((at.hostname, at.port), TIMEOUT_S, (address, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def secure(self, sock: socket.socket) -> socket.socket:
        """The same connection with TLS, where the server speaks it."""
        if self.context is None:
            return sock
        return self.context.wrap_socket(sock, server_hostname="127.0.0.1")

    def measure_greeting(self) -> None:
        """How many bytes the server says first: the answer to the upgrade, and `config`."""
        with self.secure(self.connect()) as sock:
            sock.sendall(REQUEST)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += exactly(sock, 1)
            assert head.startswith(b"HTTP/1.1 101")
            opcode, length = frame_head(sock)
            assert opcode == TEXT
            self.greeting_bytes = len(head) + (2 if length < 126 else 4) + length

    @contextlib.contextmanager
    def peer(self, register: bytes, answer: str) -> Iterator[Peer]:
        """A registered connection that stays."""
        with self.secure(self.connect()) as sock:
            sock.sendall(REQUEST)
            exactly(sock, self.greeting_bytes)
            peer = Peer(sock, 0)
            peer.send(TEXT, register)
            peer.next_text(answer)
            yield peer


def exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes and not one more."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"the server closed after {data!r}"
        data += piece
    return data


def frame_head(sock: socket.socket) -> tuple[int, int]:
    """The header of a server's frame: opcode and length."""
    first, second = exactly(sock, 2)
    length = second if second < 126 else int.from_bytes(exactly(sock, 2))
    return first & 15, length


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def pay(venue: Venue, visit: Visit, hall: Keys, stage: Keys) -> None:
    """Makes one visit: a listener in the hall, or a source of the room `stage`."""

    def part_of(whole: bytes, *, least: int = 0) -> bytes:
        return whole[: least + round(visit.part * (len(whole) - least))]

    sock = venue.connect(visit.address)
    try:
        if visit.stage is Stage.TLS:
            assert venue.context is not None
            return sock.sendall(part_of(client_hello(venue.context)))
        sock = venue.secure(sock)
        if visit.stage is Stage.REQUEST:
            return sock.sendall(part_of(REQUEST))
        sock.sendall(REQUEST)
        if visit.stage is Stage.GREETING:
            exactly(sock, round(visit.part * venue.greeting_bytes))
            return None
        exactly(sock, venue.greeting_bytes)
        who = stage.source if visit.stage is Stage.PACKET else hall.listener
        registration = mask(TEXT, who)
        if visit.stage is Stage.REGISTRATION:
            return sock.sendall(part_of(registration, least=1))
        sock.sendall(registration)
        opcode, length = frame_head(sock)
        answer = json.loads(exactly(sock, length)) if opcode == TEXT else {}
        assert answer.get("type") in ("listenerRegistered", "sourceRegistered"), answer
        if visit.stage is Stage.FRAME:
            while opcode != BINARY:
                opcode, length = frame_head(sock)
                if opcode != BINARY:
                    exactly(sock, length)
            exactly(sock, round(visit.part * length))
        elif visit.stage is Stage.SAYING:
            sock.sendall(part_of(visit.saying, least=1))
        else:
            sock.sendall(PACKET + part_of(PACKET, least=1))
    finally:
        if visit.reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    return None


def pay_all(venue: Venue, all_visits: Sequence[Visit], hall: Keys, stages: Sequence[Keys]) -> None:
    """Makes the visits, some at once, each visitor with a room of its own to be a source in."""
    todo = queue.SimpleQueue[Visit]()
    for visit in all_visits:
        todo.put(visit)

    def visitor(stage: Keys) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                visit = todo.get_nowait()
                try:
                    pay(venue, visit, hall, stage)
                except Exception as error:
                    raise AssertionError(f"{visit} failed") from error

    with ThreadPoolExecutor(len(stages)) as pool:
        for done in [pool.submit(visitor, stage) for stage in stages]:
            done.result()


def ramp(first: int, count: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """The source's samples from number `first` on: each tells where it belongs."""
    return (np.arange(first, first + count) % RAMP + 1).astype(np.int16)


@dataclass
class Flow:
    """A broadcast in real time and a listener that hears all of it, each in a thread."""

    frames: list[Frame] = field(default_factory=list)
    other: list[object] = field(default_factory=list)
    sent: int = 0  # samples
    stopping: threading.Event = field(default_factory=threading.Event)

    def play(self, peer: Peer) -> None:
        """Broadcasts until told to stop."""
        peer.sock.setblocking(True)
        start = time.monotonic()
        while not self.stopping.wait(max(0.0, start + self.sent / RATE - time.monotonic())):
            peer.send_packet(ramp(self.sent, SAMPLES)[None, :], self.sent)
            self.sent += SAMPLES

    def hear(self, peer: Peer) -> None:
        """Listens until the source has left."""
        while True:
            message = peer.receive()
            if isinstance(message, Frame):
                self.frames.append(message)
            else:
                self.other.append(message)
            if isinstance(message, Closed):
                return
            if isinstance(message, dict) and message["type"] == "roomSuspended":
                return

    def wait_for(self, frames: int) -> None:
        """Waits until so many frames more were heard."""
        enough = len(self.frames) + frames
        wait_until(lambda: len(self.frames) >= enough, "frames")

    def check(self) -> None:
        """No frame is missing, and no sample is another than the source sent."""
        sequences = [frame.sequence for frame in self.frames]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        assert not any(isinstance(message, Closed) for message in self.other), self.other
        # Where the source's samples lie on the timeline. A source that comes late on a busy machine
        # is anchored anew, and only a frame that is marked as a discontinuity may do that.
        offset: int | None = None
        whole = 0
        for frame in self.frames:
            if frame.flags & DISCONTINUITY:
                offset = None
            if frame.flags & CONCEALED:
                continue
            whole += 1
            position = int(frame.data[0, 0]) - 1
            np.testing.assert_array_equal(frame.data[:, 0], ramp(position, frame.samples))
            now = (frame.timestamp - position) % RAMP
            assert offset in (None, now), f"frame {frame.sequence} lies elsewhere: {frame}"
            offset = now
        assert whole


@dataclass(frozen=True)
class Holdings:
    """What a process holds: kinds of descriptors, entries of its epolls, threads."""

    descriptors: Counter[str]
    epoll_entries: int
    threads: Counter[str]

    @classmethod
    def of(cls, pid: int) -> Holdings:
        """Of a process, now."""
        root = Path(f"/proc/{pid}")
        descriptors, entries = Counter[str](), 0
        for link in (root / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                target = str(link.readlink())
                # A socket's number says nothing; the kind and a file's name do.
                descriptors["socket" if target.startswith("socket:") else target] += 1
                if target == "anon_inode:[eventpoll]":
                    info = (root / "fdinfo" / link.name).read_text()
                    entries += sum(line.startswith("tfd:") for line in info.splitlines())
        threads = Counter[str]()
        for task in (root / "task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                threads[(task / "comm").read_text().strip()] += 1
        return cls(descriptors, entries, threads)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Waits for a condition."""
    end = time.monotonic() + TIMEOUT_S
    while not ready():
        assert time.monotonic() < end, f"no {what} in {TIMEOUT_S:g} s"
        time.sleep(0.05)


def settled(venue: Venue) -> Holdings:
    """What the server holds when only the source and its listener are left."""
    wait_until(lambda: venue.call("/health")["connections"] == 2, "end of the visits")
    pid = venue.server.pid
    seen = [Holdings.of(pid)]

    def steady() -> bool:
        seen.append(Holdings.of(pid))
        return len(seen) > 10 and all(a == b for a, b in itertools.pairwise(seen[-10:]))

    wait_until(steady, "rest")
    return seen[-1]


# `growth` in bytes. Plain: 300 a visit, and the least that is left of a connection when it is
# forgotten is 700. Over TLS fewer visits are made and the allocator has not come to rest, but one
# encrypted connection holds tens of kilobytes.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("secure", "count", "resets", "growth"),
    [(False, 10_000, 1_000, 3_000_000), (True, 600, 60, 6_000_000)],
    ids=["plain", "tls"],
)
def test_of_thousands_that_come_and_go_at_any_point_nothing_is_left(
    tmp_path: Path, secure: bool, count: int, resets: int, growth: int
) -> None:
    options = ["--max-lag-ms", "60000"]  # the test's own listener may be late, not the server
    context = None
    if secure:
        chain, key = write_certificate(tmp_path, "here")
        options += ["--tls-cert", str(chain), "--tls-key", str(key)]
        context = ssl.create_default_context(cafile=str(chain))
    points = [stage for stage in Stage if secure or stage is not Stage.TLS]
    with ServerProcess.start(tmp_path / "data", *options) as server:
        server.add_user()
        venue = Venue(server, context)
        hall, *stages = venue.rooms(1 + VISITORS)
        venue.measure_greeting()
        flow = Flow()
        with (
            venue.peer(hall.listener, "listenerRegistered") as listener,
            venue.peer(hall.source, "sourceRegistered") as source,
            ThreadPoolExecutor(2) as pool,
        ):
            hearing = pool.submit(flow.hear, listener)
            playing = pool.submit(flow.play, source)
            try:
                flow.wait_for(10)
                # The server's history of stays is full after these; what is made once is made, and
                # an allocator has what it keeps.
                if not secure:
                    pay_all(venue, visits(HISTORY, 0, [Stage.SAYING], seed=0), hall, stages)
                pay_all(venue, visits(1000, 100, points, seed=1), hall, stages)
                before, memory = settled(venue), resident_bytes(server.pid)

                pay_all(venue, visits(count, resets, points, seed=2), hall, stages)
                wait_until(lambda: settled(venue) == before, f"return to {before}")

                assert resident_bytes(server.pid) - memory < growth
                flow.wait_for(50)  # and the broadcast goes on
            finally:
                flow.stopping.set()
                playing.result()
                source.send(TEXT, b'{"type":"unregisterSource"}')
                hearing.result()
        flow.check()
