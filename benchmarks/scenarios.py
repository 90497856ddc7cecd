"""The scenarios: each measures its subjects by turns and keeps every raw result."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import machine
from benchmarks.failures import FAILURES, Failure
from benchmarks.load import Ask, Joined, LoadClient, Measured, Target
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.workload import Workload

SETTLE_S: Final = 1.0
"""Flow before an interval begins, so that caches, buffers and TCP windows are as they stay."""
JOIN_S: Final = 180.0
"""Until all are in: handshakes of TLS share a busy machine with the stream of those who are."""
MEMORY_SETTLE_S: Final = 2.0
SPARE_S: Final = 90
"""Seconds beyond the planned ones after which every process ends by itself."""

FLOOR: Final = "floor"
"""What others are compared with."""

Progress = Callable[[str, float], None]
"""Told what runs now, and how much of the scenario is done (0 to 1)."""


@dataclass(frozen=True, slots=True)
class CpuSample:
    """One subject in one round."""

    round: int
    subject: str
    joined: Joined
    measured: Measured
    cpu: machine.CpuSnapshot

    @property
    def cores(self) -> machine.Cores:
        """Cores used by whom."""
        return self.cpu.cores(
            server_s=self.measured.server_cpu_s,
            client_s=self.measured.client_cpu_s,
            seconds=self.measured.seconds,
        )

    @property
    def cpu_us_per_frame(self) -> float:
        """CPU time of the subject per frame that a listener received, µs."""
        used = self.cores.server * self.measured.seconds
        return used * 1e6 / self.measured.frames if self.measured.frames else float("nan")

    @property
    def both_us_per_frame(self) -> float:
        """With the load client's: on loopback the kernel's work may be booked on either end."""
        frames = self.measured.frames
        client = self.measured.client_cpu_s * 1e6 / frames if frames else 0.0
        return self.cpu_us_per_frame + client

    @property
    def others(self) -> float:
        """Cores used by all but the subject and the load client."""
        return self.cores.others

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self) | {"cpu_us_per_frame": self.cpu_us_per_frame}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of what the rounds gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(*(round(v, 4) for v in (statistics.median(values), min(values), max(values))))


@dataclass(frozen=True, slots=True)
class CpuRow:
    """One subject: medians over its runs; µs per delivered frame, ms of delay, cores used.

    `ratio` is that to the floor, `over_server` that to the server of one relay thread. `lost` are
    the connections of all runs that ended before their interval did.
    """

    subject: str
    us_per_frame: float
    ratio: Spread | None
    both_us_per_frame: float
    delivered: float
    lost: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    client: float
    others: float
    over_server: Spread | None


@dataclass(frozen=True, slots=True)
class CpuResult:
    """CPU time per delivered frame; the samples are in the order in which they were taken."""

    workload: Workload
    seconds: float
    samples: list[CpuSample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def of(self, subject: str) -> list[CpuSample]:
        """The samples of one subject."""
        return [s for s in self.samples if s.subject == subject]

    def ratio(self, subject: str, base: str = FLOOR) -> Spread | None:
        """CPU per frame of `subject` over that of `base` in its nearest run; None without one."""
        costs = {(i, s.subject): s.cpu_us_per_frame for i, s in enumerate(self.samples)}
        bases = {i: cost for (i, name), cost in costs.items() if name == base and cost > 0}
        ratios = [
            cost / bases[min(bases, key=lambda at: abs(at - i))]
            for (i, name), cost in costs.items()
            if name == subject and bases
        ]
        return Spread.of(ratios) if ratios else None

    def delivered(self, sample: CpuSample) -> float:
        """Share of the frames due to all listeners that came, to those that were lost, too."""
        due = self.workload.listeners * self.workload.frames_per_s * sample.measured.seconds
        return sample.measured.frames / due

    def rows(self) -> list[CpuRow]:
        """The summary: one row a subject, the floor first."""

        def row(subject: str) -> CpuRow:
            samples = self.of(subject)

            def median(of: Callable[[CpuSample], float]) -> float:
                return round(statistics.median(of(s) for s in samples), 4)

            return CpuRow(
                subject,
                median(lambda s: s.cpu_us_per_frame),
                self.ratio(subject),
                median(lambda s: s.both_us_per_frame),
                median(self.delivered),
                sum(self.workload.listeners - s.measured.connections for s in samples),
                median(lambda s: s.measured.delay_ms.p50),
                median(lambda s: s.measured.delay_ms.p99),
                median(lambda s: s.measured.delay_ms.p999),
                median(lambda s: s.measured.client_load),
                median(lambda s: s.others),
                self.ratio(subject, "server"),
            )

        subjects = dict.fromkeys(s.subject for s in self.samples)
        return [row(subject) for subject in sorted(subjects, key=lambda name: name != FLOOR)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "cpu",
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "title": str(self.workload),
            "rounds": max((s.round for s in self.samples), default=-1) + 1,
            "seconds": self.seconds,
            "summary": [asdict(row) for row in self.rows()],
            "failures": [failure._asdict() for failure in self.failures],
            "samples": [s.as_json() for s in self.samples],
        }


def cpu(
    workload: Workload,
    subjects: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    known: Mapping[str, Subject] = SUBJECTS,
) -> CpuResult:
    """Measures CPU time per delivered frame of some of the subjects known.

    Each run is a process of its own, in the order that `turns` gives. Raises RuntimeError when all
    of them failed.
    """
    result = CpuResult(workload, seconds)
    runs = list(turns(subjects, rounds))
    for i, (number, name) in enumerate(runs):
        run = f"round {number + 1} of {rounds}: {name}"
        progress(run, i / len(runs))
        try:
            result.samples.append(_cpu_sample(number, name, known[name], workload, seconds))
        except FAILURES as error:
            result.failures.append(Failure.of(run, error))
    if not result.samples:
        raise RuntimeError(f"no run gave a result; {result.failures[0].reason}")
    progress("done", 1.0)
    return result


def turns(subjects: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Which subject runs when: pairs of a round and a subject, the same for the same arguments.

    Every subject runs once in a round, but the floor between each two others, so that all of them
    stand beside it: what changes on the machine meets both alike. The others come as they are
    given, later in an order of chance, and each second round is the one before in reverse, so that
    a subject comes before its floor as often as after it.
    """
    chance = random.Random(1)
    others = [name for name in subjects if name != FLOOR]
    floors = (max(1, len(others)) + 1) // 2 if FLOOR in subjects else 0
    order: list[str] = []
    for number in range(rounds):
        if number % 2:
            order.reverse()
        else:
            order = others.copy()
            for place in range(1, 3 * floors, 3):
                order.insert(place, FLOOR)
            chance.shuffle(others)
        yield from ((number, name) for name in order)


