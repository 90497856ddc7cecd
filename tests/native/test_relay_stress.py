"""The relay under everything at once, watched by sanitizers; STRESS_SECONDS for longer runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.native import THREADED, build, run

SECONDS = float(os.environ.get("STRESS_SECONDS", "5"))


@pytest.mark.timeout(600 + 2 * SECONDS)
@pytest.mark.parametrize("sanitizer", THREADED)
def test_relay_stands_everything_at_once(sanitizer: str) -> None:
    program = build(
        Path(__file__).with_name("stress_relay.cpp"),
        compiler="g++",
        flags=THREADED[sanitizer],
        with_core=True,
    )
    done = run([program, str(SECONDS), "1"], timeout=120 + 2 * SECONDS)
    assert done.returncode == 0, done.stdout
