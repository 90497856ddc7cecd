"""RingBuffer: whatever goes in comes out once, in order, whichever index is wrapping."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import deque
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from relaycore import RingBuffer

# The indices begin right before they wrap at 2**32 or 2**64, or far from it.
FIRST_INDICES = [0, 2**32 - 7, 2**63 - 7, 2**64 - 7, 2**64 - 1]


Views: TypeAlias = "tuple[memoryview[float], memoryview[float]]"


def as_list(views: Views) -> list[float]:
    return [*views[0], *views[1]]


def fill(views: Views, samples: NDArray[np.float32]) -> None:
    """Write `samples` to the beginning of what was borrowed."""
    at = 0
    for view in views:
        n = min(len(view), len(samples) - at)
        np.asarray(view)[:n] = samples[at : at + n]
        at += n
    assert at == len(samples)


class RingAgainstDeque(RuleBasedStateMachine):
    """Every call of either side, in any order, against a deque that does the same."""

    @initialize(capacity=st.integers(1, 70), first_index=st.sampled_from(FIRST_INDICES))
    def begin(self, capacity: int, first_index: int) -> None:
        self.ring = RingBuffer(capacity, first_index=first_index)
        self.held: deque[float] = deque()
        self.next = 0.0
        self.reserved = 0
        self.peeked = 0
        assert capacity <= self.ring.capacity < 2 * capacity

    def numbers(self, n: int) -> list[float]:
        """The next n numbers; no two are alike."""
        out = [self.next + i for i in range(n)]
        self.next += n
        return out

    @property
    def room(self) -> int:
        return self.ring.capacity - len(self.held)

    @rule(n=st.integers(0, 80))
    def write(self, n: int) -> None:
        samples = self.numbers(n)
        array = np.array(samples, np.float32)
        if self.reserved:
            with pytest.raises(RuntimeError, match="committed"):
                self.ring.write(array)
            return
        taken = self.ring.write(array)
        assert taken == min(n, self.room)
        self.held.extend(samples[:taken])

    @rule(n=st.integers(0, 80))
    def reserve(self, n: int) -> None:
        views = self.ring.reserve(n)
        self.reserved = sum(map(len, views))
        assert self.reserved == min(n, self.room)
        for view in views:
            assert view.format == "f"
            assert not view.readonly
            np.asarray(view)[:] = 0

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        # What is committed is written again first: the places are still the same.
        views = self.ring.reserve(self.reserved)
        n = data.draw(st.integers(0, self.reserved))
        samples = self.numbers(n)
        fill(views, np.array(samples, np.float32))
        self.ring.commit(n)
        self.reserved = 0
        self.held.extend(samples)

    @rule(n=st.integers(0, 80))
    def read(self, n: int) -> None:
        if self.peeked:
            with pytest.raises(RuntimeError, match="released"):
                self.ring.read(n)
            return
        expected = [self.held.popleft() for _ in range(min(n, len(self.held)))]
        assert self.ring.read(n).tolist() == expected

    @rule(n=st.integers(0, 80))
    def read_into(self, n: int) -> None:
        if self.peeked:
            return
        out = np.full(n, -1, np.float32)
        count = self.ring.read(out)
        assert count == min(n, len(self.held))
        assert out[:count].tolist() == [self.held.popleft() for _ in range(count)]
        assert (out[count:] == -1).all()

    @rule(n=st.integers(0, 80))
    def peek(self, n: int) -> None:
        views = self.ring.peek(n)
        assert as_list(views) == list(self.held)[:n]
        assert views[0].readonly
        assert views[1].readonly
        self.peeked = sum(map(len, views))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(0, self.peeked))
        self.ring.release(n)
        self.peeked = 0
        for _ in range(n):
            self.held.popleft()

    @rule()
    def too_much(self) -> None:
        with pytest.raises(ValueError, match=rf"{self.reserved} samples are reserved"):
            self.ring.commit(self.reserved + 1)
        with pytest.raises(ValueError, match=rf"{self.peeked} samples were peeked at"):
            self.ring.release(self.peeked + 1)

    @invariant()
    def the_fill_is_right(self) -> None:
        if hasattr(self, "ring"):
            assert self.ring.readable == len(self.held)
            assert self.ring.writable == self.room


RingAgainstDeque.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestRingAgainstDeque = RingAgainstDeque.TestCase


@pytest.mark.parametrize("first_index", FIRST_INDICES)
def test_a_full_ring_takes_no_more(first_index: int) -> None:
    ring = RingBuffer(8, first_index=first_index)
    assert ring.write(np.arange(20, dtype=np.float32)) == 8
    assert ring.writable == 0
    assert ring.write(np.ones(1, np.float32)) == 0
    assert ring.reserve(1)[0].nbytes == 0
    assert ring.read(100).tolist() == list(range(8))
    assert ring.readable == 0


def pin(cpu: int | None) -> None:
    """Bind the calling thread to one CPU, where the system can."""
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})


CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


@pytest.mark.parametrize("first_index", [0, 2**32 - 1000, 2**64 - 1000])
@pytest.mark.parametrize(
    "cpus",
    [(None, None), (CPUS[0], CPUS[0]), (CPUS[0], CPUS[-1])],
    ids=["unpinned", "one cpu", "two cpus"],
)
@pytest.mark.parametrize("two_phase", [False, True], ids=["copying", "two-phase"])
def test_nothing_is_lost_between_two_threads(
    first_index: int, cpus: tuple[int | None, int | None], two_phase: bool
) -> None:
    total = 200_000
    ring = RingBuffer(4096, first_index=first_index)
    failures: list[BaseException] = []

    def write_all() -> None:
        try:
            pin(cpus[0])
            sizes = np.random.default_rng(1)
            at = 0
            while at < total:
                n = min(total - at, int(sizes.integers(1, 3000)))
                samples = np.arange(at, at + n, dtype=np.float32)
                if two_phase:
                    views = ring.reserve(n)
                    n = sum(map(len, views))
                    fill(views, samples[:n])
                    ring.commit(n)
                else:
                    n = ring.write(samples)
                at += n
                if n == 0:
                    time.sleep(0)  # full: let the other one run
        except BaseException as error:
            failures.append(error)

    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    writer = threading.Thread(target=write_all)
    writer.start()
    try:
        pin(cpus[1])
        sizes = np.random.default_rng(2)
        at = 0
        out = np.empty(3000, np.float32)
        while at < total and not failures:
            n = int(sizes.integers(1, 3000))
            if two_phase:
                views = ring.peek(n)
                n = len(views[0]) + len(views[1])
                out[: len(views[0])] = views[0]
                out[len(views[0]) : n] = views[1]
                ring.release(n)
            else:
                n = ring.read(out[:n])
            assert np.array_equal(out[:n], np.arange(at, at + n, dtype=np.float32))
            at += n
            if n == 0:
                time.sleep(0)
    finally:
        if before:
            os.sched_setaffinity(0, before)
        writer.join()
    assert not failures
    assert ring.readable == 0


@pytest.mark.parametrize("side", ["write", "read"])
def test_two_threads_on_one_side_are_told(side: str) -> None:
    ring = RingBuffer(1 << 24)
    big = np.zeros(1 << 24, np.float32)
    call = getattr(ring, side)
    told: list[str] = []

    def use() -> None:
        try:
            call(big)
        except RuntimeError as error:
            told.append(str(error))

    # A long copy runs without the GIL: sooner or later the other call comes in its middle.
    for _ in range(100):
        ring = RingBuffer(1 << 24)
        if side == "read":
            ring.write(big)
        call = getattr(ring, side)
        other = threading.Thread(target=use)
        other.start()
        while other.is_alive() and not told:
            use()
        other.join()
        if told:
            break

    assert told
    assert f"{side}() while another thread" in told[0]
    # The call that was there first did its work.
    assert (ring.writable, ring.readable) == ((0, 1 << 24) if side == "write" else (1 << 24, 0))


def test_borrowed_views_end_with_the_loan() -> None:
    ring = RingBuffer(8)
    first, _ = ring.reserve(4)
    ring.commit(4)
    with pytest.raises(ValueError, match="released"):
        first[0] = 1.0
    peeked, _ = ring.peek(2)
    with pytest.raises(TypeError, match="read-only"):
        peeked[0] = 1.0
    ring.peek(2)
    with pytest.raises(ValueError, match="released"):
        peeked.tolist()


def test_a_view_that_an_array_looks_through_keeps_the_memory() -> None:
    ring = RingBuffer(8)
    first, _ = ring.reserve(4)
    samples = np.asarray(first)
    samples[:] = [1, 2, 3, 4]
    ring.commit(4)  # can't release the view under the array, and does not fail
    assert ring.read(4).tolist() == [1, 2, 3, 4]
    del ring, first
    samples[:] = 5  # memory that is still there
    assert samples.tolist() == [5] * 4


def test_any_float32_buffer_goes_in_and_out() -> None:
    ring = RingBuffer(64)
    assert ring.write(np.ones((2, 3, 4), np.float32)) == 24
    assert ring.write(memoryview(array("f", [2] * 5))) == 5
    out = np.zeros((4, 6), np.float32)
    assert ring.read(out) == 24
    assert (out == 1).all()
    assert ring.read(np.int64(100)).tolist() == [2] * 5


def test_misuse_raises_and_changes_nothing() -> None:
    ring = RingBuffer(8)
    ring.write(np.arange(3, dtype=np.float32))
    with pytest.raises(TypeError, match="float32"):
        ring.write(np.zeros(3))
    with pytest.raises(TypeError, match="int16"):
        ring.write(np.zeros(3, np.int16))
    with pytest.raises(TypeError, match="list"):
        ring.write([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contiguous"):
        ring.write(np.zeros(8, np.float32)[::2])
    with pytest.raises(TypeError, match="int16"):
        ring.read(np.zeros(3, np.int16))
    with pytest.raises(TypeError):
        ring.read(1.5)  # type: ignore[call-overload]
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        ring.read(frozen)
    for call in (ring.read, ring.reserve, ring.peek, ring.commit, ring.release):
        with pytest.raises(ValueError, match="-1"):
            call(-1)
    for call in (ring.commit, ring.release):
        with pytest.raises(ValueError, match="0 samples"):
            call(1)
    for capacity in (0, -1, 2**30 + 1):
        with pytest.raises(ValueError, match="capacity"):
            RingBuffer(capacity)
    for first_index in (-1, 2**64):
        with pytest.raises(OverflowError):
            RingBuffer(8, first_index=first_index)
    assert ring.read(8).tolist() == [0, 1, 2]
