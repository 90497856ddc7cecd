"""A hundred of a thousand listeners stop reading: it costs them something, and nobody else.

With large frames and with small ones, directly and behind nginx, whose sockets would take a long
time of what is sent to a listener. Source, listeners and proxy are processes of their own; where
that is allowed they are scheduled in real time, so that a machine that is busy with something else
is not taken for a server that is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from benchmarks.child import Child
from benchmarks.load import LoadClient, Target
from benchmarks.subjects import stream_options
from benchmarks.workload import Workload

from support.api_client import Api, source_wish
from support.nginx import nginx
from support.peer import PING, PONG, Frame, Peer
from support.server import ServerProcess
from support.sockets import Socket, sockets_at

LISTENERS = 900  # that go on reading
RETURNING = 50  # that read again before they are given up
LOST = 50  # that never do
READ = 30  # frames that these read before they stop
MAX_LAG_S = 1.0
PING_S = 1.0
EVICT_S = 9.0
MEASURED_S = 14.0
TIMEOUT_S = 30.0
MAX_SECONDS = 100
SLACK_S = 0.5  # of everything that the machine may be late
MAX_SOCKET_BYTES = 200_000
# What of a server's memory comes and goes. One that kept what it does not send would grow by
# 70 MB, or 7 with small frames.
MAX_GROWTH_BYTES = 4_000_000
OPTIONS = {
    "threads": 1,
    "max-lag-ms": int(1000 * MAX_LAG_S),
    "ping-interval-ms": int(1000 * PING_S),
    "evict-after-s": EVICT_S,
    "log-level": "debug",
}
WORKLOADS = {
    3872: Workload(channels=2, sample_rate=48_000, buffer_ms=500),
    352: Workload(channels=1, sample_rate=8000, buffer_ms=500),
}


def prefer(pid: int) -> None:
    """A process, or with 0 this thread, gets the processor when it needs it, if that is allowed."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


@pytest.fixture(autouse=True)
def _preferred() -> Iterator[None]:
    prefer(0)
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def wait_until(what: Callable[[], bool]) -> None:
    """Looks ten times a second."""
    end = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def unread_bytes(sock: socket.socket) -> int:
    """What has come to a socket and was not read."""
    size = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", size)[0])


class Stage:
    """A server with a room, reached at `port`, itself or the proxy before it."""

    def __init__(
        self,
        server: ServerProcess,
        port: int,
        unix_socket: Path | None,
        room: Room,
        play: list[str],
    ) -> None:
        self.server, self.port, self._room, self._play = server, port, room, play
        self._unix_socket = unix_socket

    @property
    def registration(self) -> str:
        """The text with which a listener registers."""
        return self._room.listener

    @contextmanager
    def playing(self) -> Iterator[None]:
        """The room has a source, in a process of its own."""
        with Child(self._play) as source:
            source.expect("registered", TIMEOUT_S)
            prefer(source.pid)
            yield

    def server_sockets(self) -> list[Socket]:
        """Of the server's process, whoever is at the other end."""
        return sockets_at(self._unix_socket or self.port)

    def memory(self) -> int:
        """Of the server's process."""
        return resident_bytes(self.server.pid)

    def too_slow(self) -> int:
        """How many listeners the server has given up."""
        left = [e for e in list(self.server.events) if e.get("event") == "room_left"]
        return sum(e["reason"] == "too_slow" and e["code"] == 4413 for e in left)

    def connect(self) -> tuple[str, Peer]:
        """One more listener, and what the server calls it."""
        peer = Peer.connect(("127.0.0.1", self.port), json.loads(self.registration))
        return peer.next_text("config")["clientId"], peer

    def frames_sent(self) -> dict[str, int]:
        """What the server has sent to each listener that has left."""
        return asyncio.run(self._frames_sent())

    async def _frames_sent(self) -> dict[str, int]:
        path = f"/api/broadcaster/rooms/{self._room.id}/participants"
        query = {"live": "false"}
        sent: dict[str, int] = {}
        async with aiohttp.ClientSession() as session:
            api = Api(f"http://127.0.0.1:{self.port}", session)
            while True:
                page = await api.call("GET", path, params=query, token=self._room.access)
                sent |= {p["clientId"]: p["framesSent"] for p in page.body["participants"]}
                if page.body["next"] is None:
                    return sent
                query["cursor"] = page.body["next"]


class Room(NamedTuple):
    """A room with its owner's token and the register texts of a source and of a listener."""

    id: str
    access: str
    source: str
    listener: str


async def make_room(port: int, workload: Workload) -> Room:
    async with aiohttp.ClientSession() as session:
        api = Api(f"http://127.0.0.1:{port}", session)
        access = (await api.login())["accessToken"]
        room = await api.create_room(access)
        token = await api.join(room.code)
    wish = source_wish(
        room,
        channels=workload.channels,
        sampleRate=workload.sample_rate,
        bufferMs=workload.buffer_ms,
    )
    return Room(
        room.id,
        access,
        json.dumps({"type": "registerSource", **wish}),
        json.dumps({"type": "registerListener", "roomId": room.id, "roomToken": token}),
    )


@contextmanager
def on_air(directory: Path, workload: Workload, *, proxied: bool) -> Iterator[Stage]:
    """A server with a room, if wanted behind nginx."""
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    unix_socket = directory / "http.sock" if proxied else None
    if unix_socket is not None:
        options.append(f"--unix-socket={unix_socket}")
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess.start(directory / "data", *options))
        prefer(server.pid)  # its event loop: so many have to join
        server.add_user()
        if unix_socket is not None:
            port, pid = stack.enter_context(
                nginx(directory / "nginx", unix_socket, connections=LISTENERS + 200)
            )
            prefer(pid)
        else:
            port = int(server.url.rsplit(":", 1)[1].rstrip("/"))
        room = asyncio.run(make_room(port, workload))
        play = [sys.executable, "-m", "benchmarks.source", "--port", port]
        play += ["--register", room.source, *stream_options(workload, MAX_SECONDS)]
        yield Stage(server, port, unix_socket, room, list(map(str, play)))


