"""Metrics: what a scrape holds, that it stays bounded, and when a server is not ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relaycore.counters import RelayCounters, RoomCounters, ThreadCounters
from relaycore.events import ThreadStalled
from roomserver.auth.passwords import PoolFullError
from roomserver.config import Settings
from roomserver.metrics import Metrics
from roomserver.rooms.media import Media
from roomserver.rooms.room import Room
from roomserver.store.figures import DatabaseState, StoreFigures
from roomserver.store.memory import MemoryRoomStore
from support.control_plane import ControlPlane

LATE = {8.0: 5, 16.0: 1, 32.0: 2, **dict.fromkeys((128.0, 512.0, 1024.0, 2048.0, 4096.0), 0)}
LATE |= {8192.0: 1, **dict.fromkeys((16384.0, 32768.0, 65536.0, 262144.0, 1048576.0), 0)}
THREAD = ThreadCounters(
    connections=7, listeners=5, rooms=2, ticks=12, tick_late_ns_max=2_500_000_000, frames_sent=60,
    frames_dropped=3, frames_built=4, bytes_sent=999, bytes_received=55, sends=50, packets=48,
    evicted=1, stalls=2, tick_late_us=LATE | {float("inf"): 3},
)  # fmt: skip


@dataclass
class FakeRelay:
    """Figures as a test wants them."""

    threads: tuple[ThreadCounters, ...] = (THREAD, THREAD)
    rooms: dict[int, RoomCounters] = field(default_factory=dict)
    stalled: frozenset[int] = frozenset()

    def counters(self) -> RelayCounters:
        return RelayCounters(self.threads, self.rooms)


class FakeStore(MemoryRoomStore):
    """A store that is as well as a test wants."""

    state = StoreFigures()

    def figures(self) -> StoreFigures:
        return self.state

    async def reachable(self) -> bool:
        return self.state.database is not DatabaseState.AWAY


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    yield plane
    plane.close()


@pytest.fixture
def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def metrics(plane: ControlPlane, relay: FakeRelay, store: FakeStore) -> Metrics:
    return Metrics(
        media=relay,
        rooms=plane.rooms,
        connections=plane.connections,
        store=store,
        pools=[plane.pool],
        most_rooms=2,
    )


async def scrape(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    text = (await metrics.text()).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_relay_is_told_thread_by_thread_in_base_units(metrics: Metrics) -> None:
    found = await scrape(metrics)
    for thread in ("0", "1"):
        assert found["roomserver_relay_listeners", thread] == 5
        assert found["roomserver_relay_frames_sent_total", thread] == 60
        assert found["roomserver_relay_stalls_total", thread] == 2
        assert found["roomserver_relay_tick_late_max_seconds", thread] == 2.5
        late = "roomserver_relay_tick_late_seconds_bucket"
        bounds = {"8e-06": 5, "3.2e-05": 8, "0.004096": 8, "0.008192": 9, "1.048576": 9, "+Inf": 12}
        assert {bound: found[late, bound, thread] for bound in bounds} == bounds


async def test_rooms_and_connections_are_told_in_sum_and_the_fullest_one_by_one(
    plane: ControlPlane, metrics: Metrics, relay: FakeRelay
) -> None:
    rooms: list[Room] = [await plane.room() for _ in range(4)]
    plane.add_source(rooms[0])
    for room, listeners in zip(rooms, (2, 0, 1, 0), strict=True):
        for _ in range(listeners):
            plane.add_listener(room)
    plane.hang_up(plane.connect())
    plane.connect()
    relay.rooms[rooms[0].media_id] = RoomCounters(10, 48, 60, 3, 999, 2)
    found = await scrape(metrics)
    assert found["roomserver_rooms", "active"] == 1
    assert found["roomserver_rooms", "waiting"] == 3
    assert found["roomserver_rooms", "suspended"] == 0
    assert found["roomserver_connections", "listener"] == 3
    assert found["roomserver_connections", "broadcaster"] == 1
    assert found["roomserver_connections", "unregistered"] == 1
    assert found["roomserver_connections_ended_total", "lost"] == 1
    shown = {key[1]: value for key, value in found.items() if key[0] == "roomserver_room_listeners"}
    assert shown == {rooms[0].id: 2, rooms[2].id: 1}
    assert found["roomserver_rooms_without_series",] == 2
    assert found["roomserver_room_frames_dropped_total", rooms[0].id] == 3


async def test_passwords_that_wait_and_those_refused_are_counted(
    plane: ControlPlane, metrics: Metrics
) -> None:
    plane.pool.waiting = plane.pool.capacity
    with pytest.raises(PoolFullError):
        await plane.pool.hash(b"one too many")
    found = await scrape(metrics)
    assert found["roomserver_password_checks_waiting", "test"] == 8
    assert found["roomserver_password_checks_capacity", "test"] == 8
    assert found["roomserver_password_checks_refused_total", "test"] == 1


async def test_the_outbox_is_told_where_there_is_one(metrics: Metrics, store: FakeStore) -> None:
    assert not any(key[0].startswith("roomserver_outbox") for key in await scrape(metrics))
    store.state = StoreFigures(DatabaseState.AWAY, 70, 100, {"join": 4, "leave": 0}, 5)
    found = await scrape(metrics)
    assert found["roomserver_database_up",] == 0
    assert found["roomserver_outbox_events",] == 70
    assert found["roomserver_outbox_capacity_events",] == 100
    assert found["roomserver_outbox_dropped_events_total", "join"] == 4
    assert found["roomserver_outbox_dead_letters_total",] == 5


async def test_a_server_says_why_it_is_not_ready(
    metrics: Metrics, relay: FakeRelay, store: FakeStore
) -> None:
    assert await metrics.not_ready() == []
    store.state = StoreFigures(DatabaseState.UP, 50, 100)
    assert await metrics.not_ready() == []
    store.state = StoreFigures(DatabaseState.UP, 51, 100)
    assert await metrics.not_ready() == ["outbox_behind"]
    store.state = StoreFigures(DatabaseState.AWAY, 51, 100)
    relay.stalled = frozenset({1})
    reasons = ["database_away", "outbox_behind", "relay_thread_stalled"]
    assert await metrics.not_ready() == reasons


async def test_a_thread_is_stalled_from_when_it_is_said_until_it_goes_on(
    plane: ControlPlane,
) -> None:
    media = Media(Settings(threads=1, realtime=False))
    media.start(plane.connections)
    try:
        assert media.stalled == frozenset()
        media._deliver(ThreadStalled(0, 600.0, False))
        assert media.stalled == {0}
        media._deliver(ThreadStalled(0, 900.0, True))
        assert media.stalled == frozenset()
        assert len(media.counters().threads) == 1
    finally:
        await media.stop(1.0)