def _cpu_sample(
    number: int, name: str, subject: Subject, workload: Workload, seconds: float
) -> CpuSample:
    max_seconds = round(JOIN_S + seconds + SETTLE_S) + SPARE_S
    with (
        subject(workload, max_seconds) as target,
        LoadClient(target, max_seconds=max_seconds) as load,
    ):
        joined = load.join(workload.listeners, JOIN_S)
        load.wait_for_frames(max(1, round(SETTLE_S * workload.frames_per_s)))
        before = machine.CpuSnapshot.take(target.pid)
        measured = load.measure(seconds)
        return CpuSample(
            number, name, joined, measured, machine.CpuSnapshot.take(target.pid).since(before)
        )


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory of one subject with so many listeners, bytes.

    `database` is the own memory of the processes it started, `buffers` what they have touched of
    the memory they share, `tcp_buffers` those of the whole machine.
    """

    subject: str
    round: int
    listeners: int
    resident: int
    database: int
    buffers: int
    tcp_buffers: int


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One subject: bytes that one connection more costs; the database's, with all of them."""

    subject: str
    resident: Spread
    database: Spread
    buffers: Spread
    tcp_buffers: Spread


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """Memory as listeners come: the slope between `base` and all of them is what one costs."""

    workload: Workload
    base: int
    samples: list[MemorySample] = field(default_factory=list)

    def per_connection(self, subject: str, what: str) -> list[float]:
        """Bytes per further connection, of `resident` and so on, one for each round."""
        steps: dict[int, dict[int, float]] = {}
        for sample in self.samples:
            if sample.subject == subject:
                steps.setdefault(sample.round, {})[sample.listeners] = getattr(sample, what)
        count = self.workload.listeners
        return [(s[count] - s[self.base]) / (count - self.base) for s in steps.values()]

    def rows(self) -> list[MemoryRow]:
        """The summary: one row a subject."""

        def row(subject: str) -> MemoryRow:
            full = [
                s
                for s in self.samples
                if s.subject == subject and s.listeners == self.workload.listeners
            ]
            return MemoryRow(
                subject,
                resident=Spread.of(self.per_connection(subject, "resident")),
                database=Spread.of([s.database for s in full]),
                buffers=Spread.of([s.buffers for s in full]),
                tcp_buffers=Spread.of(self.per_connection(subject, "tcp_buffers")),
            )

        return [row(subject) for subject in dict.fromkeys(s.subject for s in self.samples)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "memory",
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "title": str(self.workload),
            "rounds": max((s.round for s in self.samples), default=-1) + 1,
            "base": self.base,
            "summary": [asdict(row) for row in self.rows()],
            "samples": [asdict(s) for s in self.samples],
        }


def memory(
    workload: Workload,
    subjects: Sequence[str],
    *,
    rounds: int,
    progress: Progress,
    base: int | None = None,
) -> MemoryResult:
    """Measures memory per connection, while the stream flows.

    `base` connections (a tenth by default) come first, so that what is made once is not counted.
    Each listener of a server joins over HTTP and has a token of its own.
    """
    base = max(1, workload.listeners // 10) if base is None else base
    if not 0 < base < workload.listeners:
        raise ValueError("more listeners are needed than the base to compare with")
    result = MemoryResult(workload, base)
    for number in range(rounds):
        for i, name in enumerate(subjects):
            done = (number * len(subjects) + i) / (rounds * len(subjects))
            progress(f"round {number + 1} of {rounds}: {name}", done)
            with (
                SUBJECTS[name](workload, SPARE_S) as target,
                LoadClient(
                    target, max_seconds=SPARE_S, ask=Ask.APART if target.ask else Ask.NO
                ) as load,
            ):
                # What may not be read is told before anybody joins.
                machine.proportional_memory(machine.descendants(target.pid))
                for count in (base, workload.listeners):
                    load.join(count)
                    # As long as it takes until the last of them are in the database, too.
                    load.wait_for_frames(max(2, round(MEMORY_SETTLE_S * workload.frames_per_s)))
                    result.samples.append(_memory_sample(name, number, count, target))
    progress("done", 1.0)
    return result


def _memory_sample(name: str, number: int, count: int, target: Target) -> MemorySample:
    return MemorySample(
        name,
        number,
        count,
        machine.resident_bytes(target.pid),
        *machine.proportional_memory(machine.descendants(target.pid)),
        machine.tcp_buffer_bytes(),
    )