def read_for(peers: Sequence[Peer], frames: int) -> list[list[Frame]]:
    """So many frames of each, read by turns."""
    rounds = [[peer.next_frame() for peer in peers] for _ in range(frames)]
    return [list(heard) for heard in zip(*rounds, strict=True)]


def wait_until_silent(peers: Sequence[Peer], frame_bytes: int) -> None:
    """Nothing comes any more to those who do not read; not before anything should.

    Of what a kernel has to send the rest may come slowly: less than a frame a second, of fifty.
    """
    time.sleep(MAX_LAG_S + PING_S)
    seen = [unread_bytes(peer.sock) for peer in peers]

    def is_silent() -> bool:
        time.sleep(1.0)  # longer than a busy machine keeps the source from sending
        before = list(seen)
        seen[:] = [unread_bytes(peer.sock) for peer in peers]
        return all(now - then < frame_bytes for now, then in zip(seen, before, strict=True))

    wait_until(is_silent)


def come_back(peer: Peer) -> list[Frame]:
    """Reads what waits, up to the ping that was not answered, and answers it; the frames."""
    frames: list[Frame] = []
    while True:
        opcode, payload = peer.read_frame()
        if opcode == PING:
            peer.send(PONG, payload)
            return frames
        if opcode == 2:
            frames.append(Frame.parse(payload))


def until_live(peer: Peer) -> tuple[list[Frame], Frame]:
    """What went out behind the ping before it was missed, and the first frame after the gap."""
    frames = [peer.next_frame()]
    while True:
        frame = peer.next_frame()
        if frame.sequence != frames[-1].sequence + 1:
            return frames, frame
        frames.append(frame)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "nginx"])
@pytest.mark.parametrize("frame_bytes", WORKLOADS)
def test_listeners_that_stop_reading_harm_nobody(
    tmp_path: Path, frame_bytes: int, proxied: bool
) -> None:
    workload = WORKLOADS[frame_bytes]
    assert workload.message_bytes == frame_bytes
    with on_air(tmp_path, workload, proxied=proxied) as stage, ExitStack() as stack:
        target = Target(stage.server.pid, stage.port, registers=[stage.registration])
        load = stack.enter_context(LoadClient(target, max_seconds=MAX_SECONDS, realtime=True))
        load.join(LISTENERS)
        names, stalled = zip(*(stage.connect() for _ in range(RETURNING + LOST)), strict=True)
        for peer in stalled:
            stack.callback(peer.close)
        returning, lost = stalled[:RETURNING], stalled[RETURNING:]
        stack.enter_context(stage.playing())
        heard = read_for(stalled, READ)
        # The server's clock less ours, but for what the fastest frame took.
        offset_s = min(f.time_us / 1e6 - f.received_s for frames in heard for f in frames)
        memory = stage.memory()
        measuring = stack.enter_context(ThreadPoolExecutor(1)).submit(load.measure, MEASURED_S)

        # They stop. What the machine of a listener takes is no burden to the server's: little fits
        # into that of the lost.
        for peer in lost:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wait_until_silent(stalled, frame_bytes)
        ends = stage.server_sockets()
        assert len(ends) == LISTENERS + RETURNING + LOST + 1
        assert max(end.memory for end in ends) <= MAX_SOCKET_BYTES
        assert stage.memory() - memory < MAX_GROWTH_BYTES

        # Some come back. They go on at live, with a whole frame, and miss nothing from there.
        back_s = time.monotonic()
        # All at once: what a kernel has yet to send may come slowly, and others would be given up.
        with ThreadPoolExecutor(RETURNING) as together:
            unread = list(together.map(come_back, returning))
        most_unread = 0
        for peer, old in zip(returning, unread, strict=True):
            behind, first = until_live(peer)
            old += behind
            most_unread = max(most_unread, len(old))
            assert first.time_us / 1e6 - offset_s > back_s - SLACK_S, "at live"
            new = [first, *(peer.next_frame() for _ in range(10))]
            assert [f.sequence for f in new] == list(range(new[0].sequence, new[-1].sequence + 1))
            for a, b in pairwise([*old, *new]):
                assert b.timestamp - a.timestamp == (b.sequence - a.sequence) * workload.samples
                assert (b.samples, b.channels) == (workload.samples, workload.channels)
            peer.close()

        # The others are given up, and nothing is left of them.
        wait_until(lambda: stage.too_slow() == LOST)
        sent = stage.frames_sent()
        most_unread = max(most_unread, *(sent[name] - READ for name in names[RETURNING:]))
        if not proxied:
            assert all(peer.is_reset() for peer in lost)
        wait_until(lambda: len(stage.server_sockets()) == LISTENERS + 1)
        measured = measuring.result()
        assert (measured.connections, measured.lost, measured.errors) == (LISTENERS, 0, {})
        assert (measured.gaps, measured.missing) == (0, 0)
        assert measured.frames_fewest >= (MEASURED_S - MAX_LAG_S) * workload.frames_per_s
        # Wherever it was, in a proxy or in a kernel: what they had not read was not more than they
        # may lag.
        assert most_unread / workload.frames_per_s <= MAX_LAG_S + PING_S + SLACK_S
        assert max(end.memory for end in stage.server_sockets()) <= MAX_SOCKET_BYTES
        assert stage.memory() - memory < MAX_GROWTH_BYTES
