"""The scenario `mixes`: listeners with a mix each that changes, beside the same sharing one."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.crowd import Crowd, Interval
from benchmarks.scenarios import SETTLE_S, SPARE_S, Progress, Spread
from benchmarks.subjects import RunningServer, running_server
from benchmarks.workload import Workload

WORKLOAD: Final = Workload(2000, channels=16)
STEPS_PER_S: Final = 20
"""Changes are spread over each second in so many steps."""
SUBJECTS: Final = ("shared", "own")


@dataclass(frozen=True, slots=True)
class MixesSample:
    """One subject in one round."""

    round: int
    subject: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class MixesResult:
    """Rounds of both."""

    workload: Workload
    seconds: float
    samples: list[MixesSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row a subject; the ratio is that of the server's CPU, by round."""
        base = {s.round: s.interval.us_per_frame for s in self.samples if s.subject == "shared"}

        def row(subject: str) -> dict[str, Any]:
            mine = [s for s in self.samples if s.subject == subject]

            def spread(of: str) -> dict[str, float]:
                return asdict(Spread.of([getattr(s.interval, of) for s in mine]))

            ratios = [s.interval.us_per_frame / base[s.round] for s in mine if base.get(s.round)]
            return {
                "subject": subject,
                "us_per_frame": spread("us_per_frame"),
                "ratio": asdict(Spread.of(ratios)) if ratios else None,
                "delivered": spread("delivered"),
                "missing": sum(s.interval.missing for s in mine),
                "p50_ms": spread("p50_ms"),
                "p99_ms": spread("p99_ms"),
                "server": spread("server"),
                "client": spread("client"),
                "others": max(s.interval.others for s in mine),
            }

        return [row(subject) for subject in dict.fromkeys(s.subject for s in self.samples)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        # Every listener gets two channels, whatever the room has.
        return {
            "scenario": "mixes",
            "workload": asdict(self.workload),
            "title": f"{self.workload.listeners} listeners of stereo mixes of "
            f"{self.workload.channels} channels, frames of {self.workload.frame_ms} ms",
            "rounds": max((s.round for s in self.samples), default=-1) + 1,
            "seconds": self.seconds,
            "summary": self.rows(),
            "samples": [asdict(s) for s in self.samples],
        }


def mixes(
    workload: Workload,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    subjects: Sequence[str] = SUBJECTS,
) -> MixesResult:
    """Measures listeners that share one mix, and as many of whom each changes its own every second.

    In each round both run once, in servers of their own, and their order turns.
    """
    result = MixesResult(workload, seconds)
    for number in range(rounds):
        for i, subject in enumerate(subjects[:: -1 if number % 2 else 1]):
            done = (number * len(subjects) + i) / (rounds * len(subjects))
            progress(f"round {number + 1} of {rounds}: {subject}", done)
            with running_server(workload, round(seconds) + SPARE_S, database="embedded") as running:
                interval = _measure(running, workload, subject, seconds)
            result.samples.append(MixesSample(number, subject, interval))
    progress("done", 1.0)
    return result


def _measure(running: RunningServer, workload: Workload, subject: str, seconds: float) -> Interval:
    chance = random.Random(1)
    register = json.dumps(json.loads(running.target.registers[0]) | {"mode": "mix"})
    with Crowd(running) as crowd:
        listeners = crowd.join(workload.listeners, register=register)
        if subject == "shared":
            time.sleep(SETTLE_S)
            return crowd.measure(workload, seconds)
        # No two alike: otherwise they would share what is built of them.
        crowd.client.send(listeners, [_mix(chance, workload) for _ in listeners])
        time.sleep(SETTLE_S)
        with ThreadPoolExecutor(1) as beside:
            changing = beside.submit(_change, crowd, workload, seconds + 2 * SETTLE_S, chance)
            time.sleep(SETTLE_S)
            interval = crowd.measure(workload, seconds)
            changing.result()
        return interval


def _change(crowd: Crowd, workload: Workload, seconds: float, chance: random.Random) -> None:
    """Every listener changes its mix once a second, not all at once."""
    count = workload.listeners
    began = time.monotonic()
    for step in range(math.ceil(seconds * STEPS_PER_S)):
        if turn := range(step % STEPS_PER_S, count, STEPS_PER_S):
            crowd.client.send(turn, [_mix(chance, workload) for _ in turn])
        time.sleep(max(0.0, began + (step + 1) / STEPS_PER_S - time.monotonic()))


def _mix(chance: random.Random, workload: Workload) -> str:
    return json.dumps(
        {
            "type": "setMix",
            "faders": [round(chance.uniform(0, 2), 4) for _ in range(workload.channels)],
            "pans": [round(chance.uniform(-1, 1), 4) for _ in range(workload.channels)],
        }
    )
