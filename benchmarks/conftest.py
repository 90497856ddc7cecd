"""Times only mean something beside other times of the same run: the fixture `compare`.

It measures an operation and its baselines in turns, batch by batch, so that whatever else the
machine does falls on all of them alike. A ratio is the operation's time divided by the baseline's,
the median over the batches; all of them stand in one table after the benchmarks, and in the
`extra_info` of pytest-benchmark's JSON. Nothing is asserted.
"""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 41
BATCH_S = 0.001  # long against reading the clock, short against a time slice

Scalar = TypeVar("Scalar", bound=np.generic)
Operation = Callable[[], object]
# Does something so many times, and says what one of them took, in seconds.
Timed = Callable[[int], float]
# What the operation is, the operation, and by name what to compare it with.
Compare = Callable[[str, Operation, Mapping[str, Operation]], None]
CompareTimed = Callable[[str, Timed, Mapping[str, Timed]], None]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    subject: str
    seconds: float
    ratios: Mapping[str, float]


class Clock:
    """The sum of what the operations alone have taken; pytest-benchmark reads it as its timer."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = Clock()
ROWS = pytest.StashKey[list[Row]]()


def timed(operation: Operation) -> Timed:
    """A Python function that is called in a loop."""

    def run(repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            operation()
        return (time.perf_counter() - begin) / repeats

    return run


def batch_of(operation: Timed) -> Callable[[], float]:
    """As many of it as fill a batch; says what one took."""
    repeats = 1
    while (one := operation(repeats)) * repeats < BATCH_S / 4:
        repeats *= 2
    return partial(operation, max(1, round(BATCH_S / one)))


def on_pages(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """A copy of the array at the beginning of a page, for floors that copy.

    Between arrays that lie anywhere it is chance what a copy takes: that of glibc 2.36 is some 15
    times as slow on Zen 3 when the target begins 16 bytes further into its page than the source.
    """
    memory: Any = mmap.mmap(-1, array.nbytes)
    placed = np.frombuffer(memory, array.dtype).reshape(array.shape)
    np.copyto(placed, array)
    return placed


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "compare_timed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))


@pytest.fixture
def compare(compare_timed: CompareTimed) -> Compare:
    """Measure one operation against its baselines; at most once in a test."""

    def measure(subject: str, operation: Operation, baselines: Mapping[str, Operation]) -> None:
        compare_timed(
            subject, timed(operation), {name: timed(run) for name, run in baselines.items()}
        )

    return measure


@pytest.fixture
def compare_timed(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> CompareTimed:
    """The same with what is timed where it runs."""

    def measure(subject: str, operation: Timed, baselines: Mapping[str, Timed]) -> None:
        own = batch_of(operation)
        others = {name: batch_of(run) for name, run in baselines.items()}
        seconds: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in baselines}

        def batch() -> None:
            seconds.append(own())
            CLOCK.seconds += seconds[-1]
            for name, other in others.items():
                ratios[name].append(seconds[-1] / other())

        benchmark.pedantic(batch, rounds=ROUNDS, iterations=1)  # type: ignore[no-untyped-call]
        medians = {name: statistics.median(values) for name, values in ratios.items()}
        benchmark.extra_info |= {"subject": subject, "ratios": medians}
        pytestconfig.stash[ROWS].append(Row(subject, statistics.median(seconds), medians))

    return measure


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.section("time, and in multiples of the baselines' time")
    width = max(len(row.subject) for row in rows)
    for row in rows:
        ratios = "".join(f"{ratio:10.2f} x {name}" for name, ratio in row.ratios.items())
        terminalreporter.write_line(f"{row.subject:<{width}}{row.seconds * 1e6:10.4f} us{ratios}")
