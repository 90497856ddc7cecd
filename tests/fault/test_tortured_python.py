"""What is done to the server's Python does not reach the audio of 200 listeners.

Source and listeners are processes of their own. Every torture lasts far longer than a frame may
take, so audio that waited for Python anywhere on its way would be late or missing; the last test
sends it through Python to see that this is noticed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from benchmarks.load import LoadClient, Measured
from benchmarks.subjects import (
    TORTURED,
    RunningServer,
    running_server,
    source_register,
    stream_options,
)
from benchmarks.workload import Workload

# So much in the jitter buffer that a source which gets no processor for a while, as on a machine
# that compiles meanwhile, leaves no hole.
WORKLOAD = Workload(listeners=200, channels=1, sample_rate=8000, buffer_ms=500)
TORTURE_S = 2.0
# From a tick until its frame is in a listener's socket: half of what the thread holds the GIL for
# at a time, and a hundred times what it takes on a machine that has nothing else to do.
LATEST_MS = 500
MAX_SECONDS = 90
TIMEOUT_S = 60.0
# A listener that got no processor for a while must not be moved on to live.
PATIENT = ("--max-lag-ms", "5000")


def faults(heard: Measured, workload: Workload) -> list[str]:
    """What is wrong with what the listeners heard; empty when each of them heard everything."""
    found = []
    if heard.lost or heard.errors:
        found.append(f"{heard.lost} listeners were lost: {heard.errors}")
    if heard.gaps:
        found.append(f"{heard.missing} frames are missing in {heard.gaps} places")
    due = int((heard.seconds - LATEST_MS / 1000) * workload.frames_per_s)
    if heard.frames_fewest < due:
        found.append(f"a listener got {heard.frames_fewest} frames where {due} were due")
    if heard.arrival_ms.max > LATEST_MS:
        found.append(f"a frame came {heard.arrival_ms.max:.0f} ms after its tick")
    return found


def torture(
    server: RunningServer, listeners: LoadClient, name: str
) -> tuple[Measured, dict[str, Any]]:
    """What was heard meanwhile, and what was done to Python."""
    server.child.tell(f"torture {name} {TORTURE_S}")
    server.child.expect("torture_begins", TIMEOUT_S)
    heard = listeners.measure(TORTURE_S + 0.5)
    return heard, server.child.expect("torture_over", TIMEOUT_S)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(WORKLOAD, MAX_SECONDS, module=TORTURED, options=PATIENT) as running:
        yield running


@pytest.fixture(scope="module")
def listeners(server: RunningServer) -> Iterator[LoadClient]:
    with LoadClient(
        server.target, max_seconds=MAX_SECONDS, kernel_times=True, realtime=True
    ) as load:
        load.join(WORKLOAD.listeners)
        load.wait_for_frames(10)
        yield load


def test_a_thread_that_holds_the_gil_for_a_second_at_a_time(
    server: RunningServer, listeners: LoadClient
) -> None:
    heard, done = torture(server, listeners, "gil")
    assert faults(heard, WORKLOAD) == []
    assert done["loop_paused_ms"] >= 1000


def test_an_event_loop_that_is_blocked_for_seconds(
    server: RunningServer, listeners: LoadClient
) -> None:
    heard, done = torture(server, listeners, "loop")
    assert faults(heard, WORKLOAD) == []
    assert done["loop_paused_ms"] >= 1000 * TORTURE_S


def test_collections_of_a_large_heap(server: RunningServer, listeners: LoadClient) -> None:
    heard, done = torture(server, listeners, "gc")
    assert faults(heard, WORKLOAD) == []
    assert done["collections"] > 0


def test_a_burst_of_bcrypt(server: RunningServer, listeners: LoadClient) -> None:
    heard, done = torture(server, listeners, "bcrypt")
    assert faults(heard, WORKLOAD) == []
    assert done["hashes"] > 0


def test_audio_that_passes_through_python_would_be_noticed() -> None:
    few = Workload(listeners=5, channels=1, sample_rate=8000)
    with running_server(
        few, MAX_SECONDS, module=TORTURED, options=PATIENT, with_source=False
    ) as server:
        options = ["--port", str(server.target.port), "--register"]
        options += [source_register(server.room, few)]
        options += map(str, stream_options(few, MAX_SECONDS))
        server.child.tell(f"feed {shlex.join(options)}")
        with LoadClient(
            server.target, max_seconds=MAX_SECONDS, kernel_times=True, realtime=True
        ) as listeners:
            listeners.join(few.listeners)
            for name in ("gil", "loop"):
                listeners.wait_for_frames(10)
                heard, _ = torture(server, listeners, name)
                assert faults(heard, few), name
