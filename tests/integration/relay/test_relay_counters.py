"""Every figure of `Relay.counters` against what the peers saw, exactly."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from relaycore import Relay, Subscription
from relaycore.counters import RoomCounters, ThreadCounters
from relaycore.events import CloseReason, ConnectionClosed, StreamEnded
from support.freeze import frozen, thread_named
from support.peer import TIMEOUT_S, Events, Frame, Message, Peer
from support.relay_room import ANNOUNCE, RATE, Source, noise

PACKETS = 40


class CountingPeer(Peer):
    """Counts its socket's bytes."""

    sent = 0
    received = 0

    @classmethod
    def attach(cls, relay: Relay, **options: Any) -> CountingPeer:
        peer = super().attach(relay, **options)
        peer.sock = cast("socket.socket", _CountingSocket(peer))
        return peer


class _CountingSocket:
    def __init__(self, peer: CountingPeer) -> None:
        self.peer, self.sock = peer, peer.sock

    def recv(self, most: int) -> bytes:
        data = self.sock.recv(most)
        self.peer.received += len(data)
        return data

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.peer.sent += len(data)

    def close(self) -> None:
        self.sock.close()


def total(relay: Relay) -> dict[str, int]:
    """The sums of all threads."""
    names = [name for name in ThreadCounters._fields if name != "tick_late_us"]
    threads = relay.counters().threads
    return {name: sum(getattr(thread, name) for thread in threads) for name in names}


def total_bytes(relay: Relay) -> tuple[int, int]:
    """Sent and received."""
    figures = total(relay)
    return figures["bytes_sent"], figures["bytes_received"]


def wait_until(holds: Callable[[], bool]) -> None:
    """A relay thread counts just after the system call that a peer can see."""
    end = time.monotonic() + TIMEOUT_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)


def heard_until(peer: Peer, last: dict[str, Any]) -> list[Frame]:
    """The frames before that text."""
    messages: list[Message] = []
    while not messages or messages[-1] != last:
        messages.append(peer.receive())
    return [message for message in messages if isinstance(message, Frame)]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_figure_is_what_the_peers_saw(threads: int) -> None:
    with Relay(threads=threads, max_lag_ms=60_000, ping_interval_ms=100_000) as relay:
        events = Events(relay)
        room = relay.open_room()
        source, *listeners = peers = [CountingPeer.attach(relay) for _ in range(4)]
        wishes = [Subscription(), Subscription(), Subscription(mode="mix")]
        for listener, wish in zip(listeners, wishes, strict=True):
            relay.bind_listener(listener.connection, room, wish, reply='{"type":"bound"}')
            listener.next_text("bound")
        relay.bind_source(
            source.connection,
            room,
            stream=1,
            channels=2,
            sample_rate=RATE,
            encoding="pcm_s16le",
            announce=ANNOUNCE,
            buffer_ms=100,
            reply='{"type":"bound"}',
        )
        source.next_text("bound")
        Source(source, noise(2, PACKETS * 0.02)).run()
        relay.unbind_source(source.connection)
        events.wait(StreamEnded)
        relay.send_room(room, '{"type":"over"}')
        heard = [heard_until(listener, {"type": "over"}) for listener in listeners]
        listeners[0].send_json(type="thanks")
        blocks = len(heard[0])
        assert [[frame.sequence for frame in frames] for frames in heard] == [[*range(blocks)]] * 3

        bytes_sent = sum(peer.received for peer in peers)
        bytes_received = sum(peer.sent for peer in peers)
        bytes_each_way = (bytes_sent, bytes_received)
        wait_until(lambda: total_bytes(relay) == bytes_each_way)
        figures = total(relay)
        assert figures.pop("tick_late_ns_max") > 0
        assert figures["sends"] <= 3 * blocks + len(peers) + 2 * len(listeners)
        assert figures.pop("stalls") >= 0
        # Equal subscriptions share their frames where they are on one thread.
        threads_of = [listener.connection & 0xFF for listener in listeners]
        built = 2 if threads_of[0] == threads_of[1] else 3
        assert figures == {
            "sends": figures["sends"],
            "connections": 4,
            "listeners": 3,
            "rooms": 1,
            "ticks": blocks,
            "frames_sent": 3 * blocks,
            "frames_dropped": 0,
            "frames_built": built * blocks,
            "bytes_sent": bytes_sent,
            "bytes_received": bytes_received,
            "packets": PACKETS,
            "evicted": 0,
        }
        assert relay.counters().rooms == {
            room: RoomCounters(
                blocks=blocks,
                packets=PACKETS,
                frames_sent=3 * blocks,
                frames_dropped=0,
                bytes_sent=sum(listener.received for listener in listeners),
                listeners=3,
            )
        }

        before = figures["sends"]
        for number in range(5):  # one by one, so that no two go together
            relay.send(listeners[0].connection, f'{{"number":{number}}}')
            assert listeners[0].receive() == {"number": number}
        wait_until(lambda: total(relay)["sends"] >= before + 5)
        assert total(relay)["sends"] == before + 5

        listeners[2].close()
        assert events.wait(ConnectionClosed).reason == CloseReason.PEER_LOST
        assert (total(relay)["connections"], total(relay)["listeners"]) == (3, 2)
        assert relay.counters().rooms[room].listeners == 2
        relay.close_room(room)
        assert total(relay)["rooms"] == 0
        assert relay.counters().rooms == {}
        Peer.close_all()  # or the relay would wait for their goodbyes


WATCHED = """
import select
import signal
import socket
from relaycore import Relay
from relaycore.events import ThreadStalled

signal.alarm(60)
with Relay(threads=1, watchdog_ms=1000) as relay:
    ours, theirs = socket.socketpair()
    relay.attach(theirs, b"hello")
    ours.recv(5)  # from here on the thread has something to do again and again
    print("ready", flush=True)
    stalls = 0
    while select.select([relay], [], []):
        for event in relay.poll():
            if not isinstance(event, ThreadStalled):
                continue
            stalls += not event.over
            print("over" if event.over else "stalled", flush=True)
            if event.over:
                assert relay.counters().threads[0].stalls == stalls
                ours.close()
                raise SystemExit
"""


def test_every_stall_is_counted() -> None:
    command = [sys.executable, "-c", WATCHED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            with frozen(thread_named(child.pid, "relay-0")):
                assert child.stdout.readline() == "stalled\n"
            assert child.wait(TIMEOUT_S) == 0
        finally:
            child.kill()  # one that never sees what it waits for
