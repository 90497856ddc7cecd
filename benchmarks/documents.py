"""Puts kept results into the documentation: `python -m benchmarks docs`.

The text between `<!-- measured:begin … -->` and `<!-- measured:end -->` is replaced; everything
else in those files is written by hand. Pictures go into docs/images/.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import guidance, plots
from benchmarks.child import ROOT
from benchmarks.columns import (
    ENCRYPTED,
    LAYOUTS,
    SCHEDULING,
    STREAMED,
    busy,
    how_many_ramps,
    markdown,
    parts,
)
from benchmarks.listeners import FLOOR
from benchmarks.peers import PEERS
from benchmarks.ramp import DUE

MEASURED: Final = re.compile(
    r"(<!-- measured:begin[^>]*-->\n).*?(<!-- measured:end -->)", re.DOTALL
)
IMAGES: Final = Path("docs/images")


def update(results: Sequence[Path], root: Path = ROOT) -> list[Path]:
    """Rewrites the blocks from result files; returns the documents changed.

    They stand in the order of `LAYOUTS`, of a scenario those with most subjects first, then by age.

    Raises ValueError for no files, a document without the marks, a file that is no result, and a
    scenario that is unknown.
    """
    files: dict[str, Any] = {}
    for result in results:
        whole = json.loads(result.read_text())
        if not isinstance(whole, dict) or not whole.get("results"):
            raise ValueError(f"{result} holds no results")
        files[result.name] = whole
    if not files:
        raise ValueError("there are no results")
    files = dict(sorted(files.items(), key=_place))
    changed = [*_draw(list(files.values()), root / IMAGES)]
    blocks = {
        "docs/benchmarks.md": "\n".join(full(whole, name) for name, whole in files.items()),
        "docs/capacity.md": guidance.tables(list(files.values())),
        "README.md": short(list(files.values())),
    }
    for name, block in blocks.items():
        path = root / name
        text = path.read_text()
        mark = MEASURED.search(text)
        if mark is None:
            raise ValueError(f"{path} has no place for results")
        fresh = text[: mark.end(1)] + block + text[mark.start(2) :]
        if fresh != text:
            path.write_text(fresh)
            changed.append(path)
    return changed


def _place(file: tuple[str, Mapping[str, Any]]) -> tuple[int, int, str]:
    name, whole = file
    first = whole["results"][0]
    if first["scenario"] not in LAYOUTS:
        raise ValueError(f"{name} holds a result of {first['scenario']}, which is unknown")
    return list(LAYOUTS).index(first["scenario"]), -len(first["summary"]), whole["when"]


def _draw(files: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Path]:
    """Draws the results of ramps and tells each of them its picture; yields the files changed."""
    drawn: Counter[str] = Counter()
    for result in (result for whole in files for result in whole["results"]):
        if result["scenario"] != "listeners":
            continue
        drawn[result["stream"]] += 1
        number = drawn[result["stream"]]
        result["picture"] = f"listeners-{result['stream']}{f'-{number}' * (number > 1)}.svg"
        path = folder / result["picture"]
        fresh = plots.against_listeners(result)
        if not path.exists() or path.read_text() != fresh:
            folder.mkdir(exist_ok=True)
            path.write_text(fresh)
            yield path


def full(whole: Mapping[str, Any], name: str) -> str:
    """All tables, with what they were measured on. Raises ValueError for an unknown scenario."""
    machine, versions = whole["machine"], whole["versions"]
    head = (
        f"Commit `{whole['commit']}`, {whole['when'][:10]}; {_processor(machine)}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}; "
        f"Python {versions['python']}{_nice(machine)}. "
        f"Raw: [`benchmarks/results/{name}`](../benchmarks/results/{name}).\n"
    )
    texts = [head]
    for result in whole["results"]:
        if result["scenario"] not in LAYOUTS:
            raise ValueError(f"{name} holds a result of {result['scenario']}, which is unknown")
        for layout, part in parts(result):
            rounds = f"{part['rounds']} round{'s' * (part['rounds'] != 1)}"
            after = layout.after(part)
            if picture := part.get("picture"):
                after = (
                    "Medians of the ramps. Full marks: they kept up; hollow ones: they did not.\n\n"
                    f"![Delay, CPU and memory against listeners](images/{picture})"
                )
            texts.append(
                f"**{layout.title}.** {part['title']}; {rounds}; {layout.remarks(part)}.\n\n"
                f"{markdown(layout.columns, part['summary'])}"
                f"{after and f'{chr(10)}{after}{chr(10)}'}"
            )
        if notes := _notes(result):
            texts.append(notes)
    return "\n".join(texts)


def short(files: Sequence[Mapping[str, Any]]) -> str:
    """A few lines for the front page."""
    lines = []
    for result in (result for whole in files for result in whole["results"]):
        rows = {row.get("subject"): row for row in result["summary"]}
        if result["scenario"] == "cpu" and "server" in rows:
            row, floor = rows["server"], rows.get("floor")
            ratio = f", {row['ratio']['median']:.2f} × a plain C `send()` loop" if floor else ""
            peers = [
                row
                for name, row in rows.items()
                if name in PEERS and row["ratio"] and row["delivered"] >= DUE
            ]
            if peers:
                least = min(f"{row['ratio']['median']:.2f}" for row in peers)
                best = [row for row in peers if f"{row['ratio']['median']:.2f}" == least]
                ratio += f" (the best {_peers(best)}: {least} ×)"
            elsewhere = " on a machine busy with other work" if busy(result) else ""
            delay = f"{row['p50_ms']:.1f} ms (median), {row['p99_ms']:.1f} ms (99 %)"
            if ordinary := rows.get("server-no-realtime"):
                delay += (
                    f", without SCHED_FIFO, as peers run, {ordinary['p50_ms']:.1f} and "
                    f"{ordinary['p99_ms']:.1f} ms"
                )
            if soonest := min(peers, key=lambda r: float(r["p99_ms"]), default=None):
                delay += (
                    f" (the soonest peer, {STREAMED[soonest['subject']]}: "
                    f"{soonest['p50_ms']:.1f} and {soonest['p99_ms']:.1f} ms)"
                )
            lines.append(
                f"- {result['title']}: **{row['us_per_frame']:.1f} µs of CPU per delivered frame** "
                f"for the whole server{ratio}; tick to receipt {delay}{elsewhere}."
            )
        elif result["scenario"] == "memory" and {"relay", "server"} <= rows.keys():
            relay = rows["relay"]["resident"]["median"] / 1000
            server = rows["server"]["resident"]["median"] / 1000
            lines.append(
                f"- Memory per listener: **{server:.1f} kB** in the server's process, of which "
                f"{relay:.1f} kB in the relay."
            )
        elif result["scenario"] == "listeners" and "server" in rows:
            lines.append(_most_listeners(result, rows))
        elif result["scenario"] == "mixes" and {"shared", "own"} <= rows.keys():
            ratio = rows["own"]["ratio"]
            p99 = {name: rows[name]["p99_ms"]["median"] for name in ("own", "shared")}
            lines.append(
                f"- {result['title']}: one for each, changed every second, costs "
                f"**{ratio['median']:.2f} × the CPU of one for all**; 99 % of the frames come "
                f"within {p99['own']:.0f} ms, and {p99['shared']:.0f} with one for all."
            )
        elif result["scenario"] == "joins" and "join" in rows:
            ratio = rows["join"]["ratio"]
            beside = f", {ratio['median']:.2f} × aiohttp's bare handshakes" if ratio else ""
            lines.append(
                f"- **{rows['join']['per_s']:.0f} listeners a second** join, from the password to "
                f"the database{beside}."
            )
        elif result["scenario"] == "pacing":
            elsewhere = ", on a machine busy with other work" if busy(result) else ""
            late = {r["granted"]: r["ticks"]["p999"] for r in rows_of_all_tortures(result)}
            said = [f"{late[k] / 1000:.1f} ms {v}" for k, v in SCHEDULING.items() if k in late]
            lines.append(
                f"- {result['workload']['listeners']} listeners while the server's Python is "
                "tortured (GIL held for seconds, event loop blocked, collections, bcrypt): 99.9 % "
                f"of ticks are late by less than **{' and '.join(said)}**{elsewhere}."
            )
    machine = files[0]["machine"]
    days = sorted({whole["when"][:10] for whole in files})
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    return (
        f"Measured {when} on {machine['cores']} cores shared with the load client "
        f"([how, of which commits, and what it does not say](docs/benchmarks.md)):\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _most_listeners(result: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """How many the server serves, and the best of its peers.

    The ratio is that of the server as peers run, without real-time scheduling, if that was ramped.
    """

    def most(row: Mapping[str, Any]) -> float:
        return float(row["limit"]["median"])

    def told(row: Mapping[str, Any]) -> str:
        return f"{'at least ' if row['open'] else ''}{most(row):,.0f}"

    own = rows["server"]
    text = (
        f"- **{told(own).capitalize()} listeners** of one relay thread get every frame "
        f"({how_many_ramps(result)} of each): {result['title']}"
    )
    if ordinary := rows.get("server-no-realtime"):
        text += f"; without SCHED_FIFO, as peers run, {told(ordinary)}"
    if floor := rows.get(FLOOR):
        text += f"; {STREAMED[FLOOR]}, with SCHED_FIFO, and does nothing else serves {told(floor)}"
    peers = [row for name, row in rows.items() if name in PEERS and most(row)]
    if not peers:
        return f"{text}."
    limit = max(most(row) for row in peers)
    best = [row for row in peers if most(row) == limit]
    text += f"; the best {_peers(best)}, {'serve' if len(best) > 1 else 'serves'} {told(best[0])}"
    if any(row["open"] for row in best):  # how many more is not known
        return f"{text}."
    like_them = ordinary or own
    ratio = f"{'at least ' if like_them['open'] else ''}{most(like_them) / limit:.1f}"
    scheduled = "without SCHED_FIFO " if ordinary else ""
    fine = f"a ramp goes up by {(result['growth'] - 1) * 100:.0f} %"
    if result["rounds"] == 1:
        fine += ", and may end three such steps higher or lower in another hour"
    return f"{text}; {scheduled}it is **{ratio} × as many** ({fine})."


def _peers(rows: Sequence[Mapping[str, Any]]) -> str:
    """Those that share a place, by name."""
    names = " and ".join(STREAMED[row["subject"]] for row in rows)
    return f"{'peers' if len(rows) > 1 else 'peer'}, {names}"


def rows_of_all_tortures(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of a pacing result in which all tortures stand together."""
    return [row for row in result["summary"] if row["condition"] == "all"]


def _notes(result: Mapping[str, Any]) -> str:
    """What else took part, what could not, and what failed; empty if that was not noted."""
    names = ENCRYPTED if result["scenario"] == "tls" else STREAMED
    notes = []
    if versions := result.get("versions"):
        notes.append(f"With {', '.join(f'{name} {of}' for name, of in versions.items())}.")
    for name, reason in result.get("left_out", {}).items():
        notes.append(f"Left out: {names.get(name, name)}, since {reason}.")
    notes += [f"Failed: {run['run']}, since {run['reason']}." for run in result.get("failures", ())]
    return "\n".join(notes) + "\n" if notes else ""


def _processor(machine: Mapping[str, Any]) -> str:
    """Its name, and the instructions that the kernels use on it, if that was noted."""
    simd = machine.get("simd")
    return f"{machine['cpu']}{f' ({simd})' if simd else ''}"


def _nice(machine: Mapping[str, Any]) -> str:
    """A remark when the benchmark ran at another priority than other programs."""
    nice = machine.get("nice", 0)
    return f"; run at niceness {nice}" if nice else ""
