"""The pacing scenario: how late ticks are while the server's Python is tortured, and when not."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from benchmarks import machine, natives
from benchmarks.child import Child
from benchmarks.load import LoadClient, Measured
from benchmarks.scenarios import SETTLE_S, SPARE_S, Progress
from benchmarks.subjects import TORTURED, RunningServer, running_server
from benchmarks.workload import Workload

CONDITIONS: Final = ("quiet", "gil", "loop", "gc", "bcrypt")
"""Nothing, and the tortures of `benchmarks.tortured_server`."""
SCHEDULING: Final = ("fifo", "slice")
"""With SCHED_FIFO, and without: then with a short slice."""
ANSWER_S: Final = 60.0

Ranges = Mapping[float, int]
"""Counts by bounds in µs: so many are under this one and not under the one before."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """Quantiles of `Ranges`, µs; each is the bound of its range, and up to a quarter too high."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, ranges: Ranges) -> Lateness:
        """All zero for nothing."""
        count = sum(ranges.values())

        def quantile(share: float) -> float:
            rank, seen = math.floor(share * count), 0
            for bound in sorted(ranges):
                seen += ranges[bound]
                if seen > rank:
                    return bound
            return max((bound for bound, n in ranges.items() if n), default=0.0)

        return cls(count, *(quantile(share) for share in (0.5, 0.99, 0.999, 1.0)))

    @classmethod
    def over(cls, rounds: Sequence[Lateness]) -> Lateness:
        """Of several rounds, at least one: all counts, the median of each quantile, the worst."""
        return cls(
            count=sum(r.count for r in rounds),
            p50=statistics.median(r.p50 for r in rounds),
            p99=statistics.median(r.p99 for r in rounds),
            p999=statistics.median(r.p999 for r in rounds),
            max=max(r.max for r in rounds),
        )


@dataclass(frozen=True, slots=True)
class PacingSample:
    """One condition in one round: lateness of ticks, of the floor's wake-ups, of frames' arrival.

    `torture` is what was done to Python, `granted` the scheduling that the kernel gave.
    """

    round: int
    scheduling: str
    granted: str
    condition: str
    ticks: dict[float, int]
    floor: dict[float, int]
    arrival: dict[float, int]
    measured: Measured
    torture: dict[str, Any]
    others: float

    def as_json(self) -> dict[str, Any]:
        """As it is kept: ranges as pairs, since a key would become text."""
        ranges = {name: list(getattr(self, name).items()) for name in ("ticks", "floor", "arrival")}
        return asdict(self) | ranges


@dataclass(frozen=True, slots=True)
class PacingRow:
    """One condition under one scheduling, over all rounds; µs."""

    scheduling: str
    granted: str
    condition: str
    ticks: Lateness
    floor: Lateness
    ratio: float
    arrival: Lateness
    missing: int
    others: float


@dataclass(frozen=True, slots=True)
class PacingResult:
    """Lateness of ticks, the floor beside it."""

    workload: Workload
    seconds: float
    samples: list[PacingSample] = field(default_factory=list)

    def rows(self) -> list[PacingRow]:
        """The summary: a row for each scheduling and condition, and one for all tortures."""
        rows = []
        for scheduling in dict.fromkeys(s.scheduling for s in self.samples):
            mine = [s for s in self.samples if s.scheduling == scheduling]
            rows += [
                _row(condition, [s for s in mine if s.condition == condition])
                for condition in dict.fromkeys(s.condition for s in mine)
            ]
            if tortured := [s for s in mine if s.condition != "quiet"]:
                rows.append(_row("all", tortured))
        return rows

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "pacing",
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "title": str(self.workload),
            "rounds": max((s.round for s in self.samples), default=-1) + 1,
            "seconds": self.seconds,
            "summary": [asdict(row) for row in self.rows()],
            "samples": [s.as_json() for s in self.samples],
        }


def _row(condition: str, samples: Sequence[PacingSample]) -> PacingRow:
    ticks = _over_rounds(samples, lambda s: s.ticks)
    floor = _over_rounds(samples, lambda s: s.floor)
    return PacingRow(
        samples[0].scheduling,
        samples[0].granted,
        condition,
        ticks,
        floor,
        round(ticks.p999 / floor.p999, 2) if floor.p999 else 0.0,
        _over_rounds(samples, lambda s: s.arrival),
        sum(s.measured.missing for s in samples),
        round(max(s.others for s in samples), 2),
    )


