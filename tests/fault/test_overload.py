"""More to send than there is time for: audio is left out, what comes is not late, nobody waits."""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
from benchmarks import machine
from benchmarks.crowd import Crowd
from benchmarks.subjects import running_server
from benchmarks.workload import Workload

from support.freeze import cpu_s, may_be_realtime, thread_named

BEYOND = Workload(5000, channels=16)
"""Some 8 GB/s, of which two cores carry a quarter with those who listen."""
NEWCOMERS = 15
ANSWER_S = 0.5
SETTLES_S = 20
"""First all falls behind by the 2 s that are kept."""
RESTS_S = 20
"""It does so many times a second."""
LATE_MS = 1500
"""`max_lag_ms`, and a ping's interval until that is known."""
PING_S = 1.0
"""Twice as often as players set their clocks."""


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """So many sockets are in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    machine.raise_descriptor_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def clocks_being_set(crowd: Crowd) -> Iterator[None]:
    """Meanwhile every listener asks for the time again and again, as players do."""
    over = threading.Event()
    slices, ping = 20, json.dumps({"type": "ping", "t": 1})

    def ask() -> None:
        began = time.monotonic()
        for number in itertools.count():
            if over.wait(max(0.0, began + number * PING_S / slices - time.monotonic())):
                return
            crowd.client.send(range(number % slices, BEYOND.listeners, slices), [ping])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


@pytest.mark.parametrize("meanwhile", [nullcontext, clocks_being_set])
def test_who_comes_beyond_capacity_is_let_in_at_once(
    meanwhile: Callable[[Crowd], AbstractContextManager[None]],
) -> None:
    with (
        running_server(BEYOND, 120, database="none", with_source=False) as running,
        Crowd(running) as crowd,
    ):
        crowd.join(BEYOND.listeners)
        crowd.feed(BEYOND)
        with meanwhile(crowd):
            before = crowd.measure(BEYOND, 4.0)
            took_ms = []
            for _ in range(NEWCOMERS):
                with Crowd(running) as newcomer:
                    newcomer.join(1)
                    took_ms.append(newcomer.longest_join_ms())
            for _ in range(SETTLES_S):
                if crowd.measure(BEYOND, 1.0).p99_ms < LATE_MS:
                    break
            after = crowd.measure(BEYOND, 4.0)
        losses = crowd.client.listeners()["losses"].sum()
    assert before.delivered < 0.8, "the machine serves more than this"
    assert 0.05 < after.delivered < 0.8, "the machine serves more than this"
    assert losses == 0
    assert after.p99_ms < LATE_MS
    assert statistics.median(took_ms) < ANSWER_S * 1000, took_ms


def test_the_thread_gives_its_priority_up_for_moments_and_has_it_again() -> None:
    wanted = os.SCHED_FIFO if may_be_realtime() else os.SCHED_OTHER
    with running_server(BEYOND, 120, database="none", with_source=False) as running:
        thread = thread_named(running.child.pid, "relay-0")
        with Crowd(running) as crowd:
            crowd.join(BEYOND.listeners)
            crowd.feed(BEYOND)
            crowd.measure(BEYOND, 1.0)
            seen = Counter[int]()
            end = time.monotonic() + RESTS_S
            while len(seen) < len({wanted, os.SCHED_OTHER}) and time.monotonic() < end:
                seen[os.sched_getscheduler(thread)] += 1
            print(seen)
            assert set(seen) == {wanted, os.SCHED_OTHER}
        before = -math.inf
        while (now := cpu_s(thread)) > before:  # they leave
            before = now
            time.sleep(0.2)
        assert os.sched_getscheduler(thread) == wanted
