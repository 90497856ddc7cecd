"""The scenario `unheard`: rooms with a source and no listener, in which nothing should be built."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, natives
from benchmarks.child import Child
from benchmarks.crowd import observe
from benchmarks.load import LoadError
from benchmarks.scenarios import SETTLE_S, SPARE_S, Progress, Spread
from benchmarks.subjects import (
    START_TIMEOUT_S,
    make_room,
    running_server,
    source_register,
)
from benchmarks.workload import Workload
from relaycore import LoadClient

ROOMS: Final = 1000
SUBJECTS: Final = ("floor", "server")
MAKERS: Final = 8
JOIN_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class UnheardSample:
    """One subject in one round: packets that it received, and cores used."""

    round: int
    subject: str
    packets: int
    skipped: int
    server: float
    client: float
    others: float
    seconds: float
    resident: int

    @property
    def us_per_packet(self) -> float:
        """CPU time of the subject for a packet, µs."""
        return self.server * self.seconds * 1e6 / self.packets if self.packets else float("nan")


@dataclass(frozen=True, slots=True)
class UnheardResult:
    """Rounds of both subjects."""

    workload: Workload
    rooms: int
    seconds: float
    samples: list[UnheardSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row a subject; ratios by round."""
        base = {s.round: s.us_per_packet for s in self.samples if s.subject == "floor"}

        def row(subject: str) -> dict[str, Any]:
            mine = [s for s in self.samples if s.subject == subject]
            ratios = [s.us_per_packet / base[s.round] for s in mine if base.get(s.round)]
            return {
                "subject": subject,
                "us_per_packet": asdict(Spread.of([s.us_per_packet for s in mine])),
                "ratio": asdict(Spread.of(ratios)) if ratios else None,
                "server": asdict(Spread.of([s.server for s in mine])),
                "client": asdict(Spread.of([s.client for s in mine])),
                "skipped": sum(s.skipped for s in mine),
                "resident": asdict(Spread.of([s.resident for s in mine])),
                "others": max(s.others for s in mine),
            }

        return [row(subject) for subject in dict.fromkeys(s.subject for s in self.samples)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        packets = str(self.workload).split(" listeners, ", 1)[1].replace("frames", "packets")
        return {
            "scenario": "unheard",
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "title": f"{self.rooms} sources, {packets}; no listener",
            "rounds": max((s.round for s in self.samples), default=-1) + 1,
            "seconds": self.seconds,
            "summary": self.rows(),
            "samples": [asdict(s) for s in self.samples],
        }


def unheard(
    workload: Workload,
    *,
    rooms: int,
    rounds: int,
    seconds: float,
    progress: Progress,
    subjects: Sequence[str] = SUBJECTS,
) -> UnheardResult:
    """Measures what the sources of so many rooms cost when nobody listens.

    Beside a loop that receives the same bytes and drops them. The order turns from round to round.
    """
    result = UnheardResult(workload, rooms, seconds)
    for number in range(rounds):
        for i, subject in enumerate(subjects[:: -1 if number % 2 else 1]):
            done = (number * len(subjects) + i) / (rounds * len(subjects))
            progress(f"round {number + 1} of {rounds}: {subject}", done)
            limit = round(seconds + JOIN_TIMEOUT_S) + SPARE_S
            start = _floor if subject == "floor" else _server
            with start(workload, rooms, limit) as (pid, port, registers):
                sample = _measure(number, subject, workload, pid, port, registers, seconds)
            result.samples.append(sample)
    progress("done", 1.0)
    return result


Rooms = tuple[int, int, Sequence[str]]
"""A process, its port, and the register text of each source."""


@contextmanager
def _floor(workload: Workload, rooms: int, limit: int) -> Iterator[Rooms]:
    command: list[str | Path] = [natives.build("recv_floor"), "--max-seconds", str(limit)]
    with Child(command) as child:
        port = child.expect("listening", START_TIMEOUT_S)["port"]
        text = source_register({"roomId": "", "roomToken": ""}, workload)
        yield child.pid, port, [text] * rooms


@contextmanager
def _server(workload: Workload, rooms: int, limit: int) -> Iterator[Rooms]:
    with (
        running_server(workload, limit, database="embedded", with_source=False) as running,
        ThreadPoolExecutor(MAKERS) as makers,
    ):
        made = makers.map(lambda _: make_room(running.url, running.access), range(rooms))
        registers = [source_register(room, workload) for room in made]
        yield running.child.pid, running.target.port, registers


def _measure(
    number: int,
    subject: str,
    workload: Workload,
    pid: int,
    port: int,
    registers: Sequence[str],
    seconds: float,
) -> UnheardSample:
    with LoadClient("127.0.0.1", port, clock=0) as client:
        client.add_sources(
            registers,
            channels=workload.channels,
            sample_rate=workload.sample_rate,
            encoding="pcm_s16le",
            frame_ms=workload.frame_ms,
        )
        end = time.monotonic() + JOIN_TIMEOUT_S
        while (joined := int((client.sources()["state"] == 2).sum())) < len(registers):
            if time.monotonic() > end:
                raise LoadError(f"{joined} of {len(registers)} sources registered")
            time.sleep(0.1)
        time.sleep(SETTLE_S)
        observed = observe(client, pid, seconds, client.sources)
        return UnheardSample(
            number,
            subject,
            packets=int(observed.frames.sum()),
            skipped=sum(f.skipped for f in observed.figures),
            server=round(observed.cores.server, 4),
            client=round(observed.cores.client, 4),
            others=round(observed.cores.others, 4),
            seconds=observed.seconds,
            resident=machine.resident_bytes(pid),
        )
