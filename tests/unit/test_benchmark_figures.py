"""What the benchmarks make of what they measured: of made-up samples, and of a small process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from benchmarks import documents, machine, ramp, scenarios, subjects
from benchmarks.load import Joined, Measured, Target
from benchmarks.workload import Workload

from roomserver.clients.load_report import Quantiles

WORKLOAD = Workload(listeners=100)
SECONDS = 4.0
FRAMES = 100 * 50 * 4
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


@contextmanager
def broken(_: Workload, max_seconds: int) -> Iterator[Target]:
    """A subject that can't be started."""
    raise OSError(f"no such program\nsaid for {max_seconds} s\nat all")
    yield


@contextmanager
def breaks_down(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """A subject of which it turns out at the end that it has."""
    with subjects.floor(workload, max_seconds) as target:
        yield target
    raise RuntimeError("it ended")


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

    result = ramped([*climbs, ramp.Climb("breaks down", breaks_down, few)])
    # Whether the few got all in half a second depends on what else runs here.
    assert {step.subject for step in result.steps if step.frames} == {"floor", "breaks down"}
    assert result.steps[-1].failure == "it ended"
    assert not ramp.limits(result.steps)[-1].open
    assert {failure.run for failure in result.failures} == {
        "round 1 of 1: broken",
        "round 1 of 1: breaks down",
    }
    with pytest.raises(RuntimeError, match="no ramp gave a result; no such program at all"):
        ramped(climbs[:1])


def report_of(result: dict[str, Any]) -> dict[str, Any]:
    """A file of results, as it is kept."""
    return machine.describe() | {"results": [result]}


def sample(
    subject: str, us_per_frame: float, *, frames: int = FRAMES, lost: int = 0
) -> scenarios.CpuSample:
    """A run in which a frame cost so much."""
    none = Quantiles(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    connections = WORKLOAD.listeners - lost
    return scenarios.CpuSample(
        0,
        subject,
        Joined(WORKLOAD.listeners, 0, 0.1, 0.0, 0.0, 0.0, none, {}),
        Measured(
            connections=connections,
            lost=lost,
            seconds=SECONDS,
            frames=frames,
            frames_fewest=0,
            frames_most=0,
            gaps=0,
            missing=0,
            bytes=0,
            reads=0,
            pings=0,
            server_cpu_s=us_per_frame * frames / 1e6,
            more_cpu_s=0.0,
            client_cpu_s=0.0,
            client_longest_batch_ms=0.0,
            delay_ms=none,
            arrival_ms=none,
            arrival_us=[],
            errors={},
        ),
        machine.CpuSnapshot({}, 0.0, 0.0, 0.0, 0.0),
    )


def test_frames_are_due_to_listeners_that_were_lost() -> None:
    samples = [sample("server", 8.0, frames=FRAMES // 2, lost=50), sample("server", 8.0)]
    (row,) = scenarios.CpuResult(WORKLOAD, SECONDS, samples).rows()
    assert (row.delivered, row.lost) == (0.75, 50)


def test_a_limit_is_open_when_half_of_the_ramps_never_failed() -> None:
    def ended(*counts: int) -> list[ramp.Step]:
        """Ramps that end at 18,000, or that fail a step above these."""
        steps = []
        for number, count in enumerate(counts):
            kept_up = ramp.Step("ws", number, count, due=1, most_p99_ms=None, frames=1, fewest=1)
            failed = ramp.Step("ws", number, count + 1, due=1, most_p99_ms=None)
            steps += [kept_up] if count == 18_000 else [kept_up, failed]
        return steps

    def told(*counts: int) -> tuple[float, bool]:
        (limit,) = ramp.limits(ended(*counts))
        return limit.limit.median, limit.open

    assert told(18_000, 12_842, 10_702) == (12_842, False)
    assert told(18_000, 18_000, 10_702) == (18_000, True)
    assert told(18_000, 12_000) == (15_000, True)  # between the two, one of which may be higher
    assert told(10_702) == (10_702, False)


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
