"""What the benchmarks make of what they measured: of made-up samples, and of a small process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Self, cast

import numpy as np
import pytest
from benchmarks import documents, machine, ramp, runs, scenarios, soak, subjects, tls
from benchmarks.child import ChildError, ChildTimeoutError
from benchmarks.crowd import Interval
from benchmarks.load import Joined, LoadClient, Measured, Target
from benchmarks.workload import Workload

from roomserver.clients.load_report import Quantiles

WORKLOAD = Workload(listeners=100)
SECONDS = 4.0
FRAMES_OF_ONE = 50 * 4
FRAMES = 100 * FRAMES_OF_ONE
NO_TIMES = Quantiles(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
NOTHING_USED = machine.CpuSnapshot({}, 0.0, 0.0)
BUSY_S = 0.2
STARTS_ANOTHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
BUSY_WHEN_TOLD = f"""
import time
print(flush=True)
input()
began = time.process_time()
while time.process_time() - began < {BUSY_S}:
    pass
print(flush=True)
input()
"""


def test_what_a_process_started_counts_as_its_own() -> None:
    command = [sys.executable, "-c", STARTS_ANOTHER, BUSY_WHEN_TOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = machine.CpuSnapshot.take(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        used = machine.CpuSnapshot.take(process.pid).since(before)
        process.stdin.write(b"\n")
    assert sum(used.descendants.values()) >= 0.9 * BUSY_S
    assert sum(used.threads.values()) < 0.5 * BUSY_S


def test_memory_is_the_most_that_was_seen() -> None:
    before = machine.resident_bytes(os.getpid())
    block_bytes = 64 << 20
    with machine.watched_memory(os.getpid()) as most:
        block = np.ones(block_bytes, np.uint8)
        end = time.monotonic() + 30
        while most.resident < before + block_bytes // 2 and time.monotonic() < end:
            time.sleep(0.01)
        del block
    assert machine.resident_bytes(os.getpid()) < before + block_bytes // 2 < most.resident


def test_memory_of_what_has_ended_is_none_and_what_may_not_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert machine.proportional_memory([process.pid]) == (0, 0)

    def refuse(*_: object) -> int:
        raise PermissionError("smaps_rollup")

    monkeypatch.setattr(machine, "_kib", refuse)
    with pytest.raises(PermissionError, match=r"CAP_SYS_PTRACE is missing; run this as"):
        machine.proportional_memory([os.getpid()])


def test_memory_that_may_not_be_read_is_told_before_anybody_joins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = SimpleNamespace(child=SimpleNamespace(pid=os.getpid()), pid=os.getpid(), ask="")

    def refuse(*_: object) -> int:
        raise PermissionError("may not be read")

    def nobody(*_: object, **options: object) -> AbstractContextManager[object]:
        return nullcontext(SimpleNamespace())  # it can't join

    monkeypatch.setattr(machine, "proportional_memory", refuse)
    monkeypatch.setattr(soak, "running_server", lambda *_, **options: nullcontext(running))
    monkeypatch.setattr(soak, "Crowd", nobody)
    monkeypatch.setitem(cast(Any, subjects.SUBJECTS), "some", lambda *_: nullcontext(running))
    monkeypatch.setattr(scenarios, "LoadClient", nobody)
    with pytest.raises(PermissionError):
        soak.soak(WORKLOAD, hours=1.0, progress=lambda *_: None)
    with pytest.raises(PermissionError):
        scenarios.memory(WORKLOAD, ["some"], rounds=1, progress=lambda *_: None)


@contextmanager
def broken(_: Workload, max_seconds: int) -> Iterator[Target]:
    """A subject that can't be started."""
    raise OSError(f"no such program\nsaid for {max_seconds} s\nat all")
    yield


def test_a_run_that_fails_costs_no_other() -> None:
    known = {"broken": broken, "floor": subjects.floor}
    few = Workload(listeners=2, channels=1, sample_rate=8000)
    result = scenarios.cpu(
        few, list(known), rounds=1, seconds=0.5, progress=lambda *_: None, known=known
    )
    assert {s.subject for s in result.samples} == {"floor"}
    assert result.failures == [("round 1 of 1: broken", "no such program at all")]
    told = documents.full(report_of(result.as_json()), "name.json")
    assert "Failed: round 1 of 1: broken, since no such program at all." in told


