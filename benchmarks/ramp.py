"""More and more listeners of one subject, until one of them does not get what is due."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

from benchmarks import machine, scenarios
from benchmarks.child import ChildTimeoutError
from benchmarks.failures import FAILURES, Failure
from benchmarks.load import LoadClient, LoadError, Target
from benchmarks.scenarios import Progress, Spread
from benchmarks.subjects import Subject
from benchmarks.workload import Workload

IN_FLIGHT: Final = 8
"""Handshakes at a time while a stream flows: a crowd at the door is another question."""
PACED_IN_FLIGHT: Final = 64
"""The same where they begin at a pace, which makes no crowd."""
DUE: Final = 0.99
"""Share of the frames due that has to come in an interval, whose edges lie anywhere."""
DUE_TO_EACH: Final = 0.9
"""The same of what is due to one listener, of whom a frame that waits is a greater share."""
JOIN_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Step:
    """What so many listeners of a subject got in one interval; cores used by whom.

    No frames: they did not all get in, for the reason `failure`. `missing` are frames passed over
    in the sequence of some listener, `fewest` those of the one that got least, `lost` connections
    that are no more. Memory, in bytes, is the most that was seen of the subject's process, and of
    the kernel's TCP buffers on the whole machine. `most_p99_ms` is how late they may be. `server`
    counts what the process started, too. `client_batch_ms` is the longest that the load client took
    from waking up to having served every socket that was ready.
    """

    subject: str
    round: int
    listeners: int
    due: int
    most_p99_ms: float | None
    frames: int = 0
    fewest: int = 0
    missing: int = 0
    lost: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    server: float = 0.0
    client: float = 0.0
    client_batch_ms: float = 0.0
    others: float = 0.0
    resident: int = 0
    tcp_buffers: int = 0
    failure: str = ""

    @property
    def kept_up(self) -> bool:
        """Whether every listener got every frame due, and nearly all of them in time."""
        return (
            self.missing == 0
            and self.lost == 0
            and self.frames >= DUE * self.due
            and self.fewest >= DUE_TO_EACH * self.due / self.listeners
            and (self.most_p99_ms is None or self.p99_ms <= self.most_p99_ms)
        )


@dataclass(frozen=True, slots=True)
class Ramps:
    """Steps of ramps, and the ramps in which something went wrong, whose steps are kept.

    `broken_off`: subject and round of those that ended by that, before they failed.
    """

    steps: list[Step] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    broken_off: set[tuple[str, int]] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """As they are kept."""
        return {
            "failures": [failure._asdict() for failure in self.failures],
            "steps": [asdict(step) | {"kept_up": step.kept_up} for step in self.steps],
        }


@dataclass(frozen=True, slots=True)
class Limit:
    """The greatest number of listeners that got all frames due, a spread over the ramps.

    `open`: so many of the ramps ended before they failed that the median may be higher.
    """

    subject: str
    limit: Spread
    open: bool


def limits(ramps: Ramps) -> list[Limit]:
    """One for each subject that was ramped."""

    def of(subject: str) -> Limit:
        rounds: dict[int, list[Step]] = {}
        for step in ramps.steps:
            if step.subject == subject:
                rounds.setdefault(step.round, []).append(step)
        most = [
            max((step.listeners for step in ramp if step.kept_up), default=0)
            for ramp in rounds.values()
        ]
        # How far one would have got that never failed nobody knows.
        at_most = [
            math.inf if ramp[-1].kept_up or (subject, number) in ramps.broken_off else count
            for (number, ramp), count in zip(rounds.items(), most, strict=True)
        ]
        is_open = statistics.median(at_most) > statistics.median(most)
        return Limit(subject, Spread.of(most), is_open)

    return [of(subject) for subject in dict.fromkeys(step.subject for step in ramps.steps)]


def best_step(steps: Iterable[Step], subject: str) -> Step | None:
    """That with the most listeners at which a subject kept up."""
    kept = [step for step in steps if step.subject == subject and step.kept_up]
    return max(kept, key=lambda step: step.listeners, default=None)


class Climb(NamedTuple):
    """What is ramped: a subject with a stream, of whose frames 99 % may be so late at most."""

    name: str
    subject: Subject
    workload: Workload
    most_p99_ms: float | None = None


def by_turns(
    climbs: Sequence[Climb],
    *,
    rounds: int,
    seconds: float,
    first: int,
    most: int,
    growth: float,
    progress: Progress,
) -> Ramps:
    """A ramp of each in every round.

    One that breaks down keeps the steps before, and has not failed by that: of a subject that goes
    down in a step frames or listeners are missing, so that it was what measures, or the subject at
    its end. Raises RuntimeError when no ramp has a step.
    """
    ramps = Ramps()
    for number in range(rounds):
        for i, climb in enumerate(climbs):
            done = (number * len(climbs) + i) / (rounds * len(climbs))

            def tell(count: int, name: str = climb.name, done: float = done) -> None:
                progress(f"{name} with {count}", done)

            ramp = _ramp(
                climb, number, seconds=seconds, first=first, most=most, growth=growth, tell=tell
            )
            failed = False
            try:
                for step, failed in ramp:  # noqa: B007  whether the last one was a failure
                    ramps.steps.append(step)
            except FAILURES as error:
                run = f"round {number + 1} of {rounds}: {climb.name}"
                ramps.failures.append(Failure.of(run, error))
                if not failed:
                    ramps.broken_off.add((climb.name, number))
    if not ramps.steps:
        raise RuntimeError(f"no ramp gave a result; {ramps.failures[0].reason}")
    progress("done", 1.0)
    return ramps


def _ramp(
    climb: Climb,
    number: int,
    *,
    seconds: float,
    first: int,
    most: int,
    growth: float,
    tell: Callable[[int], None],
) -> Iterator[tuple[Step, bool]]:
    """More and more listeners, until frames due did not come, or too late, twice in a row.

    With each step, whether the ramp has failed by it.
    """
    counts = [min(first, most)]
    while counts[-1] < most:
        counts.append(min(most, round(counts[-1] * growth)))
    max_seconds = round(len(counts) * 2 * (seconds + 10)) + scenarios.SPARE_S
    with climb.subject(climb.workload, max_seconds) as target:
        in_flight = PACED_IN_FLIGHT if target.joins_per_s else IN_FLIGHT
        with LoadClient(target, max_seconds=max_seconds, in_flight=in_flight) as load:
            for count in counts:
                tell(count)
                for again in (False, True):
                    step = _step(climb, number, count, load, target, seconds)
                    failed = not step.kept_up and (again or not step.frames)
                    yield step, failed
                    if failed:
                        return
                    if step.kept_up:
                        break


def _step(
    climb: Climb, number: int, count: int, load: LoadClient, target: Target, seconds: float
) -> Step:
    name, _, workload, most_p99_ms = climb
    due_per_s = count * workload.frames_per_s
    step = Step(name, number, count, due=round(due_per_s * seconds), most_p99_ms=most_p99_ms)
    try:
        paced_s = count / target.joins_per_s if target.joins_per_s else 0.0
        load.join(count, JOIN_TIMEOUT_S + paced_s)
        load.wait_for_frames(max(1, round(scenarios.SETTLE_S * workload.frames_per_s)))
    except (LoadError, ChildTimeoutError) as error:  # the door is blocked, or nothing comes
        return replace(step, failure=str(error))
    before = machine.CpuSnapshot.take(target.pid)
    with machine.watched_memory(target.pid) as memory:
        got = load.measure(seconds)
    cores = (
        machine.CpuSnapshot.take(target.pid)
        .since(before)
        .cores(server_s=got.server_cpu_s, client_s=got.client_cpu_s, seconds=got.seconds)
    )
    return replace(
        step,
        frames=got.frames,
        due=round(due_per_s * got.seconds),
        fewest=got.frames_fewest,
        missing=got.missing,
        lost=count - got.connections,
        p50_ms=got.delay_ms.p50,
        p99_ms=got.delay_ms.p99,
        max_ms=got.delay_ms.max,
        server=round(cores.server, 4),
        client=round(cores.client, 4),
        client_batch_ms=got.client_longest_batch_ms,
        others=round(cores.others, 4),
        resident=memory.resident,
        tcp_buffers=memory.tcp_buffers,
    )
