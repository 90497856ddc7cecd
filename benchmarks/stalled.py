"""The scenario `stalled`: what listeners that stop reading cost those who go on."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.crowd import Crowd, Interval
from benchmarks.scenarios import SETTLE_S, SPARE_S, Progress, Spread
from benchmarks.subjects import running_server
from benchmarks.workload import Workload

SHARE: Final = 0.1
RESET_S: Final = 15.0
"""So long has a listener taken nothing when the server gives it up; it is the default."""
SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class StalledSample:
    """As many listeners of two servers: of one, others are stalled, of whom so many are reset."""

    round: int
    without: Interval
    beside: Interval
    reset: int

    @property
    def ratio(self) -> float:
        """How much later the p99 of those who read is."""
        return self.beside.p99_ms / self.without.p99_ms if self.without.p99_ms else float("nan")


@dataclass(frozen=True, slots=True)
class StalledResult:
    """Rounds of listeners, with and without a share that stops reading."""

    workload: Workload
    share: float
    seconds: float
    samples: list[StalledSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: those who read, without stalled ones and beside them."""
        ratio = asdict(Spread.of([s.ratio for s in self.samples]))

        still = max(1, round(self.workload.listeners * self.share)) * len(self.samples)

        def row(
            condition: str, intervals: list[Interval], reset: int, stalled: int
        ) -> dict[str, Any]:
            def spread(of: str) -> dict[str, float]:
                return asdict(Spread.of([getattr(i, of) for i in intervals]))

            return {
                "condition": condition,
                "listeners": intervals[0].listeners,
                "delivered": min(i.delivered for i in intervals),
                "lost": sum(i.lost for i in intervals),
                "missing": sum(i.missing for i in intervals),
                "reset": reset,
                "stalled": stalled,
                "p50_ms": spread("p50_ms"),
                "p99_ms": spread("p99_ms"),
                "ratio": ratio if condition == "stalled" else None,
                "resident_mb": spread("resident"),
                "tcp_mb": spread("tcp_buffers"),
                "server": spread("server"),
                "others": max(i.others for i in intervals),
            }

        return [
            row("all read", [s.without for s in self.samples], 0, 0),
            row(
                "stalled",
                [s.beside for s in self.samples],
                sum(s.reset for s in self.samples),
                still,
            ),
        ]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "stalled",
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "title": f"{self.workload}; {self.share:.0%} of them stop reading",
            "rounds": len(self.samples),
            "seconds": self.seconds,
            "summary": self.rows(),
            "samples": [asdict(s) for s in self.samples],
        }


def stalled(
    workload: Workload,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    share: float = SHARE,
    reset_s: float = RESET_S,
) -> StalledResult:
    """Measures listeners that read, alone and beside others who read nothing any more.

    The others, a share of all, are not there where nobody stalls. In each round both run once, in
    servers of their own, and their order turns. The interval begins with the last byte that the
    stalled ones read.
    """
    result = StalledResult(workload, share, seconds)
    still = max(1, round(workload.listeners * share))
    for number in range(rounds):
        runs: dict[int, tuple[Interval, int]] = {}
        for i, stopped in enumerate((0, still)[:: -1 if number % 2 else 1]):
            progress(f"round {number + 1} of {rounds}: {stopped} stall", (number + i / 2) / rounds)
            runs[stopped] = _measure(
                workload, workload.listeners - still, stopped, seconds, reset_s
            )
        (without, _), (beside, reset) = runs[0], runs[still]
        result.samples.append(StalledSample(number, without, beside, reset))
    progress("done", 1.0)
    return result


def _measure(
    workload: Workload, reading: int, stopped: int, seconds: float, reset_s: float
) -> tuple[Interval, int]:
    """What those who read got, and how many of the others the server gave up."""
    limit = round(seconds) + SPARE_S
    options = ("--evict-after-s", f"{reset_s:g}")
    with (
        running_server(workload, limit, database="embedded", options=options) as running,
        Crowd(running) as crowd,
        Crowd(running) as stalling,
    ):
        crowd.join(reading)
        numbers = stalling.join(stopped)
        time.sleep(SETTLE_S)
        stalling.client.limit(numbers, 0)
        interval = crowd.measure(workload, seconds)
        return interval, sum(f.lost for f in stalling.client.figures())
