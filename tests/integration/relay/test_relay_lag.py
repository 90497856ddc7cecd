"""Listeners that lag: by their pings, by what their players say, by a socket that is full."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

import pytest

from relaycore import Relay
from relaycore.events import CloseReason, ConnectionClosed
from support.peer import CLOSE, PING, PONG, TEXT, Closed, Events, Frame, Peer
from support.relay_room import ALL, FRAME_S, MUTED_S, bind_listener, on_air, until_muted

# Where only reports are to count: what a busy machine may keep a test from answering a ping.
PATIENT_MS = 1000


def behind_a_proxy(relay: Relay, room: int, **options: Any) -> Peer:
    """A listener whose server's end is a Unix socket, as a proxy's is."""
    client, server = socket.socketpair()
    client.settimeout(10)
    peer = Peer(client, relay.attach(server))
    relay.bind_listener(peer.connection, room, ALL, **options)
    return peer


def gaps(frames: Sequence[Frame]) -> list[int]:
    """How many frames are missing, wherever some are."""
    missing = [b.sequence - a.sequence - 1 for a, b in pairwise(frames)]
    return [count for count in missing if count]


@contextlib.contextmanager
def repeated(call: Callable[[], None], every_s: float = 0.05) -> Iterator[None]:
    """Calls it again and again in a thread, inside the block."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every_s):
            call()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def hear(peers: Sequence[Peer], seconds: float) -> list[list[Frame]]:
    """What each of them hears in that time by the room's timeline, read in a thread for each."""
    heard: list[list[Frame]] = [[] for _ in peers]

    def listen(peer: Peer, frames: list[Frame]) -> None:
        frames.append(peer.next_frame())
        while frames[-1].timestamp - frames[0].timestamp < seconds * 48_000:
            frames.append(peer.next_frame())

    with ThreadPoolExecutor(len(peers)) as pool:
        list(pool.map(listen, peers, heard))
    return heard


# ---- what players say ----


def test_a_player_that_lags_gets_nothing_for_so_long_and_goes_on_at_live() -> None:
    # Eviction after less than the pause: it must not come of it, even where only talk counts.
    with (
        Relay(threads=1, max_lag_ms=PATIENT_MS, evict_after_s=1.2) as relay,
        on_air(relay) as room,
    ):
        lagging, far, other = (
            behind_a_proxy(relay, room),
            *(bind_listener(relay, room) for _ in range(2)),
        )

        def report() -> None:
            relay.report_lag(lagging.connection, 1600)
            relay.report_lag(far.connection, 59_000)

        with repeated(report):
            frames, far_frames, all_frames = hear([lagging, far, other], 6.0)
        assert len(gaps(frames)) == 1, "one pause, however often it is said"
        assert 1.5 <= gaps(frames)[0] * FRAME_S <= 2.1
        at = next(i for i, (a, b) in enumerate(pairwise(frames)) if b.sequence != a.sequence + 1)
        assert frames[at].timestamp - frames[0].timestamp > 1.5 * 48_000, "a burst is no lag"
        assert frames[at + 1].time_us - frames[at].time_us == pytest.approx(
            (frames[at + 1].timestamp - frames[at].timestamp) / 0.048, abs=1000
        )
        delay = [frame.received_s - frame.time_us / 1e6 for frame in frames]
        assert delay[at + 1] < min(delay) + 1.0, "it goes on at live"
        assert len(gaps(far_frames)) == 1
        assert gaps(far_frames)[0] * FRAME_S <= 2.5, "no longer than what the relay keeps"
        assert gaps(all_frames) == []


def test_no_report_makes_a_pause_but_one_that_may_be_true_and_is_confirmed() -> None:
    with Relay(threads=1, max_lag_ms=PATIENT_MS) as relay, on_air(relay) as room:
        wrong_clock, negative, endless, flickering, within, source = (
            bind_listener(relay, room) for _ in range(6)
        )
        kinds: list[tuple[Peer, list[float]]] = [
            (wrong_clock, [61_000.0]),
            (negative, [-1e300]),
            (endless, [math.inf]),
            (within, [PATIENT_MS]),
            (flickering, [5000.0, 0.0]),
        ]
        turn = 0

        def report() -> None:
            nonlocal turn
            turn += 1
            for peer, values in kinds:
                relay.report_lag(peer.connection, values[turn % len(values)])
            for nobody in (0, 77 << 8, 2**63):
                relay.report_lag(nobody, 5000)

        with repeated(report, 0.8):  # far enough apart for each to count
            heard = hear([peer for peer, _ in kinds], 5.0)
        assert [gaps(frames) for frames in heard] == [[]] * len(kinds)
        with pytest.raises(ValueError, match="lag_ms must be a number"):
            relay.report_lag(source.connection, math.nan)
        with pytest.raises(TypeError):
            relay.report_lag(source.connection, "much")  # type: ignore[arg-type]


