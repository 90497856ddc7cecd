"""The wire codec: packet headers, UTF-8, unmasking, WebSocket parsing, each against a memcpy.

A native program does the work and the timing, so the table shows what C++ costs, not Python. Every
measurement is a pair, the operation and a memcpy of as many bytes, taken in turns; the ratio is the
median over the pairs. A ratio below 1 is no mistake: an operation that only reads can beat a copy.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.natives import compiler
from support.native import build

SOURCE = Path(__file__).parent / "native" / "bench_codec.cpp"
ROUNDS = 31
BATCH_S = 0.002  # long against a clock read and the wake-up of a core, short against a time slice


class Clock:
    """Time as the native program measured it: the sum of what one repeat took, each batch."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = Clock()


class Codec:
    """The native program."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.bytes = 0  # that one repeat of the last operation worked on

    def run(self, operation: str, repeats: int) -> float:
        """Do it so many times; returns seconds for one, by the program's own measuring."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(operation, repeats, file=self._process.stdin, flush=True)
        nanoseconds, self.bytes = map(int, self._process.stdout.readline().split())
        return nanoseconds / repeats / 1e9

    def repeats_for(self, operation: str) -> int:
        """How many fill one batch."""
        repeats = 16
        while (one := self.run(operation, repeats)) * repeats < BATCH_S / 4:
            repeats *= 2
        return max(1, round(BATCH_S / one))

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def codec() -> Iterator[Codec]:
    codec = Codec(build(SOURCE, compiler=compiler(), flags=("-O3",)))
    yield codec
    codec.close()


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize(
    "operation",
    [
        "packet_parse",
        "frame_header_write",
        "unmask_3872",
        "unmask_65536",
        "utf8_ascii_4096",
        "utf8_greek_4096",
        "ws_text_60",
        "ws_binary_1952",
        "ws_binary_30752",
        "ws_binary_30752_in_pieces",
    ],
)
def test_codec(
    codec: Codec, benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], operation: str
) -> None:
    repeats = codec.repeats_for(operation)
    floor_repeats = codec.repeats_for(f"floor:{operation}")
    times: list[float] = []
    ratios: list[float] = []

    def pair() -> None:
        floor = codec.run(f"floor:{operation}", floor_repeats)
        times.append(codec.run(operation, repeats))
        ratios.append(times[-1] / floor)
        CLOCK.seconds += times[-1]

    benchmark.pedantic(pair, rounds=ROUNDS, iterations=1)  # type: ignore[no-untyped-call]

    one, ratio = statistics.median(times), statistics.median(ratios)
    benchmark.extra_info |= {
        "subject": f"codec: {operation}",
        "bytes": codec.bytes,
        "ratios": {f"memcpy of {codec.bytes} bytes": ratio},
    }
    with capsys.disabled():
        print(f"\n{operation}: {one * 1e9:.1f} ns, {ratio:.2f} x memcpy of {codec.bytes} bytes")
