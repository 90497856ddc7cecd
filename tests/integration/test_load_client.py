"""The load client counts what a server really sent, however the bytes arrive."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import resource
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.load import LoadClient, LoadError, Target

import relaycore

REGISTER = json.dumps({"type": "registerListener", "nickname": "é" * 100})
REGISTERED = b'{"type":"listenerRegistered"}'
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
CLOCK_OFFSET_US = 1_000_000_000


def message(opcode: int, payload: bytes) -> bytes:
    n = len(payload)
    if n < 126:
        return struct.pack(">BB", 0x80 | opcode, n) + payload
    if n < 65536:
        return struct.pack(">BBH", 0x80 | opcode, 126, n) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, n) + payload


def frame(sequence: int, payload_bytes: int, age_us: int = 0) -> bytes:
    time_us = time.monotonic_ns() // 1000 + CLOCK_OFFSET_US - age_us
    header = struct.pack("<BBBBHHIIQQ", 1, 2, 0, 0, 1, 2, sequence, 960, 0, time_us)
    return message(2, header + bytes(payload_bytes))


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = sock.makefile("rb")

    def read_request(self) -> None:
        while self.file.readline() not in (b"\r\n", b""):
            pass

    def read_message(self) -> tuple[int, bytes]:
        first, second = self.file.read(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack(">H", self.file.read(2))
        mask = self.file.read(4)
        payload = self.file.read(length)
        return first & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    def register(self) -> bytes:
        self.read_request()
        self.sock.sendall(SWITCHING)
        _, text = self.read_message()
        self.sock.sendall(message(1, REGISTERED))
        return text


@contextmanager
def server(handle: Callable[[Peer], None], *, connections: int = 1) -> Iterator[Target]:
    """Each of so many connections is handled in a thread of its own, whose exception is raised when
    the block is left."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            sock, _ = listener.accept()
            with sock:
                peer = Peer(sock)
                with peer.file:
                    handle(peer)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has seen enough
        except BaseException as error:
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        threads = [threading.Thread(target=run) for _ in range(connections)]
        for thread in threads:
            thread.start()
        yield Target(os.getpid(), listener.getsockname()[1], [REGISTER], CLOCK_OFFSET_US)
        for thread in threads:
            thread.join(20)
    if failures:
        raise failures[0]


def stream_until_gone(peer: Peer, step: Callable[[int], None]) -> None:
    """Calls `step` with 0, 1, 2 … until the client hangs up."""
    peer.sock.settimeout(20)
    deadline = time.monotonic() + 20
    number = 0
    while time.monotonic() < deadline:
        step(number)
        number += 1
    raise TimeoutError("the client did not end")


@pytest.mark.parametrize("piece", [1, 3, 35, 36, 37, 1000, 1 << 20])
def test_frames_gaps_and_delay_are_counted_wherever_reads_cut_them(piece: int) -> None:
    def handle(peer: Peer) -> None:
        assert peer.register() == REGISTER.encode()

        def step(number: int) -> None:
            # Frames 0, 1, 4, 5, 8, 9 …: two missing after every second one.
            first = number * 4
            data = frame(first, 500, age_us=3_000_000) + message(1, b'{"type":"roomStatus"}')
            data += frame(first + 1, 70, age_us=3_000_000) + message(2, b"\x01\x03" + bytes(60))
            for at in range(0, len(data), piece):
                peer.sock.sendall(data[at : at + piece])

        stream_until_gone(peer, step)

    with server(handle) as target, LoadClient(target, max_seconds=20) as load:
        load.join(1)
        load.wait_for_frames(3)
        measured = load.measure(0.3)
    assert measured.frames > 2
    assert abs(measured.frames - 2 * measured.gaps) <= 2
    assert measured.missing == 2 * measured.gaps
    assert (measured.lost, measured.errors) == (0, {})
    assert 3000 <= measured.delay_ms.p50 <= 4000
    assert measured.server_cpu_s > 0


def test_a_frame_longer_than_any_read_is_one_frame() -> None:
    def handle(peer: Peer) -> None:
        peer.register()
        stream_until_gone(peer, lambda number: peer.sock.sendall(frame(number, 1_000_000)))

    with server(handle) as target, LoadClient(target, max_seconds=20) as load:
        load.join(1)
        load.wait_for_frames(5)
        measured = load.measure(0.3)
    assert measured.gaps == 0
    assert measured.bytes / measured.frames == pytest.approx(1_000_042, rel=0.5)