def test_a_player_that_lags_is_told_that_its_room_is_closed() -> None:
    """Nothing plays there that would wake it when its pause is over."""
    with Relay(threads=1, max_lag_ms=300, ping_interval_ms=60_000) as relay:
        room = relay.open_room()
        listener = bind_listener(relay, room)

        def talk() -> None:
            relay.report_lag(listener.connection, 60_000)
            relay.send(listener.connection, "{}")

        with repeated(talk):
            listener.sock.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    listener.read_frame()
            listener.sock.settimeout(10)
        relay.close_room(room, text='{"type":"roomClosed"}', code=4410)
        told = listener.receive()
        while told == {}:
            told = listener.receive()
        assert told == {"type": "roomClosed"}
        assert listener.receive() == Closed(4410, "room closed")


# ---- what takes nothing ----


def test_behind_a_proxy_only_what_a_listener_says_shows_that_it_is_there() -> None:
    """What the proxy takes is no sign of the listener; what a TCP peer takes is one of it."""
    with (
        Relay(threads=1, max_lag_ms=200, ping_interval_ms=200, evict_after_s=1.0) as relay,
        on_air(relay) as room,
    ):
        events = Events(relay)
        taking = bind_listener(relay, room)
        talking, silent = behind_a_proxy(relay, room), behind_a_proxy(relay, room)
        with repeated(lambda: talking.send(TEXT, b"{}"), 0.2):
            for peer in (silent, taking, talking):
                until_muted(peer)
            closed = events.wait(ConnectionClosed)
            assert (closed.connection, closed.reason) == (silent.connection, CloseReason.TOO_SLOW)
            with pytest.raises(AssertionError, match="no ConnectionClosed"):
                events.wait(ConnectionClosed, timeout=2.5)
        assert sum(t.evicted for t in relay.counters().threads) == 1


def test_who_takes_nothing_for_too_long_is_reset() -> None:
    """It sees that it was given up, and the kernel keeps nothing for it."""
    with (
        Relay(threads=1, max_lag_ms=200, ping_interval_ms=200, evict_after_s=1.0) as relay,
        on_air(relay, channels=16) as room,
    ):
        events = Events(relay)
        listener = bind_listener(relay, room)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.next_frame()
        closed = events.wait(ConnectionClosed)
        assert (closed.connection, closed.code) == (listener.connection, 4413)
        assert listener.is_reset()
        # For a second it took nothing, and what it missed until the end was dropped.
        assert closed.frames_dropped * FRAME_S >= 0.9
        assert relay.counters().rooms[room].frames_dropped == closed.frames_dropped


def test_what_somebody_missed_who_let_messages_pile_up_was_dropped() -> None:
    with (
        Relay(threads=1, max_lag_ms=200, ping_interval_ms=200, max_queued_bytes=10_000) as relay,
        on_air(relay) as room,
    ):
        events = Events(relay)
        listener = bind_listener(relay, room)
        until_muted(listener)
        for _ in range(3):
            relay.send(listener.connection, "x" * 4000)
        closed = events.wait(ConnectionClosed)
        assert (closed.connection, closed.reason) == (listener.connection, CloseReason.TOO_SLOW)
        assert closed.frames_dropped * FRAME_S >= MUTED_S - FRAME_S
        assert relay.counters().rooms[room].frames_dropped == closed.frames_dropped


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        (lambda peer: peer.send(CLOSE, b"\x03\xe8"), CloseReason.PEER_CLOSED),
        (Peer.close, CloseReason.PEER_LOST),
    ],
    ids=["with a goodbye", "without one"],
)
def test_what_somebody_missed_who_lagged_until_it_left_was_dropped(
    leave: Callable[[Peer], None], reason: CloseReason
) -> None:
    with (
        Relay(threads=1, max_lag_ms=200, ping_interval_ms=200) as relay,
        on_air(relay) as room,
    ):
        events = Events(relay)
        listener = bind_listener(relay, room)
        until_muted(listener)
        leave(listener)
        closed = events.wait(ConnectionClosed)
        assert (closed.connection, closed.reason) == (listener.connection, reason)
        assert closed.frames_dropped * FRAME_S >= MUTED_S - FRAME_S
        assert relay.counters().rooms[room].frames_dropped == closed.frames_dropped


def test_who_says_goodbye_while_it_lags_hears_what_the_room_was_told() -> None:
    with (
        Relay(threads=1, max_lag_ms=200, ping_interval_ms=200) as relay,
        on_air(relay) as room,
    ):
        listener = bind_listener(relay, room)
        until_muted(listener)
        relay.send_room(room, '{"type": "news"}')
        listener.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):  # it waits for the frames before it
            listener.read_frame()
        listener.sock.settimeout(10)
        listener.send(CLOSE, b"\x03\xe8")
        listener.next_text("news")
        assert listener.wait_closed() == Closed(1000, "")


