"""The scenario `overload`: more than the machine can serve, and what then stays bounded."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.crowd import Crowd, Interval
from benchmarks.failures import FAILURES
from benchmarks.scenarios import SPARE_S, Progress
from benchmarks.scrape import TOKEN
from benchmarks.subjects import (
    EMAIL,
    PASSWORD,
    START_TIMEOUT_S,
    RunningServer,
    running_server,
)
from benchmarks.workload import Workload

WITHIN: Final = Workload(5000)
TIMES: Final = 8
"""How many times the bytes are beyond: some twice what two cores carry with those who listen."""
SETTLE_S: Final = 3.0
ASK_S: Final = 0.2

PHASES: Final = ("within", "beyond", "later", "after", "recovered")
"""Within what can be served; beyond it; still beyond, later; within it again, twice."""
WITHIN_PHASES: Final = ("within", "after", "recovered")


@dataclass(frozen=True, slots=True)
class Answers:
    """How long requests of a kind took while it was so, ms."""

    asked: int
    failed: int
    median_ms: float
    longest_ms: float


@dataclass(frozen=True, slots=True)
class OverloadSample:
    """One phase. `dropped` are frames that the server says it left out, of the whole server.

    `answers` are those to joins over HTTP, whose password is known by then, and to `GET /healthz`,
    by turns; `logins` cost a bcrypt of the usual 12 rounds each; `entries` are those of listeners
    who come, one after another, from the join over HTTP until they have registered over WebSocket.
    """

    phase: str
    interval: Interval
    answers: Answers
    logins: Answers
    entries: Answers
    dropped: int


@dataclass(frozen=True, slots=True)
class OverloadResult:
    """The phases of one server."""

    within: Workload
    beyond: Workload
    seconds: float
    samples: list[OverloadSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row a phase."""
        return [
            {
                "phase": s.phase,
                "delivered": s.interval.delivered,
                "p50_ms": s.interval.p50_ms,
                "p99_ms": s.interval.p99_ms,
                "max_ms": s.interval.max_ms,
                "fewest": s.interval.fewest,
                "median": s.interval.median,
                "most": s.interval.most,
                "missing": s.interval.missing,
                "dropped": s.dropped,
                "lost": s.interval.lost,
                "resident": s.interval.resident,
                "tcp_buffers": s.interval.tcp_buffers,
                "answer_ms": s.answers.longest_ms,
                "login_ms": s.logins.longest_ms,
                "entry_ms": s.entries.longest_ms,
                "asked": s.answers.asked + s.logins.asked + s.entries.asked,
                "answers_failed": s.answers.failed + s.logins.failed + s.entries.failed,
                "server": s.interval.server,
                "client": s.interval.client,
                "others": s.interval.others,
            }
            for s in self.samples
        ]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "overload",
            "title": f"{self.within}; beyond: {self.beyond.message_bytes}-byte frames",
            "workload": asdict(self.within),
            "beyond": asdict(self.beyond),
            "rounds": 1,
            "seconds": self.seconds,
            "summary": self.rows(),
            "samples": [asdict(s) for s in self.samples],
        }


def overload(
    within: Workload, beyond: Workload, *, seconds: float, progress: Progress
) -> OverloadResult:
    """Gives the listeners of one server a stream that can be served, one that can't, the first."""
    result = OverloadResult(within, beyond, seconds)
    limit = round(len(PHASES) * (seconds + 2 * SETTLE_S) + 120) + SPARE_S
    with (
        running_server(
            within,
            limit,
            database="embedded",
            options=("--bcrypt-rounds", "12"),
            with_source=False,
            env={"ROOMSERVER_METRICS_TOKEN": TOKEN},
        ) as running,
        Crowd(running) as crowd,
    ):
        progress("listeners join", 0.0)
        crowd.join(within.listeners)
        fed: Workload | None = None
        for i, phase in enumerate(PHASES):
            progress(phase, i / len(PHASES))
            workload = within if phase in WITHIN_PHASES else beyond
            if workload != fed:
                crowd.feed(workload)
                fed = workload
            time.sleep(SETTLE_S)
            result.samples.append(_phase(running, crowd, phase, workload, seconds))
    progress("done", 1.0)
    return result


def _phase(
    running: RunningServer, crowd: Crowd, phase: str, workload: Workload, seconds: float
) -> OverloadSample:
    over = threading.Event()
    before = _dropped(running)
    quick = [("POST", "/auth/room/join", running.target.ask), ("GET", "/healthz", None)]
    login = json.dumps({"email": EMAIL, "password": PASSWORD})
    with ThreadPoolExecutor(3) as beside:
        answers = beside.submit(_ask, running, quick, over)
        logins = beside.submit(_ask, running, [("POST", "/auth/broadcaster", login)], over)
        entries = beside.submit(_enter, running, over)
        try:
            interval = crowd.measure(workload, seconds)
            dropped = _dropped(running) - before
        finally:
            over.set()
    return OverloadSample(
        phase, interval, answers.result(), logins.result(), entries.result(), dropped
    )


def _ask(
    running: RunningServer,
    requests: Sequence[tuple[str, str, str | None]],
    over: threading.Event,
) -> Answers:
    """Makes the requests, of method, path and body, by turns until it is over."""
    took: list[float] = []
    failed = 0
    while not over.wait(ASK_S):
        for method, path, body in requests:
            began = time.monotonic()
            try:
                with closing(
                    http.client.HTTPConnection(
                        "127.0.0.1", running.target.port, timeout=START_TIMEOUT_S
                    )
                ) as connection:
                    connection.request(method, path, body, {"Content-Type": "application/json"})
                    failed += connection.getresponse().status != 200
            except OSError:
                failed += 1
            took.append((time.monotonic() - began) * 1000)
    return _answers(took, failed)


def _enter(running: RunningServer, over: threading.Event) -> Answers:
    """A listener comes and goes, again and again until it is over."""
    took: list[float] = []
    failed = 0
    while not over.wait(ASK_S):
        began = time.monotonic()
        try:
            with Crowd(running) as newcomer:
                newcomer.join(1)
                took.append(newcomer.longest_join_ms())
        except FAILURES:
            failed += 1
            took.append((time.monotonic() - began) * 1000)
    return _answers(took, failed)


def _answers(took: list[float], failed: int) -> Answers:
    middle = statistics.median(took) if took else 0.0
    return Answers(len(took), failed, middle, max(took, default=0.0))


def _dropped(running: RunningServer) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.target.port}/metrics",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:
        lines = answer.read().decode().splitlines()
    told = [line for line in lines if line.startswith("roomserver_relay_frames_dropped_total")]
    if not told:
        raise RuntimeError("/metrics does not tell frames dropped")
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in told))
