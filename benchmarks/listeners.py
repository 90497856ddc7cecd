"""How many listeners get every frame in time: the relay, and what people use instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import peers, subjects
from benchmarks.ramp import Climb, Limit, Ramps, best_step, by_turns, limits
from benchmarks.scenarios import Progress
from benchmarks.subjects import Subject
from benchmarks.workload import Workload

FLOOR: Final = "group-floor"
SUBJECTS: Final[Mapping[str, Subject]] = {
    FLOOR: subjects.group_floor,
    "relay": subjects.relay,
    "server": subjects.server,
    "server-2": subjects.server_of_two,
    "server-no-realtime": subjects.server_without_realtime,
    **peers.PEERS,
}
FIRST: Final = 1000
MOST: Final = 18_000
GROWTH: Final = 1.2
"""A step's listeners over those of the one before: as fine as limits can be told."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What is sent in a ramp, and how late 99 % of the frames may be at most."""

    name: str
    workload: Workload
    most_p99_ms: float


STREAMS: Final[Mapping[str, Stream]] = {
    "stereo": Stream("stereo", Workload(), 150.0),
    "voice": Stream("voice", Workload(channels=1, sample_rate=8000), 200.0),
}
"""48 kHz stereo and 8 kHz mono, both as 16-bit samples in frames of 20 ms."""


@dataclass(frozen=True, slots=True)
class ListenersResult:
    """Ramps of all subjects with one stream."""

    stream: Stream
    seconds: float
    ramps: Ramps = field(default_factory=Ramps)
    growth: float = GROWTH

    def rows(self) -> list[dict[str, Any]]:
        """One a subject, with what was used at the last step that kept up; the best first."""

        def row(limit: Limit) -> dict[str, Any]:
            last = best_step(self.ramps.steps, limit.subject)
            return asdict(limit) | {
                "p50_ms": last.p50_ms if last else 0.0,
                "p99_ms": last.p99_ms if last else 0.0,
                "server": last.server if last else 0.0,
                "client": last.client if last else 0.0,
                "others": last.others if last else 0.0,
            }

        return sorted(
            (row(limit) for limit in limits(self.ramps)), key=lambda r: -r["limit"]["median"]
        )

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        workload = self.stream.workload
        # It is the number of listeners that is looked for.
        title = str(workload).split(" listeners, ", 1)[1]
        return {
            "scenario": "listeners",
            "stream": self.stream.name,
            "workload": asdict(workload) | {"message_bytes": workload.message_bytes},
            "title": f"{title}, 99 % within {self.stream.most_p99_ms:g} ms",
            "rounds": max((s.round for s in self.ramps.steps), default=-1) + 1,
            "seconds": self.seconds,
            "growth": self.growth,
            "summary": self.rows(),
            **self.ramps.as_json(),
        }


def listeners(
    stream: Stream,
    names: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    first: int = FIRST,
    most: int = MOST,
    growth: float = GROWTH,
) -> ListenersResult:
    """Ramps each subject, by turns, until a step does not keep up twice in a row.

    A subject has kept up when every listener got every frame due, and 99 % of them in time.
    """
    climbs = [Climb(name, SUBJECTS[name], stream.workload, stream.most_p99_ms) for name in names]
    ramps = by_turns(
        climbs,
        rounds=rounds,
        seconds=seconds,
        first=first,
        most=most,
        growth=growth,
        progress=lambda what, done: progress(f"{stream.name}: {what}", done),
    )
    return ListenersResult(stream, seconds, ramps, growth)