def stop(pid: int) -> None:
    """Stops a process, and returns when every thread of it has."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        if set(states) == {"T"}:
            return
    raise TimeoutError("it does not stop")


def test_arrival_is_when_the_frame_reached_the_socket_and_delay_when_it_was_read() -> None:
    joined: queue.SimpleQueue[int] = queue.SimpleQueue()
    done = threading.Event()

    def handle(peer: Peer) -> None:
        peer.register()
        client = joined.get(timeout=20)
        for number in range(8):
            stop(client)
            peer.sock.sendall(frame(number, 8))
            time.sleep(0.2)
            os.kill(client, signal.SIGCONT)
            time.sleep(0.02)  # for the client to read it
        done.set()

    with server(handle) as target, LoadClient(target, max_seconds=20, kernel_times=True) as load:
        load.join(1)
        joined.put(load.pid)
        measured = load.measure(1.5)
        assert done.wait(20)
    assert measured.frames >= 3
    assert measured.arrival_ms.count == measured.delay_ms.count == measured.frames
    assert measured.arrival_ms.p50 < 150
    assert measured.delay_ms.p50 >= 195


@pytest.mark.parametrize("piece", [700, 1400, 1 << 20])
def test_a_stream_over_http_is_heard_wherever_it_begins(piece: int) -> None:
    requests = []

    def handle(peer: Peer) -> None:
        requests.append(peer.file.readline())
        peer.read_request()
        peer.sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: audio/L16\r\n\r\n")
        peer.sock.sendall(frame(0, 500)[123:])

        def step(number: int) -> None:
            # Every fifth frame is left out.
            first = 1 + number * 5
            data = b"".join(frame(first + n, 500, age_us=3_000_000) for n in range(4))
            for at in range(0, len(data), piece):
                peer.sock.sendall(data[at : at + piece])

        stream_until_gone(peer, step)

    with server(handle) as target:
        target = replace(target, stream="/live", bare=True)
        with LoadClient(target, max_seconds=20) as load:
            load.join(1)
            load.wait_for_frames(3)
            measured = load.measure(0.3)
    assert requests == [b"GET /live HTTP/1.1\r\n"]
    assert measured.frames > 4
    assert abs(measured.frames - 4 * measured.gaps) <= 4
    assert measured.missing == measured.gaps
    assert (measured.lost, measured.errors, measured.pings) == (0, {}, 0)
    assert 3000 <= measured.delay_ms.p50 <= 4000


@pytest.mark.parametrize(
    "given", [{"clock": 0}, {"registers": False}, {"registers": False, "clock": "config"}]
)
def test_a_stream_needs_a_clock_and_nobody_who_registers(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="over a stream nothing is said"):
        relaycore.LoadClient("127.0.0.1", 1, stream=True, **given)


def test_over_a_stream_nothing_is_said() -> None:
    with relaycore.LoadClient("127.0.0.1", 1, stream=True, registers=False, clock=0) as load:
        with pytest.raises(RuntimeError, match="nothing is said"):
            load.send([0], ["{}"])
        with pytest.raises(RuntimeError, match="nothing is said"):
            load.add_sources(["{}"], channels=1, sample_rate=8000)


def test_pings_are_answered_with_their_payload() -> None:
    answers = []

    def handle(peer: Peer) -> None:
        peer.register()
        for payload in (b"", b"12345678", bytes(125)):
            peer.sock.sendall(message(9, payload))
            answers.append(peer.read_message())
        stream_until_gone(peer, lambda number: peer.sock.sendall(frame(number, 8)))

    with server(handle) as target, LoadClient(target, max_seconds=20) as load:
        load.join(1)
        load.wait_for_frames(1)
    assert answers == [(10, b""), (10, b"12345678"), (10, bytes(125))]


def test_a_refused_handshake_says_why() -> None:
    def handle(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")

    with (
        server(handle) as target,
        LoadClient(target, max_seconds=20) as load,
        pytest.raises(LoadError, match="429 Too Many Requests"),
    ):
        load.join(1)


def test_a_connection_closed_by_the_server_is_reported_with_its_code() -> None:
    def handle(peer: Peer) -> None:
        peer.register()
        peer.sock.sendall(frame(0, 8))
        assert peer.sock.recv(1) == b""  # until the client is done with it

    closing = message(8, struct.pack(">H", 4410) + b"room closed")

    def handle_closing(peer: Peer) -> None:
        peer.register()
        peer.sock.sendall(message(9, b"") + frame(0, 8))
        peer.read_message()  # the pong: it has read what stands before the close
        peer.sock.sendall(closing)

    with server(handle) as target, LoadClient(target, max_seconds=20) as load:
        load.join(1)
        assert load.measure(0.2).lost == 0
    with server(handle_closing) as target, LoadClient(target, max_seconds=20) as load:
        load.join(1)
        load.wait_for_frames(1)  # nobody is left to wait for
        assert load.measure(0.2).errors == {"closed with 4410 room closed": 1}


def wait_until(holds: Callable[[], bool]) -> None:
    """Looks a hundred times a second."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("threads", [1, 2])
