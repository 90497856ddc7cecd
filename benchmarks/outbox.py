"""The scenario `outbox`: events a second into PostgreSQL, alone and while listeners join."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import machine
from benchmarks.database import POLL_S, TAKEN_OVER, Observer
from benchmarks.load import Ask, Joined, LoadClient
from benchmarks.scenarios import SPARE_S, Progress, Spread
from benchmarks.subjects import COUNTED, START_TIMEOUT_S, running_server
from benchmarks.workload import Workload

CONDITIONS: Final[dict[str, int | None]] = {"alone": None, "joins": 200, "flat-out": 0}
"""Joins a second that go on meanwhile: none, so many, or as many as get in."""
WARM_UP: Final = 100
JOINS: Final = 2000
"""Listeners that join meanwhile; after the last of them nothing is counted."""
DRAINED_S: Final = 120.0
WORKLOAD: Final = Workload(1, 1, 8000, "pcm_s16le", 60)


@dataclass(frozen=True, slots=True)
class OutboxSample:
    """One condition in one round: events that the database took over while it lasted.

    `seconds` ends with the last event of the flood, or with the last join if that came first.
    """

    round: int
    condition: str
    seconds: float
    events: int
    joins: int
    joins_s: float
    server_cpu_s: float
    database_cpu_s: float
    machine_cpu_s: float

    @property
    def per_s(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def joins_per_s(self) -> float:
        """Joins a second meanwhile."""
        return self.joins / self.joins_s if self.joins_s else 0.0


@dataclass(frozen=True, slots=True)
class OutboxResult:
    """Events a second through the outbox."""

    events: int
    samples: list[OutboxSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row a condition, medians over the rounds."""

        def row(condition: str) -> dict[str, Any]:
            samples = [s for s in self.samples if s.condition == condition]

            def median(of: Callable[[OutboxSample], float]) -> float:
                return round(statistics.median(of(s) for s in samples), 4)

            return {
                "condition": condition,
                "per_s": asdict(Spread.of([s.per_s for s in samples])),
                "joins_per_s": median(lambda s: s.joins_per_s),
                "server": median(lambda s: s.server_cpu_s / s.seconds),
                "database": median(lambda s: s.database_cpu_s / s.seconds),
                "machine": median(lambda s: s.machine_cpu_s / s.seconds),
            }

        return [row(name) for name in dict.fromkeys(s.condition for s in self.samples)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "outbox",
            "title": f"{self.events} events at once",
            "rounds": max((s.round for s in self.samples), default=-1) + 1,
            "summary": self.rows(),
            "samples": [asdict(s) | {"per_s": s.per_s} for s in self.samples],
        }


def outbox(
    conditions: Sequence[str],
    *,
    events: int,
    rounds: int,
    progress: Progress,
    joins: int = JOINS,
) -> OutboxResult:
    """Floods the outbox of a server with `events`, in each of the conditions by turns."""
    result = OutboxResult(events)
    for number in range(rounds):
        shift = number % len(conditions)
        for i, name in enumerate([*conditions[shift:], *conditions[:shift]]):
            done = (number * len(conditions) + i) / (rounds * len(conditions))
            progress(f"round {number + 1} of {rounds}: {name}", done)
            result.samples.append(_sample(number, name, events, joins))
    progress("done", 1.0)
    return result


def _sample(number: int, condition: str, events: int, joins: int) -> OutboxSample:
    max_seconds = round(SPARE_S + DRAINED_S)
    per_second = CONDITIONS[condition]
    with (
        running_server(
            WORKLOAD, max_seconds, module=COUNTED, database="embedded", with_source=False
        ) as running,
        LoadClient(
            running.target, max_seconds=max_seconds, per_second=per_second or 0, ask=Ask.APART
        ) as load,
        closing(Observer(running.data_dir)) as database,
    ):
        load.join(WARM_UP)
        first = _settled(database)
        before = machine.CpuSnapshot.take(running.child.pid)
        began = time.monotonic()
        running.child.tell(f"flood {running.room['roomId']} {events}")
        if per_second is not None:
            load.begin_join(WARM_UP + joins)
        joined: Joined | None = None
        while (taken := database.value(TAKEN_OVER) - first) < events:
            if per_second is not None and joined is None:
                joined = load.joined_by_now(WARM_UP + joins)
                if joined is not None:
                    break
            if time.monotonic() - began > DRAINED_S:
                raise TimeoutError(f"{taken} of {events} events after {DRAINED_S:g} s")
            time.sleep(POLL_S)
        seconds = time.monotonic() - began
        cpu = machine.CpuSnapshot.take(running.child.pid).since(before)
        if per_second is not None and joined is None:
            joined = load.joined(WARM_UP + joins, DRAINED_S)
        running.child.expect("flooded", START_TIMEOUT_S)
        return OutboxSample(
            number,
            condition,
            seconds,
            taken,
            joins if joined is not None else 0,
            joined.seconds if joined is not None else 0.0,
            sum(cpu.threads.values()),
            sum(cpu.descendants.values()),  # PostgreSQL
            cpu.machine,
        )


def _settled(database: Observer) -> int:
    """Waits until the events of the warm-up are taken over; the number of the last."""
    database.wait_for(TAKEN_OVER, 2 * WARM_UP, DRAINED_S)
    time.sleep(0.2)
    return int(database.value(TAKEN_OVER))
