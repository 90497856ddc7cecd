"""What the relay frees, and its verbs when there is no memory; both with every object counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.native import THREADED, build, run


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sanitizer", THREADED)
def test_relay_frees_what_goes_and_survives_without_memory(sanitizer: str) -> None:
    program = build(
        Path(__file__).with_name("memory_relay.cpp"),
        compiler="g++",
        flags=THREADED[sanitizer],
        with_core=True,
    )
    done = run([program], timeout=180)
    assert done.returncode == 0, done.stdout