def test_listeners_added_together_join_one_after_another_at_their_pace(threads: int) -> None:
    counts, per_second = (10, 1, 15), 50.0

    def handle(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(SWITCHING)
        assert peer.sock.recv(1) == b""

    with (
        server(handle, connections=sum(counts)) as target,
        relaycore.LoadClient(
            "127.0.0.1", target.port, registers=False, threads=threads, clock=0
        ) as load,
    ):
        for group, count in enumerate(counts):
            load.add_listeners(count, group=group, per_second=per_second)
        wait_until(lambda: sum(f.settled for f in load.figures()) == sum(counts))
        records = load.listeners()
    assert (records["state"] == 2).all()
    begun_s = np.sort(records["joined_ns"] - records["join_ns"]) / 1e9
    due_s = np.arange(sum(counts)) / per_second
    # A thread that was late to begin makes others look early.
    assert (begun_s - begun_s[0] >= due_s - 0.1).all()


def test_every_answer_is_counted_and_timed_from_its_own_question() -> None:
    asked, answer_all = threading.Event(), threading.Event()

    def handle(peer: Peer) -> None:
        peer.register()
        for _ in range(5):
            peer.read_message()
        asked.set()
        assert answer_all.wait(20)
        for text in (b'{"type":"mixChanged"}', b'{"type":"error"}', b'{"type":"subscribed"}'):
            peer.sock.sendall(message(1, text))
        # The second one nobody asked for: the owner set the mix.
        peer.sock.sendall(message(1, b'{"type":"mixChanged"}') * 2 + frame(0, 8))
        assert peer.sock.recv(1) == b""

    mix, stats = json.dumps({"type": "setMix"}), json.dumps({"type": "stats"})
    with (
        server(handle) as target,
        relaycore.LoadClient("127.0.0.1", target.port, clock=0) as load,
    ):
        load.add_listeners(1, [REGISTER])
        wait_until(lambda: load.figures()[0].joined == 1)
        load.send([0], [mix])
        time.sleep(0.5)  # that the first one waits longer than the others
        for text in (stats, mix, json.dumps({"type": "subscribe"}), mix):
            load.send([0], [text])
        assert asked.wait(20)
        answer_all.set()
        wait_until(lambda: load.figures()[0].frames == 1)
        figures = load.figures()[0]
    # One of the four that are answered at all was refused.
    assert (figures.sent, figures.replies, figures.lost) == (5, 3, 0)
    assert figures.reply.count == 3
    assert figures.reply.max_ms - figures.reply.quantile_ms(0.6) >= 450


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as the system allows this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were sent and have not reached the other end."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), "little")


@pytest.mark.usefixtures("many_descriptors")
def test_the_longest_batch_is_no_shorter_than_it_took_to_read_all_that_was_ready() -> None:
    count, until_tick_us = 1200, 300_000
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ExitStack() as peers,
        relaycore.LoadClient(
            "127.0.0.1", listener.getsockname()[1], registers=False, clock=CLOCK_OFFSET_US
        ) as load,
    ):
        listener.settimeout(20)
        load.add_listeners(count)
        socks = []
        for _ in range(count):
            socks.append(peers.enter_context(listener.accept()[0]))
            assert socks[-1].recv(4096).endswith(b"\r\n\r\n")
            socks[-1].sendall(SWITCHING)
        wait_until(lambda: load.figures()[0].joined == count)
        load.limit(range(count), 0)
        ticks_ns = time.monotonic_ns() + until_tick_us * 1000
        same = frame(0, 8, age_us=-until_tick_us)
        for sock in socks:
            sock.sendall(same)
        wait_until(lambda: not any(map(unacknowledged, socks)) and time.monotonic_ns() > ticks_ns)
        load.figures(restart=True)
        load.limit(range(count), None)  # each of them is ready now
        wait_until(lambda: load.figures()[0].frames == count)
        figures = load.figures()[0]
    delay = figures.delay[0]
    assert delay.count == count
    assert figures.batch.max_ms >= delay.max_ms - delay.quantile_ms(0) - 0.01


