"""Rings, queues, jitter buffer and load client between native threads, watched by sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.native import THREADED, build, run


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sanitizer", THREADED)
@pytest.mark.parametrize("name", ["stress_jitter", "stress_queues"])
def test_threads_pass_what_they_share_without_a_race(name: str, sanitizer: str) -> None:
    program = build(
        Path(__file__).with_name(f"{name}.cpp"),
        compiler="g++",
        flags=THREADED[sanitizer],
    )
    done = run([program], timeout=180)
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sanitizer", THREADED)
def test_the_load_client_stands_everything_at_once(sanitizer: str) -> None:
    program = build(
        Path(__file__).with_name("stress_load.cpp"),
        compiler="g++",
        flags=THREADED[sanitizer],
        with_core=True,
    )
    done = run([program], timeout=180)
    assert done.returncode == 0, done.stdout
