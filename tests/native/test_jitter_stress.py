"""Rings and jitter buffer between native threads, watched by sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.native import build, run

WATCHED = {"tsan": "thread", "asan+ubsan": "address,undefined"}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("sanitizer", WATCHED)
def test_threads_pass_samples_without_a_race(sanitizer: str) -> None:
    program = build(
        Path(__file__).with_name("stress_jitter.cpp"),
        compiler="g++",
        flags=("-O1", "-g", f"-fsanitize={WATCHED[sanitizer]}", "-fno-sanitize-recover=all"),
    )
    done = run([program], timeout=120)
    assert done.returncode == 0, done.stdout
