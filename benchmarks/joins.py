"""The scenario `joins`: how many listeners a second get in, beside bare handshakes."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import machine
from benchmarks.child import Child
from benchmarks.database import STAYS, Observer
from benchmarks.load import Ask, Joined, LoadClient, Target
from benchmarks.scenarios import SPARE_S, Progress, Spread
from benchmarks.subjects import COUNTED, START_TIMEOUT_S, RunningServer, running_server
from benchmarks.workload import Workload

HANDSHAKE: Final = "handshake"
SUBJECTS: Final = (HANDSHAKE, "join", "join-same")
"""aiohttp's handshake, and full joins: over a second connection, and over one."""
ASKS: Final = {"join": Ask.APART, "join-same": Ask.SAME}
WARM_UP: Final = 100
"""Joins before those that count: they meet cold caches and code that runs for the first time."""
IN_FLIGHT: Final = 64
HOUSE_IN_FLIGHT: Final = 512
STORED_S: Final = 60.0
WORKLOAD: Final = Workload(1, 1, 8000, "pcm_s16le", 60)


@dataclass(frozen=True, slots=True)
class JoinSample:
    """One subject in one round.

    `loop_cpu_s` is what the thread of the event loop used, which only one core can give;
    `stored_s` how long after the last join the database had all.
    """

    round: int
    subject: str
    joined: Joined
    cpu: machine.CpuSnapshot
    loop_cpu_s: float
    stored_s: float

    @property
    def count(self) -> int:
        """Joins that were measured."""
        return self.joined.connections - WARM_UP

    @property
    def per_s(self) -> float:
        """Joins a second."""
        return self.count / self.joined.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of the server's process for one join, µs."""
        return self.joined.server_cpu_s * 1e6 / self.count

    @property
    def loop_us(self) -> float:
        """CPU time of the event loop's thread for one join, µs."""
        return self.loop_cpu_s * 1e6 / self.count

    @property
    def database_cpu_s(self) -> float:
        """CPU time of PostgreSQL, which the server starts, s."""
        return sum(self.cpu.descendants.values())

    @property
    def others(self) -> float:
        """Cores used by all but the server, its database and the load client."""
        return self.cpu.cores(
            server_s=self.joined.server_cpu_s,
            client_s=self.joined.client_cpu_s,
            seconds=self.joined.seconds,
        ).others

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        derived = {
            "per_s": self.per_s,
            "cpu_us": self.cpu_us,
            "loop_us": self.loop_us,
            "database_cpu_s": self.database_cpu_s,
        }
        return asdict(self) | derived


@dataclass(frozen=True, slots=True)
class HouseSample:
    """Everyone joins one room of a server that has just started: the bcrypts that took."""

    round: int
    joined: Joined
    bcrypts: int


@dataclass(frozen=True, slots=True)
class JoinsResult:
    """Joins a second, beside handshakes of the same round, and a full house."""

    joins: int
    samples: list[JoinSample] = field(default_factory=list)
    house: list[HouseSample] = field(default_factory=list)

    def of(self, subject: str) -> list[JoinSample]:
        """The samples of one subject, in the order of the rounds."""
        return [s for s in self.samples if s.subject == subject]

    def ratio(self, subject: str, what: Callable[[JoinSample], float]) -> Spread | None:
        """`what` of a subject over that of the bare handshake, paired by round."""
        bases = {s.round: what(s) for s in self.of(HANDSHAKE)}
        ratios = [what(s) / bases[s.round] for s in self.of(subject) if bases.get(s.round)]
        return Spread.of(ratios) if ratios else None

    def rows(self) -> list[dict[str, Any]]:
        """The summary: medians over the rounds, ratios paired by round."""

        def row(subject: str) -> dict[str, Any]:
            samples = self.of(subject)

            def median(of: Callable[[JoinSample], float]) -> float:
                return round(statistics.median(of(s) for s in samples), 4)

            rate = self.ratio(subject, lambda s: s.per_s)
            loop = self.ratio(subject, lambda s: s.loop_us)
            return {
                "subject": subject,
                "per_s": median(lambda s: s.per_s),
                "ratio": asdict(rate) if rate else None,
                "cpu_us": median(lambda s: s.cpu_us),
                "loop_us": median(lambda s: s.loop_us),
                "loop_ratio": asdict(loop) if loop else None,
                "database_us": median(lambda s: s.database_cpu_s * 1e6 / s.count),
                "p50_ms": median(lambda s: s.joined.join_ms.p50),
                "p99_ms": median(lambda s: s.joined.join_ms.p99),
                "stored_s": median(lambda s: s.stored_s),
                "client": median(lambda s: s.joined.client_cpu_s / s.joined.seconds),
                "others": median(lambda s: s.others),
            }

        return [row(subject) for subject in dict.fromkeys(s.subject for s in self.samples)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "joins",
            "title": f"{self.joins} joins, {IN_FLIGHT} at a time",
            "rounds": max((s.round for s in self.samples), default=-1) + 1,
            "summary": self.rows(),
            "house": [
                {
                    "listeners": s.joined.connections,
                    "seconds": s.joined.seconds,
                    "bcrypts": s.bcrypts,
                }
                for s in self.house
            ],
            "samples": [s.as_json() for s in self.samples],
            "house_samples": [asdict(s) for s in self.house],
        }


