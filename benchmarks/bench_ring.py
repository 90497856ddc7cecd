"""The ring of samples against copying the same bytes twice, which is the least it has to do.

One thread writes and reads in turns, so this is the cost of the calls and the copies; what a second
thread adds is a cache line now and then. "deque" is what plain Python would do.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.conftest import Compare, on_pages
from relaycore import RingBuffer

SIZES = (1, 127, 441, 960, 4096, 65536)


def noise(n: int) -> NDArray[np.float32]:
    return np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)


@pytest.mark.parametrize("n", SIZES)
def test_write_and_read(compare: Compare, n: int) -> None:
    # Not a multiple of n: the copies go over the end of the memory as often as they ever will.
    ring = RingBuffer(4 * n + 1)
    samples = noise(n)
    out = np.empty(n, np.float32)
    source, between, copied = (on_pages(samples) for _ in range(3))
    queue: deque[NDArray[np.float32]] = deque()

    def through_the_ring() -> None:
        ring.write(samples)
        ring.read(out)

    def twice_copied() -> None:
        np.copyto(between, source)
        np.copyto(copied, between)

    def through_a_deque() -> None:
        queue.append(samples.copy())
        np.copyto(copied, queue.popleft())

    compare(
        f"ring: write and read {n}",
        through_the_ring,
        {"two NumPy copies": twice_copied, "deque": through_a_deque},
    )


@pytest.mark.parametrize("n", SIZES)
def test_reserve_fill_commit_peek_release(compare: Compare, n: int) -> None:
    ring = RingBuffer(4 * n + 1)
    between = np.empty(n, np.float32)

    def in_place() -> None:
        for view in ring.reserve(n):
            np.asarray(view).fill(1)
        ring.commit(n)
        ring.peek(n)
        ring.release(n)

    compare(
        f"ring: fill {n} in place",
        in_place,
        {"NumPy fill": lambda: between.fill(1)},
    )
