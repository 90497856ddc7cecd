"""The scenario `reconnect`: a full house comes back after its server was started again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.database import STAYS, Observer
from benchmarks.load import Ask, LoadClient, Rejoined
from benchmarks.scenarios import SPARE_S, Progress, Spread
from benchmarks.subjects import running_server
from benchmarks.workload import Workload

WORKLOAD: Final = Workload(5000, 1, 8000, "pcm_s16le", 60)
IN_FLIGHT: Final = 512
BACK_S: Final = 120.0
JOIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class ReconnectSample:
    """One restart: when the server had ended and listened again, and how everyone came back."""

    round: int
    ended_s: float
    restarted_s: float
    rejoined: Rejoined

    @property
    def since_open_s(self) -> float:
        """From the first WebSocket that opened until everyone heard audio."""
        return self.rejoined.heard_s - self.rejoined.open_s


@dataclass(frozen=True, slots=True)
class ReconnectResult:
    """Restarts of a server with a full house."""

    workload: Workload
    samples: list[ReconnectSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row, medians and ranges over the rounds."""

        def spread(of: Callable[[ReconnectSample], float]) -> dict[str, float]:
            return asdict(Spread.of([of(s) for s in self.samples]))

        return [
            {
                "listeners": self.workload.listeners,
                "restart_s": spread(lambda s: s.restarted_s),
                "open_s": spread(lambda s: s.rejoined.open_s),
                "joined_s": spread(lambda s: s.rejoined.joined_s - s.rejoined.open_s),
                "heard_s": spread(lambda s: s.since_open_s),
                "silence_p50_ms": spread(lambda s: s.rejoined.silence_ms.p50),
                "silence_max_ms": spread(lambda s: s.rejoined.silence_ms.max),
                "client": spread(lambda s: s.rejoined.client_cpu_s / s.rejoined.seconds),
            }
        ]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "reconnect",
            "title": f"{self.workload}; {IN_FLIGHT} on their way in at a time",
            "rounds": len(self.samples),
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "summary": self.rows(),
            "samples": [asdict(s) for s in self.samples],
        }


def reconnect(workload: Workload, *, rounds: int, progress: Progress) -> ReconnectResult:
    """Fills a house, restarts its server, and waits until everyone hears again; so many times.

    Everyone comes back with the token they had and `from`, the timestamp of their last frame.
    """
    result = ReconnectResult(workload)
    max_seconds = round(SPARE_S + JOIN_S + BACK_S * rounds)
    with (
        running_server(workload, max_seconds, database="embedded") as running,
        LoadClient(
            running.target, max_seconds=max_seconds, in_flight=IN_FLIGHT, ask=Ask.APART
        ) as load,
    ):
        progress("the house fills", 0.0)
        load.join(workload.listeners, JOIN_S)
        for number in range(rounds):
            progress(f"restart {number + 1} of {rounds}", (number + 1) / (rounds + 1))
            load.wait_for_frames(2)
            with closing(Observer(running.data_dir)) as database:
                database.wait_for(STAYS, workload.listeners * (number + 1), BACK_S)
            load.watch()
            began = time.monotonic()
            running.end()
            ended = time.monotonic()
            running.begin()
            restarted = time.monotonic()
            rejoined = load.rejoined(BACK_S)
            result.samples.append(
                ReconnectSample(number, ended - began, restarted - began, rejoined)
            )
    progress("done", 1.0)
    return result
