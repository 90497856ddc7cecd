"""Results for people (tables) and for later (JSON)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks import machine
from benchmarks.child import ROOT
from benchmarks.columns import cells, parts

RESULTS: Final = ROOT / "benchmarks" / "results"


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of a result, from what is kept of it. Raises KeyError for an unknown scenario."""
    for layout, part in parts(result):
        after = layout.after(part)
        table = Table(
            title=f"{layout.title}: {part['title']}",
            caption=layout.remarks(part) + (f"\n{after}" if after else ""),
        )
        for number, name in enumerate(layout.columns):
            table.add_column(name, justify="right" if number else "left")
        for row in cells(layout, part["summary"]):
            table.add_row(*row)
        yield table


def save(results: Sequence[dict[str, Any]], path: Path | None = None) -> Path:
    """Writes results with machine, versions and commit; returns where.

    Without a path: `benchmarks/results/<day>-<commit>-<scenarios>.json`, with a number added
    rather than written over an earlier one.
    """
    whole = machine.describe() | {"results": list(results)}
    if path is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        names = [whole["when"][:10], whole["commit"], *(r["scenario"] for r in results)]
        stem = "-".join(re.sub(r"[^\w+.-]", "", str(name)) for name in names)
        path = RESULTS / f"{stem}.json"
        number = 2
        while path.exists():
            path = RESULTS / f"{stem}-{number}.json"
            number += 1
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path
