"""The scenario `micro`: the benchmarks of pytest-benchmark, kept as all results are."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import relaycore
from benchmarks.child import ROOT, ChildError

CHANNELS: Final = (16, 64)
SAMPLES: Final = 960
"""Of the kernels' sizes, those that stand in the table."""


def micro(select: str = "") -> dict[str, Any]:
    """Runs those that pytest's `-k` would select, all by default; what they say is printed.

    The result is as it is kept: `samples` are pytest-benchmark's, without the time of every round.
    Raises ChildError when one of them fails, or there is none.
    """
    with tempfile.TemporaryDirectory(prefix="bench-micro-") as directory:
        kept = Path(directory) / "benchmarks.json"
        command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-k", select]
        done = subprocess.run([*command, "--benchmark-json", kept], cwd=ROOT, check=False)
        if done.returncode:
            raise ChildError(f"pytest ended with exit code {done.returncode}, as it says above")
        benchmarks = json.loads(kept.read_text())["benchmarks"]
    for benchmark in benchmarks:
        del benchmark["stats"]["data"]
        del benchmark["options"]
    return {
        "scenario": "micro",
        "title": f"Kernels with {relaycore.simd()}",
        "rounds": min(benchmark["stats"]["rounds"] for benchmark in benchmarks),
        "simd": relaycore.simd(),
        "summary": [_row(benchmark) for benchmark in benchmarks if _shown(benchmark)],
        "samples": benchmarks,
    }


def _shown(benchmark: Mapping[str, Any]) -> bool:
    """Whether it stands in the table: of the kernels, those with many channels of 20 ms."""
    if "bench_kernels" not in benchmark["fullname"]:
        return True
    params = benchmark["params"]
    return (
        params.get("channels") in CHANNELS
        and params.get("samples", SAMPLES) == SAMPLES
        and "variant" not in params
    )


def _row(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    extra = benchmark["extra_info"]
    return {
        "subject": extra["subject"],
        "seconds": benchmark["stats"]["median"],
        "ratios": extra["ratios"],
    }
