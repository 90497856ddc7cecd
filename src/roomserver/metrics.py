"""What Prometheus scrapes: figures of the relay, the rooms, the store and HTTP.

A scrape takes a snapshot, which takes as long as a thousand rooms are counted quickly, and makes
its text of it in a thread: the event loop goes on. Names are in base units; labels are bounded,
and of the rooms only those with the most listeners have series of their own.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

import relaycore
from relaycore.counters import RelayCounters, RoomCounters, ThreadCounters
from roomserver.auth.passwords import PasswordPool
from roomserver.protocol.codes import RoomState
from roomserver.rooms.connections import Connections
from roomserver.rooms.registry import Rooms
from roomserver.store.figures import DatabaseState, StoreFigures
from roomserver.store.interfaces import RoomStore
from roomserver.store.records import LeaveReason

# Of the relay's own 77 bounds of how late ticks were, in us; each is one of them.
TICK_BOUNDS_US = (8, 32, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 262144, 1048576)
REQUEST_BOUNDS_S = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 10)
# What an outbox may hold of what it can before the server counts as behind.
BEHIND_SHARE = 0.5

# name, what it says; of each thread, as of now and since its start
THREAD_GAUGES = {
    "connections": "Connections of a relay thread.",
    "listeners": "Listeners of a relay thread.",
    "rooms": "Rooms whose timeline a relay thread has.",
}
THREAD_COUNTERS = {
    "ticks": "Ticks: frames of audio that rooms made.",
    "frames_sent": "Frames sent to listeners.",
    "frames_dropped": "Frames that listeners missed because they lagged.",
    "frames_built": "Frames rendered, each for all listeners that share it.",
    "bytes_sent": "Bytes sent to clients.",
    "bytes_received": "Bytes received from clients.",
    "sends": "Calls of sendmsg.",
    "packets": "Packets received from sources.",
    "evicted": "Listeners reset because they took nothing.",
    "stalls": "Times the thread was found late by more than the watchdog's limit.",
}
ROOM_COUNTERS = {
    "packets": "Packets received from the sources of a room.",
    "frames_sent": "Frames sent to listeners of a room.",
    "frames_dropped": "Frames that listeners of a room missed because they lagged.",
    "bytes_sent": "Bytes sent to listeners of a room.",
}


class RelayFigures(Protocol):
    """Of the relay what is needed here; `rooms.media.Media` has it."""

    @property
    def stalled(self) -> frozenset[int]: ...

    def counters(self) -> RelayCounters: ...


class RequestFigures:
    """HTTP requests, counted as they are answered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = CounterMetric(
            "roomserver_http_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._durations = Histogram(
            "roomserver_http_request_duration_seconds",
            "From the head of an HTTP request to its answer.",
            ("route",),
            buckets=REQUEST_BOUNDS_S,
            registry=registry,
        )
        # Looking for the series takes longer than counting.
        self._found: dict[tuple[str, str, int], tuple[CounterMetric, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, duration_s: float) -> None:
        """One more; `method` and `route` are of a bounded number, not what a client makes up."""
        key = (method, route, status)
        found = self._found.get(key)
        if found is None:
            count = self._requests.labels(method, route, str(status))
            found = self._found[key] = (count, self._durations.labels(route))
        count, durations = found
        count.inc()
        durations.observe(duration_s)


@dataclass(frozen=True, slots=True)
class _Room:
    """One room at the moment of a snapshot."""

    id: str
    listeners: int
    live: bool
    counters: RoomCounters | None


@dataclass(frozen=True, slots=True)
class _Pool:
    name: str
    waiting: int
    capacity: int
    refused: int


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Everything at one moment, which another thread may read at its leisure."""

    relay: RelayCounters
    stalled: frozenset[int]
    states: Counter[RoomState]
    connections: dict[str, int]  # by role
    ended: Mapping[LeaveReason, int]
    rooms: Sequence[_Room]
    hidden: int
    pools: Sequence[_Pool]
    store: StoreFigures


class Metrics:
    """The figures of one server. One event loop."""

    def __init__(
        self,
        *,
        media: RelayFigures,
        rooms: Rooms,
        connections: Connections,
        store: RoomStore,
        pools: Sequence[PasswordPool],
        most_rooms: int,
    ) -> None:
        """most_rooms: how many have series of their own."""
        self._media = media
        self._rooms = rooms
        self._connections = connections
        self._store = store
        self._pools = pools
        self._most_rooms = most_rooms
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self.requests = RequestFigures(self._registry)

    async def text(self) -> bytes:
        """All of it in Prometheus' text format. Raises RelayClosedError."""
        snapshot = self._snapshot()
        return await asyncio.to_thread(self._render, snapshot)

    async def not_ready(self) -> list[str]:
        """Why new clients should rather go elsewhere; empty: they are welcome."""
        store = self._store.figures()
        reasons = []
        if not await self._store.reachable():
            reasons.append("database_away")
        if store.waiting > BEHIND_SHARE * store.capacity:
            reasons.append("outbox_behind")
        if self._media.stalled:
            reasons.append("relay_thread_stalled")
        return reasons

    def _render(self, snapshot: _Snapshot) -> bytes:
        # A registry of its own for each scrape, so that two at once don't see each other's.
        registry = CollectorRegistry()
        registry.register(_Scrape(snapshot))
        return generate_latest(self._registry) + generate_latest(registry)

    def _snapshot(self) -> _Snapshot:
        relay = self._media.counters()
        rooms = list(self._rooms)
        shown = heapq.nlargest(self._most_rooms, rooms, key=lambda room: len(room.listeners))
        listeners = sum(len(room.listeners) for room in rooms)
        sources = sum(room.has_broadcaster for room in rooms)
        return _Snapshot(
            relay=relay,
            stalled=self._media.stalled,
            states=Counter(room.state for room in rooms),
            connections={
                "listener": listeners,
                "broadcaster": sources,
                "unregistered": max(0, len(self._connections) - listeners - sources),
            },
            ended=dict(self._connections.ended),
            rooms=[
                _Room(
                    room.id,
                    len(room.listeners),
                    room.live_timestamp is not None and not room.buffering,
                    relay.rooms.get(room.media_id),
                )
                for room in shown
            ],
            hidden=len(rooms) - len(shown),
            pools=[
                _Pool(pool.name, pool.waiting, pool.capacity, pool.refused) for pool in self._pools
            ],
            store=self._store.figures(),
        )


class _Scrape(Collector):
    """Makes metrics of a snapshot."""

    def __init__(self, snapshot: _Snapshot) -> None:
        self._now = snapshot

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that asks would collect to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "roomserver_build", "Which release this is.", {"version": relaycore.__version__}
        )
        yield from self._relay()
        yield from self._overview()
        yield from self._each_room()
        yield from self._passwords()
        yield from self._kept()

    def _relay(self) -> Iterator[Metric]:
        threads = self._now.relay.threads
        for name, help_text in THREAD_GAUGES.items():
            yield _of_threads(GaugeMetricFamily, name, help_text, threads)
        for name, help_text in THREAD_COUNTERS.items():
            yield _of_threads(CounterMetricFamily, name, help_text, threads)
        stalled = GaugeMetricFamily(
            "roomserver_relay_stalled", "Whether a relay thread is late now.", labels=("thread",)
        )
        late = HistogramMetricFamily(
            "roomserver_relay_tick_late_seconds",
            "How late a tick's audio was there.",
            labels=("thread",),
        )
        latest = GaugeMetricFamily(
            "roomserver_relay_tick_late_max_seconds",
            "How late the latest of all ticks was.",
            labels=("thread",),
        )
        for number, thread in enumerate(threads):
            label = (str(number),)
            stalled.add_metric(label, number in self._now.stalled)
            late.add_metric(label, _buckets(thread.tick_late_us), sum_value=None)
            latest.add_metric(label, thread.tick_late_ns_max / 1e9)
        yield from (stalled, late, latest)

    def _overview(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("roomserver_rooms", "Open rooms.", labels=("state",))
        for state in RoomState:
            if state is not RoomState.CLOSED:
                states.add_metric((state.value,), self._now.states[state])
        yield states
        connections = GaugeMetricFamily(
            "roomserver_connections", "WebSocket connections.", labels=("role",)
        )
        for role, count in self._now.connections.items():
            connections.add_metric((role,), count)
        yield connections
        ended = CounterMetricFamily(
            "roomserver_connections_ended", "WebSocket connections that ended.", labels=("reason",)
        )
        for reason, count in self._now.ended.items():
            ended.add_metric((reason.value,), count)
        yield ended

    def _each_room(self) -> Iterator[Metric]:
        listeners = GaugeMetricFamily(
            "roomserver_room_listeners", "Listeners of a room.", labels=("room",)
        )
        live = GaugeMetricFamily(
            "roomserver_room_live", "Whether a room's source plays.", labels=("room",)
        )
        totals = {
            name: CounterMetricFamily(f"roomserver_room_{name}", text, labels=("room",))
            for name, text in ROOM_COUNTERS.items()
        }
        for room in self._now.rooms:
            label = (room.id,)
            listeners.add_metric(label, room.listeners)
            live.add_metric(label, room.live)
            if room.counters is not None:
                for name, metric in totals.items():
                    metric.add_metric(label, getattr(room.counters, name))
        yield from (listeners, live, *totals.values())
        yield GaugeMetricFamily(
            "roomserver_rooms_without_series",
            "Open rooms that have no series of their own.",
            self._now.hidden,
        )

    def _passwords(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "roomserver_password_checks_waiting",
            "Passwords that are checked or wait for it.",
            labels=("pool",),
        )
        capacity = GaugeMetricFamily(
            "roomserver_password_checks_capacity",
            "How many may wait before more are refused.",
            labels=("pool",),
        )
        refused = CounterMetricFamily(
            "roomserver_password_checks_refused",
            "Passwords that were not checked because too many waited.",
            labels=("pool",),
        )
        for pool in self._now.pools:
            waiting.add_metric((pool.name,), pool.waiting)
            capacity.add_metric((pool.name,), pool.capacity)
            refused.add_metric((pool.name,), pool.refused)
        yield from (waiting, capacity, refused)

    def _kept(self) -> Iterator[Metric]:
        store = self._now.store
        if store.database is DatabaseState.NONE:
            return
        yield GaugeMetricFamily(
            "roomserver_database_up",
            "Whether the database takes what there is.",
            store.database is DatabaseState.UP,
        )
        yield GaugeMetricFamily(
            "roomserver_outbox_events", "Events that wait for the database.", store.waiting
        )
        yield GaugeMetricFamily(
            "roomserver_outbox_capacity_events",
            "Events that may wait before some are dropped.",
            store.capacity,
        )
        dropped = CounterMetricFamily(
            "roomserver_outbox_dropped_events",
            "Events dropped because the outbox was full.",
            labels=("kind",),
        )
        for kind, count in store.dropped.items():
            dropped.add_metric((kind,), count)
        yield dropped
        yield CounterMetricFamily(
            "roomserver_outbox_dead_letters",
            "Events that the database refused.",
            store.dead_letters,
        )


def _of_threads(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    help_text: str,
    threads: Sequence[ThreadCounters],
) -> Metric:
    metric = kind(f"roomserver_relay_{name}", help_text, labels=("thread",))
    for number, thread in enumerate(threads):
        metric.add_metric((str(number),), getattr(thread, name))
    return metric


def _buckets(late_us: dict[float, int]) -> list[tuple[str, float]]:
    """The relay's many bounds brought down to a few, each counting all below it."""
    found = []
    below = 0
    bounds = iter((*TICK_BOUNDS_US, float("inf")))
    bound = next(bounds)
    for upper, count in late_us.items():
        below += count
        if upper == bound:
            found.append(("+Inf" if bound == float("inf") else repr(bound / 1e6), float(below)))
            bound = next(bounds, float("nan"))
    return found