def _over_rounds(samples: Sequence[PacingSample], of: Callable[[PacingSample], Ranges]) -> Lateness:
    rounds = dict.fromkeys(s.round for s in samples)
    return Lateness.over(
        [Lateness.of(_sum(of(s) for s in samples if s.round == number)) for number in rounds]
    )


def _sum(ranges: Iterable[Ranges]) -> Ranges:
    total: Counter[float] = Counter()
    for one in ranges:
        total.update(one)
    return total


def pacing(
    workload: Workload,
    conditions: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> PacingResult:
    """Measures lateness under each condition, with real-time scheduling and without.

    The order of the two turns from round to round.
    """
    result = PacingResult(workload, seconds)
    steps = rounds * len(SCHEDULING) * len(conditions)
    for number in range(rounds):
        for scheduling in SCHEDULING[:: -1 if number % 2 else 1]:
            with _Rig.start(workload, scheduling, len(conditions) * seconds) as rig:
                for condition in conditions:
                    progress(
                        f"round {number + 1} of {rounds}: {scheduling}, {condition}",
                        len(result.samples) / steps,
                    )
                    result.samples.append(rig.sample(number, condition, seconds))
    progress("done", 1.0)
    return result


@dataclass(frozen=True, slots=True)
class _Rig:
    """A server that can be tortured, its listeners, and the floor, all running."""

    scheduling: str
    granted: str
    server: RunningServer
    load: LoadClient
    floor: Child

    @classmethod
    @contextmanager
    def start(cls, workload: Workload, scheduling: str, seconds: float) -> Iterator[_Rig]:
        realtime = scheduling == "fifo"
        limit = round(seconds) + SPARE_S
        options = ["--realtime" if realtime else "--no-realtime"]
        with ExitStack() as stack:
            server = stack.enter_context(
                running_server(workload, limit, module=TORTURED, options=options)
            )
            server.child.tell("relay")
            offset_us = server.child.expect("relay", ANSWER_S)["clock_offset_us"]
            target = replace(server.target, clock_offset_us=offset_us)
            # Not above a relay without: each receipt would stop its sends.
            load = stack.enter_context(
                LoadClient(target, max_seconds=limit, kernel_times=True, realtime=realtime)
            )
            load.join(workload.listeners)
            floor = stack.enter_context(
                Child(
                    [
                        natives.build("wake_floor"),
                        *("--tick-us", str(workload.frame_ms * 1000)),
                        *("--realtime", str(int(realtime))),
                        *("--max-seconds", str(limit)),
                    ]
                )
            )
            granted = floor.expect("waking", ANSWER_S)["scheduling"]
            load.wait_for_frames(max(1, round(SETTLE_S * workload.frames_per_s)))
            yield cls(scheduling, granted, server, load, floor)

    def sample(self, number: int, condition: str, seconds: float) -> PacingSample:
        """An interval of so many seconds at least: a torture is waited for."""
        child = self.server.child
        did: dict[str, Any] = {}
        before, _ = self._ticks(), self._wakes()
        used = machine.CpuSnapshot.take(child.pid)
        if condition != "quiet":
            child.tell(f"torture {condition} {seconds}")
            child.expect("torture_begins", ANSWER_S)
        measured = self.load.measure(seconds)
        used = machine.CpuSnapshot.take(child.pid).since(used)
        if condition != "quiet":
            said = child.expect("torture_over", seconds + ANSWER_S)
            did = {k: v for k, v in said.items() if isinstance(v, int)}
        after, wakes = self._ticks(), self._wakes()
        cores = used.cores(
            server_s=measured.server_cpu_s,
            client_s=measured.client_cpu_s,
            seconds=measured.seconds,
        )
        return PacingSample(
            number,
            self.scheduling,
            self.granted,
            condition,
            {bound: n - before[bound] for bound, n in after.items() if n != before[bound]},
            wakes,
            {float(bound): n for bound, n in measured.arrival_us},
            measured,
            did,
            cores.others,
        )

    def _ticks(self) -> dict[float, int]:
        self.server.child.tell("relay")
        said = self.server.child.expect("relay", ANSWER_S)["tick_late_us"]
        return {float(bound): n for bound, n in said.items()}

    def _wakes(self) -> dict[float, int]:
        self.floor.tell("read")
        return {float(bound): n for bound, n in self.floor.expect("woken", ANSWER_S)["late_us"]}
