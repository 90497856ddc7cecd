"""Rings, queues and jitter buffer between native threads, watched by sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.native import build, run

WATCHED = {"tsan": "thread", "asan+ubsan": "address,undefined"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sanitizer", WATCHED)
@pytest.mark.parametrize("name", ["stress_jitter", "stress_queues"])
def test_threads_pass_what_they_share_without_a_race(name: str, sanitizer: str) -> None:
    program = build(
        Path(__file__).with_name(f"{name}.cpp"),
        compiler="g++",
        flags=("-O1", "-g", f"-fsanitize={WATCHED[sanitizer]}", "-fno-sanitize-recover=all"),
    )
    done = run([program], timeout=180)
    assert done.returncode == 0, done.stdout
