"""Connections of a relay: messages, ends, figures, life and misuse."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import select
import socket
import struct
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relaycore import Relay, RelayClosedError, Subscription
from relaycore.events import (
    BinaryReceived,
    CloseReason,
    ConnectionClosed,
    RoomReport,
    StreamEnded,
    TextReceived,
)
from support.freeze import thread_names
from support.peer import BINARY, CLOSE, PING, PONG, TEXT, Closed, Events, Peer, mask
from support.relay_room import (
    ALL,
    ANNOUNCE,
    RATE,
    Source,
    bind_listener,
    bind_source,
    noise,
)

# ---- texts ----


def test_texts_go_both_ways_in_order(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay, response=b"")
    for i in range(100):
        peer.send_json(type="count", i=i)
    for i in range(100):
        text = events.wait(TextReceived)
        assert text.data == f'{{"type": "count", "i": {i}}}'
        relay.send(peer.connection, f'{{"type":"echo","i":{i}}}')
    assert [peer.next_text()["i"] for _ in range(100)] == list(range(100))


def test_a_greeting_comes_right_behind_the_answer_to_the_upgrade(relay: Relay) -> None:
    for greeting in ("a" * 125, "ü" * 63, "x" * 70_000):
        peer = Peer.attach(relay, response=b"", greeting=json.dumps({"said": greeting}))
        relay.send(peer.connection, '{"said":"more"}')
        assert [peer.next_text()["said"] for _ in range(2)] == [greeting, "more"]
    ours, theirs = socket.socketpair()
    with ours:
        relay.attach(theirs, b"101\r\n\r\n", greeting="{}")
        ours.settimeout(60)
        assert ours.recv(100) == b"101\r\n\r\n\x81\x02{}"


def test_a_stamped_text_tells_when_it_was_written(relay: Relay) -> None:
    peer = Peer.attach(relay)
    before = relay.clock_us()
    relay.send(peer.connection, '{"type":"pong","sent":', stamp=True)
    assert before <= peer.next_text()["sent"] <= relay.clock_us()


def test_a_frame_does_not_wait_for_the_one_before_it_to_be_acknowledged(relay: Relay) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        ours, _ = listener.accept()
        with ours.dup() as watched:
            relay.attach(ours)
            assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize("evict_after_s", [0, 0.1, 1, 2.5, 15, 100, 3600, 1e6])
def test_whether_a_peer_is_there_is_asked_in_time(evict_after_s: float) -> None:
    with (
        Relay(threads=1, evict_after_s=evict_after_s) as relay,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        ours, _ = listener.accept()
        with ours.dup() as watched:
            relay.attach(ours)
            assert watched.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
            idle_s, interval_s, probes = (
                watched.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            gone_s = idle_s + interval_s * probes
            assert evict_after_s <= gone_s <= max(2, 1.2 * evict_after_s + 1)


def test_binary_is_delivered_to_who_asks_for_it(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay, deliver_binary=True)
    peer.send(BINARY, b"\x00" * 100_000)
    assert len(events.wait(BinaryReceived).data) == 100_000
    relay.send(peer.connection, b"\x07bytes")
    assert peer.receive() == b"\x07bytes"


def test_a_connection_with_sixteen_unprocessed_texts_is_not_read_from(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    for i in range(16):
        peer.send_json(i=i)
    seen: list[Any] = []
    while len(seen) < 16:
        seen += relay.poll(limit=1)  # each poll counts the one before as processed
    held = Peer.attach(relay)
    for i in range(40):
        held.send_json(i=i)
    for _ in range(3):  # so that every thread has come round since, which the answer tells
        other = Peer.attach(relay)
        other.send(PING)
        assert other.read_frame()[0] == PONG
    seen = [*relay.poll()]
    assert [e.connection for e in seen] == [held.connection] * 16
    while len(seen) < 40:
        seen += relay.poll()


def test_what_a_paused_peer_said_before_it_left_is_heard(relay: Relay, events: Events) -> None:
    server, client = socket.socketpair()
    relay.attach(server)
    client.sendall(b"".join(mask(TEXT, b"{}") for _ in range(40)))
    client.sendall(mask(CLOSE, struct.pack(">H", 1000)))
    client.close()
    for _ in range(40):
        events.wait(TextReceived)
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code) == (CloseReason.PEER_CLOSED, 1000)


# ---- ends ----


def test_a_close_handshake_begun_by_the_peer_is_answered(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay)
    peer.send(CLOSE, struct.pack(">H", 3001) + b"bye")
    assert peer.wait_closed().code == 3001
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code, closed.detail) == (CloseReason.PEER_CLOSED, 3001, "bye")
    assert peer.sock.recv(1) == b""


def test_a_connection_is_closed_by_its_owner_after_a_last_text(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    relay.close_connection(peer.connection, 4403, "kicked", text='{"type":"error"}')
    assert peer.next_text() == {"type": "error"}
    assert peer.receive() == Closed(4403, "kicked")
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code) == (CloseReason.CLOSED, 4403)


def test_closing_a_room_ends_its_listeners_and_its_source(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    listeners = [bind_listener(relay, room) for _ in range(5)]
    source = bind_source(relay, room)
    relay.close_room(room, text='{"type":"roomClosed"}')
    for peer in [*listeners, source]:
        assert peer.next_text() == {"type": "roomClosed"}
        assert peer.wait_closed().code == 4410
    for _ in range(6):
        assert events.wait(ConnectionClosed).reason == CloseReason.ROOM_CLOSED


@pytest.mark.parametrize(
    ("what", "code", "reason"),
    [
        (mask(BINARY, b"early"), 4400, CloseReason.PROTOCOL_ERROR),
        (mask(TEXT, b"\xff"), 1007, CloseReason.PROTOCOL_ERROR),
        (mask(TEXT, b"x" * 70_000), 1009, CloseReason.TOO_BIG),
        (b"\x81\x01x", 1002, CloseReason.PROTOCOL_ERROR),
        (b"\xf1\x80\x00\x00\x00\x00", 1002, CloseReason.PROTOCOL_ERROR),
    ],
    ids=["binary before registration", "bad UTF-8", "too big", "unmasked", "reserved bits"],
)
def test_bad_input_is_refused_with_its_code(
    relay: Relay, events: Events, what: bytes, code: int, reason: CloseReason
) -> None:
    peer = Peer.attach(relay)
    peer.sock.sendall(what)
    assert peer.wait_closed().code == code
    assert peer.sock.recv(1) == b"", "the connection is shut"
    peer.close()
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code) == (reason, code)


@pytest.mark.parametrize("at_once", [True, False], ids=["in one piece", "after they were polled"])
def test_what_was_said_before_a_fault_is_answered_before_the_close(
    relay: Relay, events: Events, at_once: bool
) -> None:
    peer = Peer.attach(relay, deliver_binary=True)
    fault = b"\x81\x01x"  # no mask
    said = b"".join(mask(TEXT, b'{"n":%d}' % n) for n in range(14)) + mask(BINARY, b"b")
    peer.sock.sendall(said + fault if at_once else said)
    answers: list[str | bytes] = [events.wait(TextReceived).data for _ in range(14)]
    answers.append(events.wait(BinaryReceived).data)
    if not at_once:
        peer.sock.sendall(fault)
        # Nothing more happened, but the program is woken, so that its answers count as given.
        assert select.select([relay.fileno()], [], [], 10)[0]
    for answer in answers:
        relay.send(peer.connection, answer)
    relay.poll()
    assert [peer.next_text()["n"] for _ in range(14)] == list(range(14))
    assert peer.receive() == b"b"
    assert peer.wait_closed().code == 1002
    peer.close()
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code) == (CloseReason.PROTOCOL_ERROR, 1002)


def test_a_fault_does_not_wait_for_a_program_that_never_polls(relay: Relay) -> None:
    peer = Peer.attach(relay)
    peer.sock.sendall(mask(TEXT, b"{}") + mask(TEXT, b"\xff"))
    assert peer.wait_closed().code == 1007
    assert peer.sock.recv(1) == b"", "the connection is shut"


def test_binary_from_a_listener_and_malformed_packets_are_refused(relay: Relay) -> None:
    room = relay.open_room()
    listener = bind_listener(relay, room)
    listener.send(BINARY, b"x")
    assert listener.wait_closed().code == 1003
    source = bind_source(relay, room)
    source.send(BINARY, b"not a packet")
    assert source.wait_closed().code == 4400


def test_who_does_not_register_in_time_is_closed() -> None:
    with Relay(threads=1, register_timeout_s=0.1) as relay:
        peer = Peer.attach(relay)
        assert peer.wait_closed().code == 4408
        assert Events(relay).wait(ConnectionClosed).reason == CloseReason.NOT_REGISTERED


def test_a_silent_source_is_pinged_and_then_closed() -> None:
    with Relay(threads=1, source_timeout_s=2.0, silence_timeout_s=0.2) as relay:
        events = Events(relay)
        peer = bind_source(relay, relay.open_room())
        peer.answer_pings = False
        assert peer.read_frame()[0] == PING
        assert peer.wait_closed().code == 4408
        assert events.wait(ConnectionClosed).reason == CloseReason.SOURCE_SILENT


def test_a_source_that_floods_is_closed() -> None:
    with Relay(threads=1, max_packets_per_s=50) as relay:
        peer = bind_source(relay, relay.open_room())
        with contextlib.suppress(OSError):
            for i in range(60):
                peer.send_packet(np.zeros((2, 1), np.int16), i)
        assert peer.wait_closed().code == 4429


def test_pings_of_the_peer_are_answered_in_place(relay: Relay) -> None:
    peer = Peer.attach(relay)
    peer.send(PING, b"abc")
    assert peer.read_frame() == (PONG, b"abc")


def test_a_copy_of_the_descriptor_keeps_nothing_alive(relay: Relay, events: Events) -> None:
    server, client = socket.socketpair()
    with server, client:
        relay.attach(server.dup())
        client.sendall(mask(CLOSE, b""))
        events.wait(ConnectionClosed)
        relay.poll()  # the connection's record is gone now
        assert client.recv(100)[:1] == b"\x88"
        assert client.recv(100) == b"", "the end is told in spite of the copy"
        other = Peer.attach(relay)
        relay.send(other.connection, '{"type":"alive"}')
        assert other.next_text() == {"type": "alive"}


def test_a_listener_can_not_make_the_server_hold_a_binary_message(relay: Relay) -> None:
    room = relay.open_room()
    for peer, code in ((bind_listener(relay, room), 1003), (Peer.attach(relay), 4400)):
        peer.sock.sendall(mask(BINARY, b"x" * 100_000)[:1000])
        assert peer.wait_closed().code == code


def test_a_packet_of_more_than_a_second_is_too_big(relay: Relay) -> None:
    peer = bind_source(relay, relay.open_room(), channels=1)
    peer.sock.sendall(mask(BINARY, b"x" * (32 + 2 * RATE + 2))[:1000])
    assert peer.wait_closed().code == 1009


def test_a_close_followed_by_the_end_is_answered(relay: Relay) -> None:
    peer = Peer.attach(relay)
    peer.sock.sendall(mask(CLOSE, struct.pack(">H", 1000)))
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.read_frame()[0] == CLOSE


def test_a_silent_source_leaves_its_room_at_once() -> None:
    with Relay(threads=1, source_timeout_s=0.5, silence_timeout_s=0.2) as relay:
        events = Events(relay)
        peer = bind_source(relay, relay.open_room())  # and never reads again
        begin = time.monotonic()
        events.wait(StreamEnded)
        assert time.monotonic() - begin < 2
        peer.close()
        assert events.wait(ConnectionClosed).reason == CloseReason.SOURCE_SILENT


def test_a_peer_that_only_asks_for_pongs_is_ended(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay)
    with contextlib.suppress(OSError):
        for _ in range(2000):
            peer.sock.sendall(mask(PING, b"x" * 125) * 100)
    closed = events.wait(ConnectionClosed)
    assert closed.reason == CloseReason.TOO_SLOW
    assert sum(t.evicted for t in relay.counters().threads) == 1


@pytest.mark.parametrize(("most", "arrives"), [(3 << 20, True), (1 << 20, False)])
def test_as_much_is_queued_for_a_connection_as_the_program_allows(most: int, arrives: bool) -> None:
    with Relay(threads=1, max_queued_bytes=most) as relay:
        peer = Peer.attach(relay)
        message = bytes(range(1, 256)) * 8192  # 2 MiB: over the default
        relay.send(peer.connection, b"\x02" + message)
        if arrives:
            assert peer.receive() == b"\x02" + message
        else:
            assert peer.wait_closed().code == 1006
            assert Events(relay).wait(ConnectionClosed).reason == CloseReason.TOO_SLOW
        peer.close()


# ---- figures ----


def test_inspect_and_counters_tell_what_was_sent(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    source = Source(bind_source(relay, room), noise(2, 2.0))
    source.start()
    peers = [bind_listener(relay, room) for _ in range(4)]
    for peer in peers:
        for _ in range(10):
            peer.next_frame()
    relay.inspect(room)
    listeners: list[Any] = []
    while len(listeners) < 4:
        listeners += events.wait(RoomReport).listeners
    assert {row.connection for row in listeners} == {p.connection for p in peers}
    assert all(row.frames_sent >= 10 for row in listeners)
    counters = relay.counters()
    assert counters.rooms[room].listeners == 4
    assert counters.rooms[room].frames_sent >= 40
    assert sum(t.listeners for t in counters.threads) == 4
    source.stop()


def test_every_tick_is_counted_by_its_lateness(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    source = bind_source(relay, room)
    player = Source(source, noise(2, 0.5))
    player.start()
    player.join()
    relay.unbind_source(source.connection)
    assert events.wait(StreamEnded).room == room
    figures = [thread for thread in relay.counters().threads if thread.ticks]
    assert len(figures) == 1
    late = figures[0].tick_late_us
    bounds = list(late)
    assert (bounds[0], bounds[-2], bounds[-1]) == (1, 1 << 20, math.inf)
    assert all(low < high for low, high in pairwise(bounds))
    assert all(high <= 1.25 * low for low, high in pairwise(bounds[3:-1]))
    assert sum(late.values()) == figures[0].ticks >= 20
    worst = max(bound for bound, ticks in late.items() if ticks)
    assert worst > figures[0].tick_late_ns_max // 1000
    assert worst == 1 or bounds[bounds.index(worst) - 1] <= figures[0].tick_late_ns_max // 1000


# ---- life and misuse ----


def count(folder: str) -> int:
    return len(list(Path(folder).iterdir()))


def test_starting_and_stopping_leaves_nothing_behind() -> None:
    def everything() -> tuple[int, int]:
        gc.collect()
        return count("/proc/self/fd"), count("/proc/self/task")

    def once() -> None:
        with Relay(threads=2) as relay:
            room = relay.open_room()
            source = bind_source(relay, room)
            listener = bind_listener(relay, room)
            source.send_packet(np.zeros((2, 4800), np.int16), 0)
            source.send_packet(np.zeros((2, 4800), np.int16), 4800)
            listener.next_frame()
            closing = threading.Thread(target=relay.close)
            closing.start()
            assert listener.wait_closed().code == 1001
            assert source.wait_closed().code == 1001
            closing.join()
            listener.close()
            source.close()

    once()
    before = everything()
    for _ in range(10):
        once()
    assert everything() == before


def test_closing_says_goodbye_and_the_last_events_can_be_polled(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    relay.send(peer.connection, "{}")
    assert peer.next_text() == {}
    closing = threading.Thread(target=relay.close)
    closing.start()
    assert peer.wait_closed().code == 1001
    closing.join()
    assert events.wait(ConnectionClosed).reason == CloseReason.SHUTDOWN
    with pytest.raises(RelayClosedError):
        relay.open_room()
    with pytest.raises(RelayClosedError):
        relay.send(peer.connection, "x")
    relay.close()


def test_a_relay_that_is_forgotten_ends_by_itself() -> None:
    def wait_for_threads(*wanted: str) -> None:
        """By name, which a thread gives itself; others of the process come and go."""
        end = time.monotonic() + 10
        while (found := {n for n in thread_names() if n.startswith("relay-")}) != {*wanted}:
            assert time.monotonic() < end, found
            time.sleep(0.001)

    gc.collect()
    wait_for_threads()
    relay = Relay(threads=2)
    wait_for_threads("relay-0", "relay-1", "relay-watchdog")
    del relay
    gc.collect()
    wait_for_threads()


def test_misuse_raises_and_harms_nobody(relay: Relay, tmp_path: Path) -> None:
    room = relay.open_room()
    with pytest.raises(OSError, match="Bad file descriptor"):
        relay.attach(9999)
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="non-socket"):
        relay.attach(file.fileno())
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right, pytest.raises(ValueError, match="invalid argument"):
        relay.attach(left)
    with socket.socket() as unconnected, pytest.raises(OSError, match="not connected"):
        relay.attach(unconnected)
    with pytest.raises(ValueError, match="channels must be from 1 to 64"):
        relay.bind_source(
            1,
            room,
            stream=1,
            channels=65,
            sample_rate=RATE,
            encoding="pcm_s16le",
            announce=ANNOUNCE,
        )
    with pytest.raises(ValueError, match="faders"):
        Subscription(faders=[5.0])
    with pytest.raises(ValueError, match="channels"):
        Subscription(channels=[64])
    with pytest.raises(TypeError):
        relay.bind_listener(1, room, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1005"):
        relay.close_connection(1, 1005)
    with pytest.raises(ValueError, match="at most 2"):
        relay.send(1, bytes(2**30 + 1))
    for gone in (0, 1, 77 << 8, 2**63, 255):
        relay.send(gone, "nobody")
        relay.bind_listener(gone, room, ALL)
        relay.close_connection(gone, 1000)
        relay.close_room(gone)
        relay.unbind_source(gone)
        relay.send_room(gone, "nobody")
        relay.inspect(gone)
    peer = bind_listener(relay, room)
    relay.send(peer.connection, '{"type":"alive"}')
    assert peer.next_text() == {"type": "alive"}


def test_closing_holds_nobody_up() -> None:
    relay = Relay(threads=1)
    peer = Peer.attach(relay)
    relay.send(peer.connection, "{}")
    peer.next_text()
    closing = threading.Thread(target=relay.close)
    closing.start()
    assert peer.read_frame()[0] == CLOSE  # which it does not answer
    begin = time.monotonic()
    relay.counters()
    with pytest.raises(RelayClosedError):
        relay.open_room()
    assert time.monotonic() - begin < 1
    peer.close()
    closing.join()


def test_threads_that_poll_at_once_are_told_so() -> None:
    # Three that spin leave a fourth little of the interpreter: it sends all at once, and the time
    # to register does not run out meanwhile.
    texts = [str(i) for i in range(300)]
    seen: list[str] = []
    refused: set[str] = set()
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            try:
                events = relay.poll()
            except RuntimeError as error:
                refused.add(str(error))
            else:
                seen.extend(e.data for e in events if isinstance(e, TextReceived))
                if len(seen) == len(texts):
                    done.set()

    with Relay(threads=1, register_timeout_s=120.0) as relay:
        peer = Peer.attach(relay)
        pollers = [threading.Thread(target=poll) for _ in range(3)]
        for thread in pollers:
            thread.start()
        peer.sock.sendall(b"".join(mask(TEXT, text.encode()) for text in texts))
        done.wait(60)
        done.set()
        for thread in pollers:
            thread.join()
        peer.close()
    assert sorted(seen, key=int) == texts
    assert refused <= {"Relay.poll: another thread is polling"}


def test_any_thread_may_send(relay: Relay) -> None:
    peer = Peer.attach(relay)

    def talk() -> None:
        for _ in range(200):
            relay.send(peer.connection, '{"type":"x"}')

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(800):
        assert peer.next_text() == {"type": "x"}
    for thread in threads:
        thread.join()