def test_a_listener_whose_socket_was_full_for_too_long_goes_on_at_live() -> None:
    """Also when no ping is on its way that would tell."""
    with (
        Relay(threads=1, max_lag_ms=400, ping_interval_ms=60_000) as relay,
        on_air(relay, channels=16) as room,
    ):
        events = Events(relay)
        listener = behind_a_proxy(relay, room)
        before = [listener.next_frame() for _ in range(5)]
        time.sleep(1.2)  # it does not read
        after = [listener.next_frame() for _ in range(40)]
        missing = gaps(before + after)
        assert len(missing) == 1
        assert missing[0] * FRAME_S > 0.6
        listener.close()
        assert events.wait(ConnectionClosed).frames_dropped == missing[0]
        counters = relay.counters()
        assert counters.threads[0].frames_dropped == missing[0]
        assert counters.rooms[room].frames_dropped == missing[0]


def test_a_listener_whose_socket_is_never_quite_empty_is_pinged_all_the_same() -> None:
    """One that takes all it is sent, but late: frames that wait do not keep its ping back."""
    with (
        Relay(threads=1, max_lag_ms=1800, ping_interval_ms=500) as relay,
        on_air(relay, channels=16) as room,
    ):
        listener = behind_a_proxy(relay, room)
        opcode, payload = listener.read_frame()
        while opcode != PING:
            opcode, payload = listener.read_frame()
        listener.send(PONG, payload)
        time.sleep(0.4)  # more comes than its socket holds
        start, opcodes = time.monotonic(), []
        for n in range(75):
            time.sleep(max(0.0, start + n * FRAME_S - time.monotonic()))
            opcodes.append(listener.read_frame()[0])
        assert PING in opcodes


def test_a_burst_is_given_up_when_it_takes_longer_than_its_audio() -> None:
    """Who takes no more than what comes new never gets to its end, and goes on at live."""
    with (
        Relay(threads=1, max_lag_ms=400, ping_interval_ms=300) as relay,
        on_air(relay, channels=16) as room,
    ):
        prompt = bind_listener(relay, room)
        # The server's clock less ours, but for what the fastest frame took.
        offset_s = min(f.received_s - f.time_us / 1e6 for f in hear([prompt], 2.0)[0])
        prompt.close()
        listener = behind_a_proxy(relay, room, burst_ms=2000)
        start = time.monotonic()
        frames: list[Frame] = []
        while len(frames) < 200:
            time.sleep(max(0.0, start + len(frames) * FRAME_S - time.monotonic()))
            frames.append(listener.next_frame())
        assert max(gaps(frames)) * FRAME_S > 1.0
        assert frames[-1].received_s - frames[-1].time_us / 1e6 - offset_s < 0.8


# ---- too little for all ----


def take(peer: Peer, most: int) -> tuple[int, list[Frame]]:
    """At most so many bytes of what waits in the socket; how many, and the frames complete now."""
    frames = []
    try:
        data = peer.sock.recv(most, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0, []
    peer.buffer += data
    while len(peer.buffer) >= 4:
        size = peer.buffer[1]
        size = 4 + int.from_bytes(peer.buffer[2:4]) if size == 126 else 2 + size
        if len(peer.buffer) < size:
            break
        opcode, payload = peer.read_frame()
        if opcode == PING:
            peer.send(PONG, payload)
        elif opcode == 2:
            frames.append(Frame.parse(payload))
    return len(data), frames


def test_listeners_with_too_little_bandwidth_lose_alike() -> None:
    """Forty behind one link that carries 60 % of what they should get."""
    count, seconds = 40, 6.0
    per_second = count * (960 * 2 * 2 + 36) * 50 * 0.6
    with Relay(threads=1, max_lag_ms=300, ping_interval_ms=300) as relay, on_air(relay) as room:
        peers = [behind_a_proxy(relay, room) for _ in range(count)]
        heard: list[list[Frame]] = [[] for _ in peers]
        begin = time.monotonic()
        used, turn, idle = 0.0, 0, 0
        while (passed := time.monotonic() - begin) < seconds:
            if used > passed * per_second or idle >= count:
                idle = 0
                used = max(used, (passed - 0.1) * per_second)  # what is not used now is lost
                time.sleep(0.002)
                continue
            turn = (turn + 1) % count
            taken, frames = take(peers[turn], 4096)
            idle = 0 if taken else idle + 1
            used += taken
            heard[turn] += frames
        received = [len(frames) for frames in heard]
        lost = [sum(gaps(frames)) for frames in heard]
        assert sum(lost) > 0.15 * count * seconds * 50, "there was too little for all"
        assert pstdev(received) / fmean(received) < 0.25, received
        assert min(received) > 0.5 * fmean(received), received
        assert max(lost) < 2 * fmean(lost), lost
