"""The scenario `capacity`: how many listeners one relay thread serves, by what each gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import subjects
from benchmarks.listeners import MOST, Stream
from benchmarks.ramp import Climb, Limit, Ramps, best_step, by_turns, limits
from benchmarks.scenarios import Progress
from benchmarks.workload import Workload

FIRST: Final = 500
GROWTH: Final = 1.3
QUICK_GROWTH: Final = 2.0
MOST_P99_MS: Final = 150.0
"""How late 99 % of the frames may be, beyond the time for which they are held back."""
GROUPED_MS: Final = 100

_FORMATS: Final[Mapping[str, Workload]] = {
    "voice": Workload(channels=1, sample_rate=8000),
    "mono": Workload(channels=1),
    "stereo": Workload(),
    "eight": Workload(channels=8),
}
STREAMS: Final[Mapping[str, Stream]] = {
    f"{name}-{interval_ms}" if interval_ms else name: Stream(
        f"{name}-{interval_ms}" if interval_ms else name,
        Workload(
            channels=workload.channels, sample_rate=workload.sample_rate, interval_ms=interval_ms
        ),
        MOST_P99_MS + interval_ms,
    )
    for name, workload in _FORMATS.items()
    for interval_ms in (0, GROUPED_MS)
}
"""8 kHz mono and 48 kHz in one, two and eight channels; each frame by itself, and grouped."""


@dataclass(frozen=True, slots=True)
class CapacityResult:
    """Ramps of the server with several streams; the subject of a step is the stream's name."""

    seconds: float
    ramps: Ramps = field(default_factory=Ramps)
    growth: float = GROWTH

    def rows(self) -> list[dict[str, Any]]:
        """One a stream, with what was used at the last step that kept up."""

        def row(limit: Limit) -> dict[str, Any]:
            workload = STREAMS[limit.subject].workload
            last = best_step(self.ramps.steps, limit.subject)
            return {
                "stream": limit.subject,
                "format": workload.format,
                "message_bytes": workload.message_bytes,
                "frame_ms": workload.frame_ms,
                "interval_ms": workload.interval_ms,
                "limit": asdict(limit.limit),
                "open": limit.open,
                "listeners": last.listeners if last else 0,
                "p50_ms": last.p50_ms if last else 0.0,
                "p99_ms": last.p99_ms if last else 0.0,
                "server": last.server if last else 0.0,
                "client": last.client if last else 0.0,
                "others": last.others if last else 0.0,
            }

        return [row(limit) for limit in limits(self.ramps)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "capacity",
            "title": f"the whole server with one relay thread, 99 % within {MOST_P99_MS:g} ms and "
            "the interval",
            "rounds": max((s.round for s in self.ramps.steps), default=-1) + 1,
            "seconds": self.seconds,
            "growth": self.growth,
            "summary": self.rows(),
            **self.ramps.as_json(),
        }


def capacity(
    names: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    first: int = FIRST,
    most: int = MOST,
    growth: float = GROWTH,
) -> CapacityResult:
    """Ramps the server with each of the streams, as the scenario `listeners` does."""
    chosen = [STREAMS[name] for name in names]
    climbs = [Climb(s.name, subjects.server, s.workload, s.most_p99_ms) for s in chosen]
    ramps = by_turns(
        climbs,
        rounds=rounds,
        seconds=seconds,
        first=first,
        most=most,
        growth=growth,
        progress=progress,
    )
    return CapacityResult(seconds, ramps, growth)
