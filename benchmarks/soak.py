"""The scenario `soak`: hours of listeners who come and go; nothing may creep up."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.crowd import Crowd, Interval
from benchmarks.failures import FAILURES, Failure
from benchmarks.load_process import JOINED
from benchmarks.scenarios import SETTLE_S, SPARE_S, Progress
from benchmarks.subjects import RunningServer, running_server
from benchmarks.workload import Workload

WORKLOAD: Final = Workload(5000)
"""Half of what is wanted of one relay thread with this stream."""
STEP_S: Final = 60.0
CHURN: Final = 0.1
"""Share of the listeners that are cut off in each step, and come back."""


@dataclass(frozen=True, slots=True)
class SoakSample:
    """One step, and how it is at its end.

    So far: `cut` and `lost`, how often somebody was cut off, or lost without that; `returned`, how
    often somebody was back and heard. `away` are those who are not in at the moment. `database` is
    the memory of PostgreSQL's processes, `stored` what the data directory takes.
    """

    at_s: float
    interval: Interval
    cut: int
    lost: int
    returned: int
    away: int
    descriptors: int
    threads: int
    database: int
    stored: int


@dataclass(frozen=True, slots=True)
class SoakResult:
    """Step after step of one server."""

    workload: Workload
    churn: float
    step_s: float
    samples: list[SoakSample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: how a figure was in the first quarter after the start, and in the last."""
        quarter = max(1, len(self.samples) // 4)
        first, last = self.samples[1 : 1 + quarter] or self.samples, self.samples[-quarter:]

        def row(name: str, of: Callable[[SoakSample], float]) -> dict[str, Any]:
            def median(samples: list[SoakSample]) -> float:
                return statistics.median(of(s) for s in samples)

            values = [of(s) for s in self.samples]
            return {
                "figure": name,
                "first": median(first),
                "last": median(last),
                "low": min(values),
                "high": max(values),
            }

        return [
            row("memory of the server, MB", lambda s: s.interval.resident / 1e6),
            row("memory of its database, MB", lambda s: s.database / 1e6),
            row("data directory, MB", lambda s: s.stored / 1e6),
            row("TCP buffers, MB", lambda s: s.interval.tcp_buffers / 1e6),
            row("descriptors", lambda s: s.descriptors),
            row("threads", lambda s: s.threads),
            row("delay p50, ms", lambda s: s.interval.p50_ms),
            row("delay p99, ms", lambda s: s.interval.p99_ms),
            row("cores of the server", lambda s: s.interval.server),
            row("frames delivered, %", lambda s: s.interval.delivered * 100),
            row("frames missing, of those who were there", lambda s: s.interval.missing),
            row("listeners away at a step's end", lambda s: s.away),
            row("losses so far that are not cuts", lambda s: s.lost),
        ]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        hours = len(self.samples) * self.step_s / 3600
        return {
            "scenario": "soak",
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "title": f"{self.workload}; {hours:.4g} h, {self.churn:.0%} cut off every "
            f"{self.step_s:g} s, to come back",
            "rounds": len(self.samples),
            "seconds": self.step_s,
            "summary": self.rows(),
            "failures": [failure._asdict() for failure in self.failures],
            "samples": [asdict(s) for s in self.samples],
        }


def soak(
    workload: Workload,
    *,
    hours: float,
    progress: Progress,
    step_s: float = STEP_S,
    churn: float = CHURN,
) -> SoakResult:
    """Lets listeners hear one server for so long, while some are cut off and come back.

    What is due to those is missing while they are away: frames delivered are below 100 %. A step
    that fails, or Ctrl-C, is the last; those before it are the result, if there are any.
    """
    result = SoakResult(workload, churn, step_s)
    steps = max(2, round(hours * 3600 / step_s))
    limit = round(steps * (step_s + 1)) + 2 * SPARE_S
    try:
        with (
            running_server(workload, limit, database="embedded") as running,
            Crowd(running) as crowd,
        ):
            for sample in _samples(crowd, running, result, steps, progress):
                result.samples.append(sample)
    except (*FAILURES, KeyboardInterrupt) as error:
        if not result.samples:
            raise
        done = len(result.samples)
        run = f"step {done + 1} of {steps}" if done < steps else "end"
        result.failures.append(Failure.of(run, error))
    progress("done", 1.0)
    return result


def _samples(
    crowd: Crowd, running: RunningServer, plan: SoakResult, steps: int, progress: Progress
) -> Iterator[SoakSample]:
    # What may not be read is told before anybody joins.
    machine.proportional_memory(machine.descendants(running.child.pid))
    chance = random.Random(1)
    progress("listeners join", 0.0)
    listeners = crowd.join(plan.workload.listeners)
    crowd.client.rejoin(True)
    time.sleep(SETTLE_S)
    began, cut = time.monotonic(), 0
    for number in range(steps):
        progress(f"step {number + 1} of {steps}", number / steps)
        before = _losses(crowd)
        crowd.client.drop(chance.sample(listeners, round(plan.churn * len(listeners))))
        cut += _losses(crowd) - before
        interval = crowd.measure(plan.workload, plan.step_s)
        if not interval.frames:
            raise RuntimeError("nobody heard anything")
        yield _sample(crowd, running, interval, time.monotonic() - began, cut)


def _losses(crowd: Crowd) -> int:
    return int(crowd.client.listeners()["losses"].sum())


def _sample(
    crowd: Crowd, running: RunningServer, interval: Interval, at_s: float, cut: int
) -> SoakSample:
    pid = running.child.pid
    process = Path("/proc") / str(pid)
    records = crowd.client.listeners()
    return SoakSample(
        round(at_s, 1),
        interval,
        cut,
        int(records["losses"].sum()) - cut,
        int(records["returns"].sum()),
        int((records["state"] != JOINED).sum()),
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
        sum(machine.proportional_memory(machine.descendants(pid))),
        machine.disk_bytes(running.data_dir),
    )
