"""More to send than there is time for: audio is left out, and nobody waits for an answer."""

from __future__ import annotations

import statistics

from benchmarks.crowd import Crowd
from benchmarks.subjects import running_server
from benchmarks.workload import Workload

BEYOND = Workload(5000, channels=16)
"""Some 8 GB/s, of which two cores carry a quarter with those who listen."""
NEWCOMERS = 15
ANSWER_S = 0.5


def test_who_comes_beyond_capacity_is_let_in_at_once() -> None:
    with (
        running_server(BEYOND, 120, database="none", with_source=False) as running,
        Crowd(running) as crowd,
    ):
        crowd.join(BEYOND.listeners)
        crowd.feed(BEYOND)
        before = crowd.measure(BEYOND, 4.0)
        took_ms = []
        for _ in range(NEWCOMERS):
            with Crowd(running) as newcomer:
                newcomer.join(1)
                took_ms.append(newcomer.longest_join_ms())
        after = crowd.measure(BEYOND, 1.0)
    assert before.missing > 0, "the machine serves more than this"
    assert after.missing > 0, "the machine serves more than this"
    assert before.lost == after.lost == 0
    assert statistics.median(took_ms) < ANSWER_S * 1000, took_ms