def test_a_ramp_that_fails_costs_no_other() -> None:
    few = Workload(listeners=2, channels=1, sample_rate=8000)
    climbs = [ramp.Climb("broken", broken, few), ramp.Climb("floor", subjects.floor, few)]

    def ramped(some: list[ramp.Climb]) -> ramp.Ramps:
        return ramp.by_turns(
            some, rounds=1, seconds=0.5, first=2, most=2, growth=2.0, progress=lambda *_: None
        )

    result = ramped(climbs)
    assert {step.subject for step in result.steps} == {"floor"}
    assert [failure.run for failure in result.failures] == ["round 1 of 1: broken"]
    with pytest.raises(RuntimeError, match=r"no ramp gave a result; no such program at all"):
        ramped(climbs[:1])


@contextmanager
def ends_badly(*_: object) -> Iterator[Target]:
    """A subject that has served everybody when it turns out that it can't end."""
    yield Target(os.getpid(), port=0)
    raise RuntimeError("it did not end")


class Served:
    """In place of a load client: so many get all that is due; with more it may break down."""

    most = 0
    breaks_in = ""

    def __init__(self, *_: object, **options: object) -> None:
        self.connections = 0
        self.tries = 0

    def join(self, connections: int, _: float) -> None:
        self.connections = connections
        if connections > self.most and self.breaks_in == "join":
            raise ChildError("no answer")

    def wait_for_frames(self, _: int) -> None:
        pass

    def measure(self, _: float) -> Measured:
        due = self.connections * FRAMES_OF_ONE
        if self.connections <= self.most:
            return measured(self.connections, frames=due)
        self.tries += 1
        if self.breaks_in == f"try {self.tries}":
            raise ChildError("no answer")
        return measured(self.connections, frames=due // 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("most", "breaks_in", "counts", "is_open"),
    [
        (4, "", [2, 4], True),
        (2, "join", [2], True),
        (2, "try 1", [2], True),
        (2, "try 2", [2, 4], True),
        (2, "", [2, 4, 4], False),  # it had failed before its end went wrong
    ],
)
def test_how_far_a_subject_gets_is_open_when_something_else_breaks_down(
    monkeypatch: pytest.MonkeyPatch, most: int, breaks_in: str, counts: list[int], is_open: bool
) -> None:
    monkeypatch.setattr(Served, "most", most)
    monkeypatch.setattr(Served, "breaks_in", breaks_in)
    monkeypatch.setattr(ramp, "LoadClient", Served)
    monkeypatch.setattr(machine.CpuSnapshot, "take", lambda _: NOTHING_USED)
    climb = ramp.Climb("ends badly", ends_badly, WORKLOAD)
    result = ramp.by_turns(
        [climb], rounds=1, seconds=SECONDS, first=2, most=4, growth=2.0, progress=lambda *_: None
    )
    assert [step.listeners for step in result.steps] == counts
    (limit,) = ramp.limits(result)
    assert (limit.limit.median, limit.open) == (most, is_open)
    reason = "no answer" if breaks_in else "it did not end"
    assert result.failures == [("round 1 of 1: ends badly", reason)]


class Killed(LoadClient):
    """Is killed while its listeners join."""

    def begin_join(self, connections: int) -> None:
        super().begin_join(connections)
        os.kill(self.pid, signal.SIGKILL)


def test_a_load_client_that_ends_while_listeners_join_is_no_failure_of_the_subject(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ramp, "LoadClient", Killed)
    climb = ramp.Climb("floor", subjects.floor, Workload(2, channels=1, sample_rate=8000))
    with pytest.raises(RuntimeError, match=r"no ramp gave a result; .* ended without saying"):
        ramp.by_turns(
            [climb], rounds=1, seconds=0.2, first=2, most=2, growth=2.0, progress=lambda *_: None
        )


class Silent(Served):
    """Lets nobody in for too long."""

    def join(self, connections: int, _: float) -> None:
        raise ChildTimeoutError("did not say")


