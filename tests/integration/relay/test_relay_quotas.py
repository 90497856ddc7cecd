"""Quotas: how much of a connection is read in a second, and what becomes of them with its role."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest

from relaycore import Relay
from relaycore.events import CloseReason, ConnectionClosed, TextReceived
from support.flood import Flood
from support.peer import PONG, Events, Peer, mask
from support.relay_room import bind_source

QUOTA_BYTES = 1 << 20  # 16 texts of 64 KiB
PONGS = mask(PONG, b"") * ((2 << 20) // 6)  # more than a second's quota, but not of a source
FLOOD_S = 3.0
IDLE = 200
ROUNDS = 7


@pytest.fixture
def crowded() -> Iterator[Relay]:
    """A relay that has so many connections that it takes a second to look at each."""
    with Relay(threads=1, realtime=False, register_timeout_s=60) as relay:
        for _ in range(IDLE):
            Peer.attach(relay)
        yield relay
        Peer.close_all()


def wait_until_read(relay: Relay, total: int) -> None:
    """Until the relay has received so many bytes since its start."""
    end = time.monotonic() + 20
    while relay.counters().threads[0].bytes_received < total:
        assert time.monotonic() < end, "it is not read"
        time.sleep(0.001)


@pytest.mark.parametrize("idle", [0, 30])
def test_of_one_who_floods_its_quota_is_read_every_second_and_no_more(idle: int) -> None:
    """However many others the thread has to look at."""
    with Relay(threads=1, realtime=False, register_timeout_s=60) as relay:
        for _ in range(idle):
            Peer.attach(relay)
        flood = Flood([Peer.attach(relay)], "pongs")
        begun = time.monotonic()
        flood.send(FLOOD_S)
        took_s = time.monotonic() - begun
        read = relay.counters().threads[0].bytes_received
        Peer.close_all()
    print(f"{read / QUOTA_BYTES:.2f} quotas in {took_s:.2f} s")
    assert 2 * QUOTA_BYTES <= read <= (took_s + 1) * QUOTA_BYTES


def test_a_source_that_is_none_any_more_is_heard_at_once(crowded: Relay) -> None:
    """Also if it has said more as a source than others may."""
    events = Events(crowded)
    room = crowded.open_room()
    waits_s = []
    for number in range(ROUNDS):
        source = bind_source(crowded, room, stream=number + 1)
        total = crowded.counters().threads[0].bytes_received + len(PONGS)
        source.sock.sendall(PONGS)
        wait_until_read(crowded, total)
        crowded.unbind_source(source.connection)
        asked = time.monotonic()
        source.send_json(type="still there?")
        events.wait(TextReceived)
        waits_s.append(time.monotonic() - asked)
    print(f"heard after {waits_s} s")
    assert statistics.median(waits_s) < 0.15


def test_a_source_that_is_closed_says_goodbye_behind_all_it_has_sent(crowded: Relay) -> None:
    events = Events(crowded)
    source = bind_source(crowded, crowded.open_room())
    source.sock.sendall(PONGS)
    wait_until_read(crowded, len(PONGS))
    crowded.close_connection(source.connection, 4410, "enough")
    begun = time.monotonic()
    for _ in range(2):  # under way when it heard of it
        source.sock.sendall(PONGS)
    assert source.wait_closed() == (4410, "enough")
    assert events.wait(ConnectionClosed).reason == CloseReason.CLOSED
    took_s = time.monotonic() - begun
    assert not source.is_reset(), "its answer has been read"
    print(f"closed after {took_s:.2f} s")
    assert took_s < 1.0
