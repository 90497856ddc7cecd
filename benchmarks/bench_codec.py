"""The wire codec: packet headers, UTF-8, unmasking, WebSocket parsing, each against a memcpy.

A native program does the work and the timing, so the table shows what C++ costs, not Python. Each
operation is measured by turns with a memcpy of as many bytes. A ratio below 1 is no mistake: an
operation that only reads can beat a copy.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks import natives
from benchmarks.conftest import CompareTimed


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

    def close(self) -> None:
        """Ends the program."""
        self._process.communicate()


@pytest.fixture(scope="module")
def codec() -> Iterator[Codec]:
    codec = Codec(natives.build("bench_codec"))
    yield codec
    codec.close()


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
def test_codec(codec: Codec, compare_timed: CompareTimed, operation: str) -> None:
    codec.run(operation, 1)
    compare_timed(
        f"codec: {operation}",
        partial(codec.run, operation),
        {f"memcpy of {codec.bytes} bytes": partial(codec.run, f"floor:{operation}")},
    )