def test_newcomers_who_are_not_in_in_time_are_a_failure_of_the_subject(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ramp, "LoadClient", Silent)
    here = nullcontext(Target(os.getpid(), port=0))
    result = ramp.by_turns(
        [ramp.Climb("blocked", lambda *_: here, WORKLOAD)],
        rounds=1,
        seconds=SECONDS,
        first=2,
        most=4,
        growth=2.0,
        progress=lambda *_: None,
    )
    assert [step.failure for step in result.steps] == ["did not say"]
    assert not ramp.limits(result)[0].open
    assert not result.failures


class Killer(LoadClient):
    """Kills its subject as soon as that serves."""

    def __init__(self, target: Target, **options: Any) -> None:
        super().__init__(target, **options)
        self._target = target

    def wait_for_frames(self, frames: int) -> None:
        super().wait_for_frames(frames)
        os.kill(self._target.pid, signal.SIGKILL)


def test_a_subject_that_breaks_down_has_not_kept_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ramp, "LoadClient", Killer)
    climb = ramp.Climb("floor", subjects.floor, Workload(2, channels=1, sample_rate=8000))
    result = ramp.by_turns(
        [climb], rounds=1, seconds=0.2, first=2, most=4, growth=2.0, progress=lambda *_: None
    )
    assert {step.listeners for step in result.steps} == {2}
    assert not any(step.kept_up for step in result.steps)
    assert not ramp.limits(result)[0].open
    assert not result.failures


def test_a_soak_that_breaks_down_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = dict.fromkeys((f.name for f in fields(Interval)), 1.0)
    kept = soak.SoakSample(60.0, Interval(**cast(Any, figures)), *([0] * 8))

    @contextmanager
    def ends_badly(*_: object, **options: object) -> Iterator[None]:
        yield
        raise RuntimeError("the server ended with exit code 1")

    silence = RuntimeError("nobody heard anything")

    def result_of(done: int, error: BaseException | None) -> soak.SoakResult:
        def samples(*_: object) -> Iterator[soak.SoakSample]:
            yield from [kept] * done
            if error:
                raise error

        monkeypatch.setattr(soak, "running_server", ends_badly)
        monkeypatch.setattr(soak, "Crowd", nullcontext)
        monkeypatch.setattr(soak, "_samples", samples)
        return soak.soak(WORKLOAD, hours=3 / 60, progress=lambda *_: None)

    for done, error, failure in (
        (1, silence, ("step 2 of 3", "nobody heard anything")),
        (2, KeyboardInterrupt(), ("step 3 of 3", "KeyboardInterrupt")),
        (3, None, ("end", "the server ended with exit code 1")),
    ):
        result = result_of(done, error)
        assert result.samples == [kept] * done
        assert result.failures == [failure]
        told = documents.full(report_of(result.as_json()), "name.json")
        assert f"Failed: {failure[0]}, since {failure[1]}." in told
    with pytest.raises(RuntimeError, match="nobody heard anything"):
        result_of(0, silence)


def test_what_tls_costs_is_kept_when_no_ramp_gave_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> ramp.Ramps:
        raise RuntimeError("no ramp gave a result; nginx is gone")

    cost = scenarios.CpuResult(WORKLOAD, 4.0, [sample("tls", 50.0)])
    monkeypatch.setattr(scenarios, "cpu", lambda *_, **options: cost)
    monkeypatch.setattr(tls, "by_turns", refuse)
    result = tls.tls(
        WORKLOAD,
        ["tls"],
        rounds=1,
        limit_rounds=1,
        seconds=4.0,
        most=100,
        growth=2.0,
        progress=lambda *_: None,
    )
    assert result.cost is cost
    told = documents.full(report_of(result.as_json()), "name.json")
    assert "Failed: every ramp, since no ramp gave a result; nginx is gone." in told


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with runs.progress("cpu") as tell:
        for done in (0.1, 0.2):
            tell("round 1 of 9", done)
    assert capsys.readouterr().err == "cpu: round 1 of 9 (10%)\n"


def report_of(result: dict[str, Any]) -> dict[str, Any]:
    """A file of results, as it is kept."""
    return machine.describe() | {"results": [result]}


