"""Floods that no limit forbids: many connections send without end what costs most to read.

What is due to others is made and sent in time all the same, nothing of a flood is kept, and of
each no more is read than its quota, of all no more than a thread has time for beside the audio.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relaycore import Relay
from relaycore.events import TextReceived
from support.api_client import Api, source_wish
from support.flood import FLOODS, Flood
from support.freeze import cpu_s, thread_named
from support.hostile import Bystanders, Memory, make_room, websocket_peer
from support.peer import Events, Peer
from support.relay_room import Source, bind_listener, bind_source, noise
from support.server import ServerProcess

FLOODERS = 64
MANY_FLOODERS = 400
FLOOD_S = 5.0
#: What is read in a second: of a connection with texts of 64 KiB at most, and of a source of two
#: channels at 48 kHz in 16 bits.
QUOTA_BYTES = 1 << 20
SOURCE_QUOTA_BYTES = (8 << 20) + 4 * 192_000
#: Of a thread's time floods get two fifths, and there are the audio and the waking up.
MAX_CPU_SHARE = 0.8
LEAST_BYTES = 16 << 20  # or it was no flood
#: A relay that reads from all of them before it looks at the clock is later with most ticks; one
#: that is held up by whatever else the machine does, with few.
LATE_S = 0.066
SHARED_LATE_US = 131_072.0
FEW = 0.05
MAX_GROWTH_BYTES = 8 << 20
TOKEN = "scrape-" + "0123456789" * 4


@pytest.fixture  # each its own: what is left of a flood is still to be read when it is over
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    # A bystander that gets no time to read is no slow listener.
    options = ("--threads=1", "--max-lag-ms=30000", "--evict-after-s=60", "--register-timeout-s=60")
    with ServerProcess.start(
        tmp_path, *options, env={"ROOMSERVER_METRICS_TOKEN": TOKEN}
    ) as process:
        process.add_user()
        yield process


@dataclass
class Figures:
    """Of the relay's thread, since its start."""

    at_s: float
    cpu_s: float
    bytes_received: float
    ticks: float
    ticks_in_time: float

    @classmethod
    async def of(cls, server: ServerProcess) -> Figures:
        """As of now."""
        async with aiohttp.ClientSession() as session:
            answer = await Api(server.url, session).call("GET", "/metrics", token=TOKEN)
        families = {f.name: f.samples for f in text_string_to_metric_families(answer.body)}
        late = families["roomserver_relay_tick_late_seconds"]
        buckets = {float(s.labels["le"]): s.value for s in late if "le" in s.labels}
        return cls(
            time.monotonic(),
            cpu_s(thread_named(server.pid, "relay-0")),
            sum(s.value for s in families["roomserver_relay_bytes_received"]),
            buckets[float("inf")],
            max(n for le, n in buckets.items() if le <= LATE_S),
        )

    def since(self, before: Figures) -> Figures:
        """What has happened between the two."""
        return Figures(*(a - b for a, b in zip(astuple(self), astuple(before), strict=True)))


@pytest.mark.parametrize(
    ("role", "count", "kind"),
    [
        *(("listener", FLOODERS, kind) for kind in FLOODS),
        ("unregistered", MANY_FLOODERS, "pongs"),
        ("source", 1, "pongs"),
    ],
)
async def test_a_flood_holds_nobody_up_and_fills_nothing(
    server: ServerProcess, role: str, count: int, kind: str
) -> None:
    room, token = await make_room(server)
    silent, silent_token = await make_room(server)
    listener = {"type": "registerListener", "roomId": silent.id, "roomToken": silent_token}
    registrations: dict[str, dict[str, Any] | None] = {
        "listener": listener,
        "source": {"type": "registerSource", **source_wish(silent)},
        "unregistered": None,
    }
    quota = SOURCE_QUOTA_BYTES if role == "source" else QUOTA_BYTES
    with Bystanders.in_room(server, room, token) as everyone:
        with ExitStack() as stack:
            peers = [websocket_peer(server, registrations[role]) for _ in range(count)]
            for peer in peers:
                stack.callback(peer.close)
            before, memory = await Figures.of(server), Memory.of(server)
            taken = await asyncio.to_thread(Flood(peers, kind).send, FLOOD_S)
            flood, grown = (await Figures.of(server)).since(before), Memory.of(server).since(memory)
            everyone.check()
        late = flood.ticks - flood.ticks_in_time
        print(
            f"{taken >> 20} MB taken, {flood.bytes_received / 2**20:.0f} MB read in "
            f"{flood.at_s:.1f} s and {flood.cpu_s:.1f} s of CPU, "
            f"{late:.0f} of {flood.ticks:.0f} ticks late, grown by {grown}"
        )
        assert taken > LEAST_BYTES
        # A second has begun before the first and may not be over at the end; and the bystanders'.
        most = (flood.at_s + 2) * (count * quota + SOURCE_QUOTA_BYTES / 16)
        assert flood.bytes_received < most
        assert flood.cpu_s < MAX_CPU_SHARE * flood.at_s
        assert flood.ticks >= 0.5 * FLOOD_S * 50
        assert late <= FEW * flood.ticks
        assert grown < MAX_GROWTH_BYTES
        everyone.check()


@pytest.mark.parametrize(
    ("count", "deliver_binary", "kind"),
    [*((FLOODERS, True, kind) for kind in FLOODS), (MANY_FLOODERS, False, "pongs")],
)
def test_ticks_and_answers_do_not_wait_for_those_who_flood(
    count: int, deliver_binary: bool, kind: str
) -> None:
    """Neither where each has no quota, as a program's own, nor where they are many."""
    # Not in real time: it gives that up for moments, in which threads that flood may go first.
    with Relay(threads=1, realtime=False, max_lag_ms=30_000, register_timeout_s=60) as relay:
        events = Events(relay)
        room = relay.open_room()
        source = Source(bind_source(relay, room, buffer_ms=1000), noise(2, FLOOD_S + 6))
        listener = bind_listener(relay, room)
        asking = Peer.attach(relay)
        source.start()
        listener.next_frame()
        flood = Flood(
            [Peer.attach(relay, deliver_binary=deliver_binary) for _ in range(count)], kind
        )
        before = relay.counters().threads[0]
        thread = threading.Thread(target=flood.send, args=[FLOOD_S])
        thread.start()
        waits = []
        while thread.is_alive():
            asked = time.monotonic()
            asking.send_json(type="still there?")
            events.wait(TextReceived)
            relay.send(asking.connection, "{}")
            assert asking.next_text() == {}
            waits.append(time.monotonic() - asked)
            thread.join(0.05)  # who asks all the time floods as well
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