def joins(
    subjects: Sequence[str],
    *,
    count: int,
    house: int,
    rounds: int,
    house_rounds: int,
    progress: Progress,
) -> JoinsResult:
    """Measures joins and handshakes by turns, then rooms that `house` listeners enter at once.

    The order of the subjects turns from round to round.
    """
    result = JoinsResult(count)
    steps = rounds * len(subjects) + house_rounds
    for number in range(rounds):
        shift = number % len(subjects)
        for i, name in enumerate([*subjects[shift:], *subjects[:shift]]):
            done = (number * len(subjects) + i) / steps
            progress(f"round {number + 1} of {rounds}: {name}", done)
            result.samples.append(_sample(number, name, count))
    for number in range(house_rounds):
        progress(f"house {number + 1} of {house_rounds}", (steps - house_rounds + number) / steps)
        result.house.append(_house(number, house))
    progress("done", 1.0)
    return result


def _sample(number: int, name: str, count: int) -> JoinSample:
    if name == HANDSHAKE:
        with _bare_handshake() as target:
            return _measured(number, name, count, target, None)
    with _joinable() as running:
        return _measured(number, name, count, running.target, running)


def _measured(
    number: int, name: str, count: int, target: Target, running: RunningServer | None
) -> JoinSample:
    ask = ASKS.get(name, Ask.NO)
    with LoadClient(target, max_seconds=SPARE_S, in_flight=IN_FLIGHT, ask=ask) as load:
        load.join(WARM_UP)
        stored_s = 0.0
        before = machine.CpuSnapshot.take(target.pid)
        loop_before = machine.main_thread_seconds(target.pid)
        joined = load.join(WARM_UP + count)
        cpu = machine.CpuSnapshot.take(target.pid).since(before)
        loop_cpu_s = machine.main_thread_seconds(target.pid) - loop_before
        if running is not None:
            with closing(Observer(running.data_dir)) as database:
                stored_s = database.wait_for(STAYS, WARM_UP + count, STORED_S)
        return JoinSample(number, name, joined, cpu, loop_cpu_s, stored_s)


@contextmanager
def _bare_handshake() -> Iterator[Target]:
    command = [sys.executable, "-m", "benchmarks.bare_handshake", "--max-seconds", str(SPARE_S)]
    with Child(command) as child:
        port = child.expect("listening", START_TIMEOUT_S)["port"]
        yield Target(child.pid, port, bare=True)


@contextmanager
def _joinable() -> Iterator[RunningServer]:
    with running_server(WORKLOAD, SPARE_S, database="embedded", with_source=False) as running:
        yield running


def _house(number: int, listeners: int) -> HouseSample:
    """A server that has just started knows of the room's password nothing but its hash."""
    options = ("--bcrypt-rounds", "12")
    with running_server(
        WORKLOAD,
        SPARE_S,
        module=COUNTED,
        options=options,
        database="embedded",
        with_source=False,
    ) as running:
        running.restart()
        with LoadClient(
            running.target, max_seconds=SPARE_S, in_flight=HOUSE_IN_FLIGHT, ask=Ask.APART
        ) as load:
            joined = load.join(listeners)
            running.child.tell("passwords")
            said = running.child.expect("passwords", START_TIMEOUT_S)
            return HouseSample(number, joined, said["bcrypts"])