def sample(
    subject: str, us_per_frame: float, *, frames: int = FRAMES, lost: int = 0
) -> scenarios.CpuSample:
    """A run in which a frame cost so much."""
    return scenarios.CpuSample(
        0,
        subject,
        Joined(WORKLOAD.listeners, 0, 0.1, 0.0, 0.0, 0.0, NO_TIMES, {}),
        measured(
            WORKLOAD.listeners - lost,
            frames=frames,
            lost=lost,
            server_cpu_s=us_per_frame * frames / 1e6,
        ),
        NOTHING_USED,
    )


def measured(
    connections: int, *, frames: int, lost: int = 0, server_cpu_s: float = 0.0
) -> Measured:
    """An interval in which those who are left got as much each."""
    return Measured(
        connections=connections,
        lost=lost,
        seconds=SECONDS,
        frames=frames,
        frames_fewest=frames // connections,
        frames_most=frames // connections,
        gaps=0,
        missing=0,
        bytes=0,
        reads=0,
        pings=0,
        server_cpu_s=server_cpu_s,
        more_cpu_s=0.0,
        client_cpu_s=0.0,
        client_longest_batch_ms=0.0,
        delay_ms=NO_TIMES,
        arrival_ms=NO_TIMES,
        arrival_us=[],
        errors={},
    )


def test_frames_are_due_to_listeners_that_were_lost() -> None:
    samples = [sample("server", 8.0, frames=FRAMES // 2, lost=50), sample("server", 8.0)]
    (row,) = scenarios.CpuResult(WORKLOAD, SECONDS, samples).rows()
    assert (row.delivered, row.lost) == (0.75, 50)


def test_a_limit_is_open_when_ramps_that_never_failed_could_have_raised_it() -> None:
    def ended(*counts: int) -> list[ramp.Step]:
        """Ramps that end at 18,000 or were broken off at 1,000, or that fail a step above these."""
        steps = []
        for number, count in enumerate(counts):
            kept_up = ramp.Step("ws", number, count, due=1, most_p99_ms=None, frames=1, fewest=1)
            failed = ramp.Step("ws", number, count + 1, due=1, most_p99_ms=None)
            steps += [kept_up] if count in (18_000, 1_000) else [kept_up, failed]
        return steps

    def told(*counts: int) -> tuple[float, bool]:
        (limit,) = ramp.limits(ramp.Ramps(ended(*counts)))
        return limit.limit.median, limit.open

    assert told(18_000, 12_842, 10_702) == (12_842, False)
    assert told(18_000, 18_000, 10_702) == (18_000, True)
    assert told(18_000, 12_000) == (15_000, True)  # between the two, one of which may be higher
    assert told(10_702) == (10_702, False)
    assert told(1_000, 12_842, 10_702) == (10_702, True)
    assert told(1_000, 12_842, 12_842) == (12_842, False)


def test_a_ratio_is_that_to_the_floor_beside() -> None:
    costs = [("server", 6.0), ("floor", 5.0), ("relay", 10.0), ("ws", 40.0), ("floor", 10.0)]
    result = scenarios.CpuResult(WORKLOAD, SECONDS, [sample(*cost) for cost in costs])
    assert [row.subject for row in result.rows()] == ["floor", "server", "relay", "ws"]
    ratios = [row.ratio and row.ratio.median for row in result.rows()]
    assert ratios == [1.0, 1.2, 2.0, 4.0]
    assert scenarios.CpuResult(WORKLOAD, SECONDS, [sample("ws", 40.0)]).ratio("ws") is None


def test_everyone_runs_once_in_a_round_and_beside_the_floor() -> None:
    for count in range(7):
        others = [f"subject {i}" for i in range(count)]
        runs = list(scenarios.turns(["floor", *others], rounds=9))
        assert runs == list(scenarios.turns(["floor", *others], rounds=9))
        assert Counter(name for _, name in runs if name != "floor") == dict.fromkeys(others, 9)
        for number in range(9):
            order = [name for round_, name in runs if round_ == number]
            assert set(order) == {"floor", *others}
            beside = {name for pair in pairwise(order) if "floor" in pair for name in pair}
            assert set(others) <= beside, order
    assert list(scenarios.turns(["ws", "bun"], rounds=2)) == [
        (0, "ws"),
        (0, "bun"),
        (1, "bun"),
        (1, "ws"),
    ]
