"""Limits: on rates, frame lengths and channels, on packets a second, on texts that wait."""

from __future__ import annotations

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np

from relaycore import Relay, Subscription
from relaycore.events import CloseReason, ConnectionClosed, RoomReport
from roomserver.clients import wire
from roomserver.protocol import client
from support.peer import PING, PONG, Events, Peer
from support.relay_room import FRAME, bind_listener, bind_source, on_air

RATES = (*range(1000, 200_001, 1000), 11_025, 22_050, 44_100, 88_200, 176_400)


def taken(relay: Relay, **changed: Any) -> bool:
    """Whether the relay takes a source of that format (its connection need not be there)."""
    source: dict[str, Any] = {"channels": 1, "sample_rate": 48_000, "frame_ms": 20} | changed
    try:
        relay.bind_source(1, 1, stream=1, encoding="pcm_s16le", announce="", **source)
    except ValueError:
        return False
    return True


def test_server_clients_and_relay_agree_on_rates_frames_and_channels(relay: Relay) -> None:
    rates = set(get_args(client.SampleRate))
    assert rates == set(wire.SAMPLE_RATES) == {r for r in RATES if taken(relay, sample_rate=r)}
    lengths = set(get_args(client.FrameMs))
    assert lengths == set(wire.FRAME_LENGTHS_MS)
    assert lengths == {ms for ms in range(101) if taken(relay, frame_ms=ms)}
    most = max(count for count in range(257) if taken(relay, channels=count))
    assert client.MAX_CHANNELS == wire.MAX_CHANNELS == most


def test_as_many_packets_a_second_as_are_allowed_are_taken_every_second() -> None:
    with Relay(threads=1, max_packets_per_s=50) as relay:
        peer = bind_source(relay, relay.open_room())
        for second in range(2):
            if second:
                time.sleep(1.1)
            for i in range(50):
                peer.send_packet(np.zeros((2, 1), np.int16), 50 * second + i)
            peer.send(PING, b"still there")
            assert peer.read_frame() == (PONG, b"still there")
        for i in range(51):  # more than a second allows, whenever it began
            peer.send_packet(np.zeros((2, 1), np.int16), 100 + i)
        assert peer.wait_closed().code == 4429
        Peer.close_all()


def test_texts_for_a_listener_that_reads_none_pile_up_to_a_limit(
    relay: Relay, events: Events
) -> None:
    room = relay.open_room()
    deaf, other = bind_listener(relay, room), bind_listener(relay, room)
    text = '{"type":"news","text":"' + "x" * 4000 + '"}'
    closed, told = None, 0
    while closed is None:
        relay.send_room(room, text)
        told += 1
        assert other.next_text("news")
        closed = next((e for e in relay.poll() if isinstance(e, ConnectionClosed)), None)
        # A MiB, and what its socket and ours hold.
        assert told * len(text) < 16 << 20, "texts pile up without end"
    assert (closed.connection, closed.reason) == (deaf.connection, CloseReason.TOO_SLOW)
    assert closed.detail == "messages piled up unread"
    relay.send_room(room, text)
    assert other.next_text("news")


def test_mixes_that_wait_for_a_listener_count_as_what_they_take() -> None:
    """Which is far more than their messages, or no message at all."""
    most, gains_bytes = 200_000, 2 * 4 * client.MAX_CHANNELS
    with Relay(threads=1, max_queued_bytes=most, max_lag_ms=100, ping_interval_ms=100) as relay:
        events = Events(relay)
        room = relay.open_room()
        deaf = bind_listener(relay, room)
        lag_ms = 0.0
        while lag_ms < 1500:  # it answers no ping: soon nothing is sent any more
            relay.inspect(room)
            lag_ms = events.wait(RoomReport).listeners[0].lag_ms
            time.sleep(0.05)
        for i in range(10):
            relay.subscribe(deaf.connection, Subscription(mode="mix", faders=[i / 10]))
        relay.inspect(room)
        assert events.wait(RoomReport).listeners
        for i in range(most // gains_bytes):
            relay.subscribe(deaf.connection, Subscription(mode="mix", faders=[1 + i / 1000]))
        closed = events.wait(ConnectionClosed)
        assert (closed.connection, closed.reason) == (deaf.connection, CloseReason.TOO_SLOW)
        assert closed.detail == "messages piled up unread"
        Peer.close_all()


def test_frames_that_two_listeners_share_take_little_memory() -> None:
    """Channels that a room does not have are silent and cost as much: anybody may ask."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    frames, frame_bytes = 110, 63 * 4 * FRAME  # all that is kept, and more

    def hear(peer: Peer) -> None:
        left, scratch = frames * frame_bytes, bytearray(1 << 20)
        while left > 0:
            got = peer.sock.recv_into(scratch)
            assert got, "it was closed"
            left -= got

    with (
        ThreadPoolExecutor() as readers,
        Relay(threads=1, ping_interval_ms=60_000) as relay,  # nobody answers
        on_air(relay, channels=1) as room,
    ):
        wish = Subscription(channels=range(1, 64), encoding="pcm_f32le")
        peers = [bind_listener(relay, room, wish) for _ in range(2)]
        peers[0].next_frame()
        before = resident()
        list(readers.map(hear, peers))
        assert resident() - before < 8 << 20


def test_who_is_not_read_from_is_not_pinged() -> None:
    """A pong would stand behind what it said and tell nothing of its lag."""
    with Relay(threads=1, ping_interval_ms=100) as relay, on_air(relay) as room:
        listener = bind_listener(relay, room)
        for _ in range(20):  # nobody takes them
            listener.send_json(type="ping")
        until_s, opcodes = time.monotonic() + 1.0, []
        while time.monotonic() < until_s:
            opcodes.append(listener.read_frame()[0])
        assert PING not in opcodes
        relay.poll()
        relay.poll()  # those of the last one are done with
        while listener.read_frame()[0] != PING:
            pass
