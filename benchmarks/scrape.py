"""The scenario `scrape`: what `/metrics` costs with many rooms, and whom it holds up."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import machine
from benchmarks.scenarios import SPARE_S, Progress, Spread
from benchmarks.subjects import START_TIMEOUT_S, RunningServer, make_room, running_server
from benchmarks.workload import Workload

TOKEN: Final = "a token that only this benchmark knows of"
MAKERS: Final = 8
"""Rooms that are made at a time."""
PAUSE_S: Final = 0.05
"""Between scrapes, so that each meets a server at rest."""
WORKLOAD: Final = Workload(1, 1, 8000, "pcm_s16le", 60)


@dataclass(frozen=True, slots=True)
class ScrapeSample:
    """One scrape alone, and the longest that another request took while a second went on; ms."""

    rooms: int
    bytes: int
    wall_ms: float
    cpu_ms: float
    longest_other_ms: float


@dataclass(frozen=True, slots=True)
class ScrapeResult:
    """Scrapes with one room, and with many."""

    rooms: int
    samples: list[ScrapeSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row for each number of rooms; medians and ranges of the scrapes."""

        def row(rooms: int) -> dict[str, Any]:
            samples = [s for s in self.samples if s.rooms == rooms]

            def spread(of: Callable[[ScrapeSample], float]) -> dict[str, float]:
                return asdict(Spread.of([of(s) for s in samples]))

            return {
                "rooms": rooms,
                "bytes": round(statistics.median(s.bytes for s in samples)),
                "wall_ms": spread(lambda s: s.wall_ms),
                "cpu_ms": spread(lambda s: s.cpu_ms),
                "other_ms": spread(lambda s: s.longest_other_ms),
            }

        return [row(rooms) for rooms in dict.fromkeys(s.rooms for s in self.samples)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "scrape",
            "title": f"{self.rooms} rooms",
            "rounds": len(self.samples) // 2,
            "summary": self.rows(),
            "samples": [asdict(s) for s in self.samples],
        }


def scrape(rooms: int, *, rounds: int, progress: Progress) -> ScrapeResult:
    """Scrapes a server with one room, then makes `rooms` of it, and scrapes again."""
    result = ScrapeResult(rooms)
    with running_server(
        WORKLOAD,
        SPARE_S + rooms,
        database="embedded",
        with_source=False,
        env={"ROOMSERVER_METRICS_TOKEN": TOKEN},
    ) as running:
        result.samples.extend(_scrape(running, 1) for _ in range(rounds))
        with ThreadPoolExecutor(MAKERS) as makers:
            wishes = [running.access] * (rooms - 1)
            for made, _ in enumerate(makers.map(lambda a: make_room(running.url, a), wishes)):
                progress(f"room {made + 2} of {rooms}", made / rooms)
        for number in range(rounds):
            progress(f"scrape {number + 1} of {rounds}", 1.0)
            result.samples.append(_scrape(running, rooms))
    return result


def _scrape(running: RunningServer, rooms: int) -> ScrapeSample:
    port, server = running.target.port, [running.child.pid]
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)) as scraper:
        _get(scraper, "/healthz")  # connects
        time.sleep(PAUSE_S)
        cpu, began = machine.cpu_seconds_of_live_threads(server), time.monotonic()
        body = _get(scraper, "/metrics")
        wall = time.monotonic() - began
        used = machine.cpu_seconds_of_live_threads(server) - cpu
        over = threading.Event()
        with ThreadPoolExecutor(1) as beside:
            other = beside.submit(_longest_request, port, over)
            time.sleep(PAUSE_S)
            _get(scraper, "/metrics")
            over.set()
            longest = other.result()
    return ScrapeSample(rooms, len(body), wall * 1000, used * 1000, longest * 1000)


def _longest_request(port: int, over: threading.Event) -> float:
    """Asks whether the server is alive, every ms; the longest that took, in seconds."""
    longest = 0.0
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)) as asker:
        while not over.wait(0.001):
            began = time.monotonic()
            _get(asker, "/healthz")
            longest = max(longest, time.monotonic() - began)
    return longest


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"GET {path}: {answer.status} {body[:200]!r}")
    return body
