"""Connections of which all is read, however much they send: they share what time there is."""

from __future__ import annotations

import threading
import time

import pytest

from relaycore import Relay
from support.flood import FLOODS, Flood
from support.peer import Events, Peer
from support.relay_room import Source, bind_listener, bind_source, noise

FLOODERS = 64
FLOOD_S = 4.0
LATE_US = 131_072.0  # on a machine that others use; reading from all in one go takes a second


@pytest.mark.parametrize("kind", FLOODS)
def test_ticks_and_answers_do_not_wait_for_those_who_flood(kind: str) -> None:
    # Not in real time: of that the kernel takes a twentieth away from a thread that is never idle.
    with Relay(threads=1, realtime=False, max_lag_ms=30_000) as relay:
        events = Events(relay)
        room = relay.open_room()
        source = Source(bind_source(relay, room, buffer_ms=1000), noise(2, FLOOD_S + 6))
        listener = bind_listener(relay, room)
        asking = Peer.attach(relay)
        source.start()
        listener.next_frame()
        flood = Flood([Peer.attach(relay, deliver_binary=True) for _ in range(FLOODERS)], kind)
        before = relay.counters().threads[0]
        thread = threading.Thread(target=flood.send, args=[FLOOD_S])
        thread.start()
        waits = []
        while thread.is_alive():
            asked = time.monotonic()
            asking.send_json(type="still there?")
            relay.send(asking.connection, "{}")
            assert asking.next_text() == {}
            waits.append(time.monotonic() - asked)
            events.seen += relay.poll()
        after = relay.counters().threads[0]
        source.stop()
        Peer.close_all()
    ticks = after.ticks - before.ticks
    late = sum(
        count - before.tick_late_us[bound]
        for bound, count in after.tick_late_us.items()
        if bound > LATE_US
    )
    print(f"{late} of {ticks} ticks late, answers after {max(waits):.3f} s at most")
    assert after.bytes_received - before.bytes_received > 64 << 20, "it was a flood"
    assert ticks > 0.8 * FLOOD_S * 50
    assert late <= 0.02 * ticks
    assert sorted(waits)[len(waits) // 2] < 0.1
