"""Results for people (tables) and for later (JSON)."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks import machine
from benchmarks.child import ROOT
from benchmarks.scenarios import CpuResult, CpuSample, MemoryResult

RESULTS: Final = ROOT / "benchmarks" / "results"


def cpu_table(result: CpuResult) -> Table:
    """One row a subject: medians over the rounds, and the paired ratio to the floor."""
    rounds = max(s.round for s in result.samples) + 1
    table = Table(
        title=f"CPU per delivered frame: {result.workload}",
        caption=f"medians of {rounds} rounds of {result.seconds:g} s; ratio paired by round; "
        "both: with the load client's CPU; delay from tick to receipt; client, others: cores used",
    )
    for name in ("subject", "µs/frame", "× floor", "lowest–highest", "both", "delivered"):
        table.add_column(name, justify="left" if name == "subject" else "right", no_wrap=True)
    for name in ("p50 ms", "p99 ms", "p99.9 ms", "client", "others"):
        table.add_column(name, justify="right", no_wrap=True)
    for subject in dict.fromkeys(s.subject for s in result.samples):
        samples = result.of(subject)
        ratio = result.ratio(subject)
        table.add_row(
            subject,
            f"{_median(samples, lambda s: s.cpu_us_per_frame):.2f}",
            f"{ratio.median:.3f}" if ratio else "–",
            f"{ratio.low:.2f}–{ratio.high:.2f}" if ratio else "–",
            f"{_median(samples, _both_ends_us):.2f}",
            f"{_median(samples, lambda s: _delivered(result, s)):.1%}",
            f"{_median(samples, lambda s: s.measured.delay_ms.p50):.1f}",
            f"{_median(samples, lambda s: s.measured.delay_ms.p99):.1f}",
            f"{_median(samples, lambda s: s.measured.delay_ms.p999):.1f}",
            f"{_median(samples, lambda s: s.measured.client_load):.2f}",
            f"{_median(samples, _others):.2f}",
        )
    return table


def memory_table(result: MemoryResult) -> Table:
    """One row a subject: bytes that one connection more costs."""
    table = Table(
        title=f"Memory per connection: {result.workload}",
        caption=f"slope from {result.base} to {result.workload.listeners} connections, median of "
        "rounds; TCP buffers are the kernel's, of both ends and all sockets of this machine",
    )
    for name in ("subject", "resident kB", "lowest–highest", "TCP buffers kB"):
        table.add_column(name, justify="left" if name == "subject" else "right", no_wrap=True)
    for subject in result.subjects():
        resident = [b / 1000 for b in result.per_connection(subject, "resident")]
        kernel = [b / 1000 for b in result.per_connection(subject, "tcp_buffers")]
        table.add_row(
            subject,
            f"{statistics.median(resident):.2f}",
            f"{min(resident):.2f}–{max(resident):.2f}",
            f"{statistics.median(kernel):.2f}",
        )
    return table


def save(results: Sequence[dict[str, Any]], path: Path | None = None) -> Path:
    """Writes results with machine, versions and commit; returns where.

    Without a path: `benchmarks/results/<day>-<commit>-<scenarios>.json`, with a number added
    rather than written over an earlier one.
    """
    whole = machine.describe() | {"results": list(results)}
    if path is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        parts = [whole["when"][:10], whole["commit"], *(r["scenario"] for r in results)]
        stem = "-".join(re.sub(r"[^\w+.]", "", str(part)) for part in parts)
        path = RESULTS / f"{stem}.json"
        number = 2
        while path.exists():
            path = RESULTS / f"{stem}-{number}.json"
            number += 1
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def _median(samples: Sequence[CpuSample], of: Callable[[CpuSample], float]) -> float:
    return statistics.median(of(s) for s in samples)


def _delivered(result: CpuResult, sample: CpuSample) -> float:
    due = sample.measured.connections * result.workload.frames_per_s * sample.measured.seconds
    return sample.measured.frames / due if due else 0.0


def _both_ends_us(sample: CpuSample) -> float:
    """With the load client's CPU: on loopback the kernel's work may be booked on either end."""
    frames = sample.measured.frames
    return sample.cpu_us_per_frame + (sample.measured.client_cpu_s * 1e6 / frames if frames else 0)


def _others(sample: CpuSample) -> float:
    """Cores that neither the subject nor the load client used."""
    used = sample.measured.server_cpu_s + sample.measured.client_cpu_s
    return max(0.0, sample.cpu.machine - used) / sample.measured.seconds