@pytest.mark.parametrize("hangs_up", [False, True])
def test_sources_that_were_stopped_neither_send_nor_come_back_when_there_are_others(
    hangs_up: bool,
) -> None:
    goodbye = (1, b'{"type":"unregisterSource"}')
    heard: list[list[tuple[int, bytes]]] = []

    def handle(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(SWITCHING)
        peer.read_message()
        mine: list[tuple[int, bytes]] = []
        heard.append(mine)
        peer.sock.sendall(message(1, b'{"type":"sourceRegistered"}'))
        while peer.file.peek(1):
            mine.append(peer.read_message())
            if hangs_up and mine[-1] == goodbye:
                return

    noise: dict[str, Any] = {"channels": 1, "sample_rate": 8000}
    with (
        server(handle, connections=2) as target,
        relaycore.LoadClient("127.0.0.1", target.port, clock=0, rejoin=True, retry_s=0.01) as load,
    ):
        load.add_sources([REGISTER], **noise)
        wait_until(lambda: load.sources()["frames"][0] >= 3)
        load.stop_sources()
        sent = load.sources()["frames"][0]
        if hangs_up:
            wait_until(lambda: load.sources()["losses"][0] == 1)
            load.rejoin(False)
            load.rejoin(True)
        load.add_sources([REGISTER], **noise)
        wait_until(lambda: load.sources()["frames"][-1] >= 10)
        stopped, other = load.sources()
    assert stopped["frames"] == sent
    assert stopped["state"] == (3 if hangs_up else 2)
    assert other["state"] == 2
    assert heard[0][-1] == goodbye
    assert {opcode for opcode, _ in heard[0][:-1]} == {2}


def test_a_source_that_is_stopped_on_its_way_in_does_not_get_in() -> None:
    asked, gone = threading.Event(), threading.Event()

    def handle(peer: Peer) -> None:
        peer.read_request()
        asked.set()
        if not peer.file.peek(1):
            gone.set()

    with (
        server(handle) as target,
        relaycore.LoadClient("127.0.0.1", target.port, clock=0, rejoin=True) as load,
    ):
        load.add_sources([REGISTER], channels=1, sample_rate=8000)
        assert asked.wait(20)
        load.stop_sources()
        assert gone.wait(20)


def test_who_gets_no_answer_has_failed() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        relaycore.LoadClient("127.0.0.1", silent.getsockname()[1], clock=0, answer_s=0.25) as load,
    ):
        load.add_listeners(3, [REGISTER])
        load.add_sources([REGISTER], channels=1, sample_rate=8000)
        wait_until(lambda: sum(f.settled for f in load.figures()) == 4)
        listening, sending = load.figures()
    assert (listening.failed, sending.failed) == (3, 1)
    assert listening.errors == {"no answer in 0.25 s": 3}
    assert sending.errors == {"no answer in 0.25 s": 1}


def test_who_is_not_registered_has_failed_and_who_is_stays_though_nothing_comes() -> None:
    registers = iter([True, False])

    def handle(peer: Peer) -> None:
        if next(registers):
            peer.register()
        else:
            peer.read_request()
            peer.sock.sendall(SWITCHING)
        while peer.sock.recv(4096):
            pass

    with (
        server(handle, connections=2) as target,
        relaycore.LoadClient("127.0.0.1", target.port, clock=0, answer_s=0.25) as load,
    ):
        load.add_listeners(2, [REGISTER])
        wait_until(lambda: load.figures()[0].settled == 2)
        figures = load.figures()[0]
    assert (figures.joined, figures.failed, figures.lost) == (1, 1, 0)
    assert figures.errors == {"no answer in 0.25 s": 1}
