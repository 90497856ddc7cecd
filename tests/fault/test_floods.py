"""Floods that no limit forbids: many connections send without end what costs most to read.

What is due to others is made and sent in time all the same, and nothing of a flood is kept.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relaycore import Relay
from support.api_client import Api
from support.flood import FLOODS, Flood
from support.hostile import Bystanders, Memory, make_room, websocket_peer
from support.peer import Events, Peer
from support.relay_room import Source, bind_listener, bind_source, noise
from support.server import ServerProcess

FLOODERS = 64
FLOOD_S = 5.0
LEAST_BYTES = 16 << 20  # or it was no flood
#: A relay that reads from all of them before it looks at the clock is later with most ticks; one
#: that is held up by whatever else the machine does, with few.
LATE_S = 0.066
SHARED_LATE_US = 131_072.0
FEW = 0.05
MAX_GROWTH_BYTES = 8 << 20
TOKEN = "scrape-" + "0123456789" * 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    # A bystander that gets no time to read is no slow listener.
    options = ("--threads=1", "--max-lag-ms=30000", "--evict-after-s=60")
    directory = tmp_path_factory.mktemp("floods")
    with ServerProcess.start(
        directory, *options, env={"ROOMSERVER_METRICS_TOKEN": TOKEN}
    ) as process:
        process.add_user()
        yield process


@dataclass
class Ticks:
    """Of the relay's thread, since its start."""

    count: float
    in_time: float

    @classmethod
    async def of(cls, server: ServerProcess) -> Ticks:
        """As of now."""
        async with aiohttp.ClientSession() as session:
            answer = await Api(server.url, session).call("GET", "/metrics", token=TOKEN)
        (family,) = (
            family
            for family in text_string_to_metric_families(answer.body)
            if family.name == "roomserver_relay_tick_late_seconds"
        )
        buckets = {float(s.labels["le"]): s.value for s in family.samples if "le" in s.labels}
        return cls(buckets[float("inf")], max(n for le, n in buckets.items() if le <= LATE_S))


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_holds_nobody_up_and_fills_nothing(server: ServerProcess, kind: str) -> None:
    room, token = await make_room(server)
    silent, silent_token = await make_room(server)
    registration = {
        "type": "registerListener",
        "roomId": silent.id,
        "roomToken": silent_token,
    }
    with Bystanders.in_room(server, room, token) as everyone:
        with ExitStack() as stack:
            peers = [websocket_peer(server, registration) for _ in range(FLOODERS)]
            for peer in peers:
                stack.callback(peer.close)
            before, memory = await Ticks.of(server), Memory.of(server)
            taken = await asyncio.to_thread(Flood(peers, kind).send, FLOOD_S)
            after, grown = await Ticks.of(server), Memory.of(server).since(memory)
            everyone.check()
        ticks = after.count - before.count
        late = ticks - (after.in_time - before.in_time)
        print(f"{taken >> 20} MB taken, {late:.0f} of {ticks:.0f} ticks late, grown by {grown}")
        assert taken > LEAST_BYTES
        assert ticks >= 0.5 * FLOOD_S * 50
        assert late <= FEW * ticks
        assert grown < MAX_GROWTH_BYTES
        everyone.check()


@pytest.mark.parametrize("kind", FLOODS)
def test_ticks_and_answers_do_not_wait_where_all_is_read(kind: str) -> None:
    """Of connections of a program's own nothing is left unread: they share what time there is."""
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
        if bound > SHARED_LATE_US
    )
    print(f"{late} of {ticks} ticks late, answers after {max(waits):.3f} s at most")
    assert after.bytes_received - before.bytes_received > LEAST_BYTES
    assert ticks >= 0.5 * FLOOD_S * 50
    assert late <= FEW * ticks
    assert sorted(waits)[len(waits) // 2] < 0.2
