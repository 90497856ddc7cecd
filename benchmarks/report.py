"""Results for people (tables) and for later (JSON)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks import machine
from benchmarks.child import ROOT
from benchmarks.columns import LAYOUTS, cells, delivered
from benchmarks.pacing import Lateness, PacingResult
from benchmarks.scenarios import CpuResult, MemoryResult
from benchmarks.tls import TlsResult

RESULTS: Final = ROOT / "benchmarks" / "results"


def cpu_table(result: CpuResult) -> Table:
    """One row a subject: medians over its runs, and the ratio to the floor beside it."""
    rounds = max(s.round for s in result.samples) + 1
    table = Table(
        title=f"CPU per delivered frame: {result.workload}",
        caption=f"medians of {rounds} rounds of {result.seconds:g} s; ratio to the floor beside; "
        "both: with the load client's CPU; delay from tick to receipt; client, others: cores used",
    )
    columns = ("µs/frame", "× floor", "lowest–highest", "both", "delivered")
    _columns(table, *columns, "p50 ms", "p99 ms", "p99.9 ms", "client", "others")
    for row in result.rows():
        table.add_row(
            row.subject,
            f"{row.us_per_frame:.2f}",
            f"{row.ratio.median:.3f}" if row.ratio else "–",
            f"{row.ratio.low:.2f}–{row.ratio.high:.2f}" if row.ratio else "–",
            f"{row.both_us_per_frame:.2f}",
            delivered(asdict(row)),
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.p999_ms:.1f}",
            f"{row.client:.2f}",
            f"{row.others:.2f}",
        )
    return table


def memory_table(result: MemoryResult) -> Table:
    """One row a subject: what one connection more costs."""
    table = Table(
        title=f"Memory per connection: {result.workload}",
        caption=f"slope from {result.base} to {result.workload.listeners} connections, median of "
        "rounds; database: of its processes; TCP buffers are the kernel's, of both ends and all "
        "sockets of this machine",
    )
    _columns(table, "resident kB", "lowest–highest", "database kB", "TCP buffers kB")
    for row in result.rows():
        table.add_row(
            row.subject,
            f"{row.resident.median / 1000:.2f}",
            f"{row.resident.low / 1000:.2f}–{row.resident.high / 1000:.2f}",
            f"{row.database.median / 1000:.2f}",
            f"{row.tcp_buffers.median / 1000:.2f}",
        )
    return table


def pacing_table(result: PacingResult) -> Table:
    """One row for each scheduling and condition: all rounds together."""
    rounds = max(s.round for s in result.samples) + 1
    table = Table(
        title=f"Pacing: {result.workload}",
        caption=f"{rounds} rounds of {result.seconds:g} s: medians of p50/p99.9, and max; ms; "
        "late: from a tick's deadline to its block; floor: of a bare timer loop, and how often its "
        "p99.9 goes into that of the ticks; arrival: from the deadline to the listener's socket; "
        "others: cores used by other programs at most",
    )
    table.add_column("with", no_wrap=True)
    columns = ("ticks", "late", "floor", "×", "arrival", "missing", "others")
    _columns(table, *columns, first="Python")
    for row in result.rows():
        table.add_row(
            row.granted,
            row.condition,
            str(row.ticks.count),
            _lateness(row.ticks),
            _lateness(row.floor),
            f"{row.ratio:.2f}",
            _lateness(row.arrival),
            str(row.missing),
            f"{row.others:.1f}",
        )
    return table


def _lateness(late: Lateness) -> str:
    quantiles = (late.p50, late.p999, late.max)
    return "/".join(f"{us / 1000:.2f}" for us in quantiles)


def tls_tables(result: TlsResult) -> list[Table]:
    """What TLS costs, and the listener limits."""
    workload = result.cost.workload
    cost = Table(
        title=f"CPU per delivered frame over TLS: {workload}",
        caption="medians; ratios to the nearest run (lowest–highest); client, others: cores used",
    )
    columns = ("µs/frame", "of it nginx", "× plain", "× floor", "delivered", "p50 ms", "p99 ms")
    _columns(cost, *columns, "client", "others")
    for row in result.cost_rows():
        cost.add_row(
            row.subject,
            f"{row.us_per_frame:.2f}",
            f"{row.front_us_per_frame:.2f}" if row.front_us_per_frame else "–",
            *(
                f"{r.median:.2f} ({r.low:.2f}–{r.high:.2f})" if r else "–"
                for r in (row.over_plain, row.over_floor)
            ),
            delivered(asdict(row)),
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.client:.2f}",
            f"{row.others:.2f}",
        )
    if not result.steps:
        return [cost]
    limits = Table(
        title="Listeners that got every frame due",
        caption="the greatest number of a ramp: median of ramps; ≥: more were not tried",
    )
    _columns(limits, "listeners", "lowest–highest")
    for limit in result.limit_rows():
        limits.add_row(
            limit.subject,
            f"{'≥ ' if limit.open else ''}{limit.limit.median:.0f}",
            f"{limit.limit.low:.0f}–{limit.limit.high:.0f}",
        )
    return [cost, limits]


def layout_table(result: Mapping[str, Any]) -> Table:
    """The table of a scenario that has a layout, from what is kept of it."""
    layout = LAYOUTS[result["scenario"]]
    after = layout.after(result)
    table = Table(
        title=f"{layout.title}: {result['title']}",
        caption=layout.remarks(result) + (f"\n{after}" if after else ""),
    )
    first, *others = layout.columns
    _columns(table, *others, first=first)
    for row in cells(layout, result["summary"]):
        table.add_row(*row)
    return table


def _columns(table: Table, *numbers: str, first: str = "subject") -> None:
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)


def save(results: Sequence[dict[str, Any]], path: Path | None = None) -> Path:
    """Writes results with machine, versions and commit; returns where.

    Without a path: `benchmarks/results/<day>-<commit>-<scenarios>.json`, with a number added
    rather than written over an earlier one.
    """
    whole = machine.describe() | {"results": list(results)}
    if path is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        parts = [whole["when"][:10], whole["commit"], *(r["scenario"] for r in results)]
        stem = "-".join(re.sub(r"[^\w+.-]", "", str(part)) for part in parts)
        path = RESULTS / f"{stem}.json"
        number = 2
        while path.exists():
            path = RESULTS / f"{stem}-{number}.json"
            number += 1
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path
