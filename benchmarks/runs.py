"""Runs a scenario with its usual size, shows its table, and gives what is kept."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    browser,
    capacity,
    joins,
    listeners,
    machine,
    micro,
    mixes,
    outbox,
    overload,
    pacing,
    reconnect,
    report,
    scenarios,
    scrape,
    soak,
    stalled,
    tls,
    unheard,
    versions,
)
from benchmarks.child import ChildError
from benchmarks.failures import FAILURES, brief
from benchmarks.peers import PEERS
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.workload import SAMPLE_BYTES, Workload
from roomserver.clients.wire import SAMPLE_RATES

ROUNDS = 9
QUICK_ROUNDS = 3
STREAMED = {**SUBJECTS, **PEERS}
CPU_SUBJECTS = ",".join(STREAMED)
LIMIT_ROUNDS = 3
# Two relay threads and the load client need a core each.
LIMIT_SUBJECTS = ",".join(
    name for name in listeners.SUBJECTS if name != "server-2" or (os.cpu_count() or 1) >= 4
)
MEMORY_ROUNDS = 3
PACING_ROUNDS = 3
PACING_S = 30.0  # enough ticks that a p99.9 is not the slowest alone
QUICK_PACING_S = 2.0
# Twice as many ticks as usual, and so much in the buffer that the source's process may wait.
PACING_WORKLOAD = Workload(listeners=200, frame_ms=10, buffer_ms=500)
TLS_LIMIT_ROUNDS = 3
JOIN_SUBJECTS = ",".join(joins.SUBJECTS)
HOUSE = 5000
HOUSE_ROUNDS = 3
JOIN_ROUNDS = 9  # a round has a server of its own for each subject
OUTBOX_ROUNDS = 3
SCRAPES = 20
BROWSER_ROUNDS = 3

WIDE = Workload(200, channels=64)
WIDE_SUBJECTS = ("floor", "relay", "server")
FEW_ROUNDS = 5

OWN = ("relay", "server", "server-2", "server-no-realtime", "plain", "tls")
"""Subjects that have to start; the others need what may not be installed."""
TRIAL_S = 30
QUIET_LINE_EVERY_S = 30.0
OTHER_DESCRIPTORS = 500
"""What a process opens besides its connections, at most."""
Run = Callable[[], dict[str, Any]]
"""Runs and prints a scenario; returns what is kept."""

console = Console()
if not console.is_terminal:
    console = Console(width=160)  # in a file or a pipe, wide enough for every column


def workload_of(
    listeners: int, channels: int, sample_rate: int, encoding: str, frame_ms: int
) -> Workload:
    """The workload, checked."""
    if encoding not in SAMPLE_BYTES:
        raise typer.BadParameter(f"encoding is one of {', '.join(SAMPLE_BYTES)}")
    if frame_ms not in (5, 10, 20, 40, 60):
        raise typer.BadParameter("frame-ms is 5, 10, 20, 40 or 60")
    if sample_rate not in SAMPLE_RATES:
        rates = ", ".join(map(str, SAMPLE_RATES))
        raise typer.BadParameter(f"sample-rate is one of {rates}")
    return Workload(listeners, channels, sample_rate, encoding, frame_ms)


def everything(*, quick: bool = False) -> dict[str, Run]:
    """All scenarios but `soak`, with their defaults, by name."""
    return {
        "micro": micro.micro,
        "cpu": partial(run_cpu, quick=quick),
        f"cpu, {WIDE.channels} channels": partial(
            run_cpu, WIDE, ",".join(WIDE_SUBJECTS), quick=quick
        ),
        **{
            f"listeners, {stream}": partial(run_listeners, stream, quick=quick)
            for stream in listeners.STREAMS
        },
        "capacity": partial(run_capacity, quick=quick),
        "memory": partial(run_memory, quick=quick),
        "stalled": partial(run_stalled, quick=quick),
        "mixes": partial(run_mixes, quick=quick),
        "overload": partial(run_overload, quick=quick),
        "unheard": partial(run_unheard, quick=quick),
        "pacing": partial(run_pacing, quick=quick),
        "tls": partial(run_tls, quick=quick),
        "joins": partial(run_joins, quick=quick),
        "reconnect": partial(run_reconnect, quick=quick),
        "outbox": partial(run_outbox, quick=quick),
        "scrape": partial(run_scrape, quick=quick),
        "browser": partial(run_browser, quick=quick),
    }


def control(*, quick: bool = False) -> dict[str, Run]:
    """The control plane's scenarios with their defaults, and memory, by name."""
    names = ("joins", "reconnect", "outbox", "scrape", "memory")
    return {name: everything(quick=quick)[name] for name in names}


def run_each(runs: Mapping[str, Run], json: bool, output: Path | None = None) -> None:
    """Runs one after another and keeps each result as soon as it is there.

    With `json` each in a file of its own, in `output` those so far together. What fails is told,
    and the others still run. Raises SystemExit at the end if some have failed.
    """
    done: list[dict[str, Any]] = []
    failed = []
    for name, run in runs.items():
        try:
            done.append(run())
            keep(done[-1:], json, None)
            if output is not None:
                keep(done, False, output)
        except typer.BadParameter:
            raise
        except Exception as error:  # whatever it is: it must not cost the results of others
            failed.append(name)
            console.print(f"{name} failed: {error}", style="red", markup=False)
            if not isinstance(error, FAILURES):
                console.print_exception()
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


def run_cpu(
    workload: Workload | None = None,
    subjects: str = CPU_SUBJECTS,
    *,
    rounds: int | None = None,
    seconds: float = 4.0,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    chosen, left_out = startable(names(subjects, tuple(STREAMED)), STREAMED)
    with progress("cpu") as tell:
        result = scenarios.cpu(
            workload or Workload(),
            chosen,
            rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
            seconds=seconds,
            progress=tell,
            known=STREAMED,
        )
    return shown(result.as_json() | left_out)


def run_listeners(
    stream: str,
    subjects: str = LIMIT_SUBJECTS,
    *,
    first: int = listeners.FIRST,
    most: int = listeners.MOST,
    rounds: int | None = None,
    seconds: float = 4.0,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    most = reachable(most)
    chosen, left_out = startable(names(subjects, tuple(listeners.SUBJECTS)), listeners.SUBJECTS)
    with progress("listeners") as tell:
        result = listeners.listeners(
            listeners.STREAMS[stream],
            chosen,
            rounds=rounds or (1 if quick else LIMIT_ROUNDS),
            seconds=seconds,
            progress=tell,
            first=first,
            most=most,
        )
    return shown(result.as_json() | left_out)


def run_capacity(
    streams: str = ",".join(capacity.STREAMS),
    *,
    first: int = capacity.FIRST,
    most: int = listeners.MOST,
    rounds: int | None = None,
    seconds: float = 4.0,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("capacity") as tell:
        result = capacity.capacity(
            names(streams, tuple(capacity.STREAMS)),
            rounds=rounds or 1,
            seconds=seconds,
            progress=tell,
            first=first,
            most=reachable(most),
            growth=capacity.QUICK_GROWTH if quick else capacity.GROWTH,
        )
    return shown(result.as_json())


def run_memory(
    workload: Workload | None = None,
    subjects: str = "relay,server",
    *,
    rounds: int | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("memory") as tell:
        result = scenarios.memory(
            workload or Workload(5000, 1, 8000, "pcm_s16le", 60),
            # The floor keeps nothing about a connection: there is nothing to compare.
            names(subjects, tuple(name for name in SUBJECTS if name != "floor")),
            rounds=rounds or (1 if quick else MEMORY_ROUNDS),
            progress=tell,
        )
    return shown(result.as_json())


def run_pacing(
    workload: Workload = PACING_WORKLOAD,
    conditions: str = ",".join(pacing.CONDITIONS),
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("pacing") as tell:
        result = pacing.pacing(
            workload,
            names(conditions, pacing.CONDITIONS),
            rounds=rounds or (1 if quick else PACING_ROUNDS),
            seconds=seconds or (QUICK_PACING_S if quick else PACING_S),
            progress=tell,
        )
    return shown(result.as_json())


def run_tls(
    workload: Workload | None = None,
    subjects: str = "floor,plain,tls,nginx",
    *,
    rounds: int | None = None,
    seconds: float = 4.0,
    most: int = tls.MOST,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    chosen, left_out = startable(names(subjects, tuple(tls.SUBJECTS)), tls.SUBJECTS)
    with progress("tls") as tell:
        result = tls.tls(
            workload or Workload(),
            chosen,
            rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
            limit_rounds=1 if quick else TLS_LIMIT_ROUNDS,
            seconds=seconds,
            most=reachable(most),
            growth=tls.QUICK_GROWTH if quick else tls.GROWTH,
            progress=tell,
        )
    return shown(result.as_json() | left_out)


def run_joins(
    subjects: str = JOIN_SUBJECTS,
    count: int = 2000,
    house: int = HOUSE,
    *,
    rounds: int | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("joins") as tell:
        result = joins.joins(
            names(subjects, joins.SUBJECTS),
            count=min(count, 500) if quick else count,
            house=house,
            rounds=rounds or (QUICK_ROUNDS if quick else JOIN_ROUNDS),
            house_rounds=1 if quick else HOUSE_ROUNDS,
            progress=tell,
        )
    return shown(result.as_json())


def run_reconnect(
    listeners: int = HOUSE, *, rounds: int | None = None, quick: bool = False
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("reconnect") as tell:
        result = reconnect.reconnect(
            replace(reconnect.WORKLOAD, listeners=listeners),
            rounds=rounds or (1 if quick else HOUSE_ROUNDS),
            progress=tell,
        )
    return shown(result.as_json())


def run_outbox(
    conditions: str = ",".join(outbox.CONDITIONS),
    events: int = 30_000,
    *,
    rounds: int | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("outbox") as tell:
        result = outbox.outbox(
            names(conditions, tuple(outbox.CONDITIONS)),
            events=min(events, 10_000) if quick else events,
            rounds=rounds or (1 if quick else OUTBOX_ROUNDS),
            progress=tell,
        )
    return shown(result.as_json())


def run_scrape(
    rooms: int = 1000, *, rounds: int | None = None, quick: bool = False
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("scrape") as tell:
        result = scrape.scrape(
            rooms, rounds=rounds or (QUICK_ROUNDS if quick else SCRAPES), progress=tell
        )
    return shown(result.as_json())


def run_browser(
    subjects: str = ",".join(browser.SUBJECTS),
    channels: int = browser.WORKLOAD.channels,
    *,
    rounds: int | None = None,
    seconds: float = 20.0,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("browser") as tell:
        result = browser.browser(
            names(subjects, browser.SUBJECTS),
            replace(browser.WORKLOAD, channels=channels),
            rounds=rounds or (1 if quick else BROWSER_ROUNDS),
            seconds=min(seconds, 5.0) if quick else seconds,
            progress=tell,
        )
    return shown(result.as_json())


def run_stalled(
    workload: Workload | None = None,
    *,
    rounds: int | None = None,
    seconds: float = stalled.SECONDS,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("stalled") as tell:
        result = stalled.stalled(
            workload or Workload(),
            rounds=rounds or (1 if quick else ROUNDS),
            seconds=seconds,
            progress=tell,
        )
    return shown(result.as_json())


def run_mixes(
    workload: Workload = mixes.WORKLOAD,
    *,
    rounds: int | None = None,
    seconds: float = 4.0,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("mixes") as tell:
        result = mixes.mixes(
            workload,
            rounds=rounds or (1 if quick else FEW_ROUNDS),
            seconds=seconds,
            progress=tell,
        )
    return shown(result.as_json())


def run_overload(
    workload: Workload = overload.WITHIN, *, seconds: float = 10.0, quick: bool = False
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("overload") as tell:
        result = overload.overload(
            workload,
            replace(workload, channels=overload.TIMES * workload.channels),
            seconds=min(seconds, 3.0) if quick else seconds,
            progress=tell,
        )
    return shown(result.as_json())


def run_unheard(
    rooms: int = unheard.ROOMS,
    *,
    rounds: int | None = None,
    seconds: float = 4.0,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("unheard") as tell:
        result = unheard.unheard(
            Workload(),
            rooms=rooms,
            rounds=rounds or (1 if quick else FEW_ROUNDS),
            seconds=seconds,
            progress=tell,
        )
    return shown(result.as_json())


def run_soak(workload: Workload = soak.WORKLOAD, *, hours: float = 2.0) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("soak") as tell:
        result = soak.soak(workload, hours=hours, progress=tell)
    return shown(result.as_json())


def shown(result: dict[str, Any]) -> dict[str, Any]:
    """Prints the tables of a result, and returns it."""
    for table in report.tables(result):
        console.print(table)
    for failure in result.get("failures", ()):
        told = f"failed: {failure['run']}, since {failure['reason']}"
        console.print(told, style="yellow", markup=False)
    return result


def names(subjects: str, known: tuple[str, ...]) -> list[str]:
    """The subjects (or conditions) named, each once."""
    chosen = list(dict.fromkeys(name.strip() for name in subjects.split(",") if name.strip()))
    if not chosen or not set(chosen) <= set(known):
        raise typer.BadParameter(f"choose some of {', '.join(known)}")
    return chosen


def reachable(most: int) -> int:
    """So many listeners, or as many as there may be descriptors for."""
    descriptors = machine.raise_descriptor_limit()
    here = max(1, descriptors - OTHER_DESCRIPTORS)
    if here >= most:
        return most
    console.print(
        f"Ramps end at {here} listeners, since a process may open {descriptors} files here; for "
        f"more begin with `ulimit -n {most + OTHER_DESCRIPTORS}`.",
        style="yellow",
    )
    return here


def startable(
    chosen: Sequence[str], known: Mapping[str, Subject]
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Those that can be started here, and as a result's `left_out` why each other one can't.

    What may not be installed is tried. Raises ChildError when nothing is left.
    """
    left_out: dict[str, str] = {}
    for name in chosen:
        if name in OWN:
            continue
        try:
            with known[name](Workload(1), TRIAL_S):
                pass
        except FAILURES as error:
            console.print(f"left out: {name}, since {error}", style="yellow", markup=False)
            left_out[name] = brief(error)
    if len(left_out) == len(chosen):
        raise ChildError(f"nothing of {', '.join(chosen)} can be started here")
    return [name for name in chosen if name not in left_out], {"left_out": left_out}


def keep(results: Sequence[dict[str, Any]], json: bool, output: Path | None) -> None:
    """Writes the results where they were asked for, with the versions of what took part."""
    console.print(f"commit {machine.commit()}")
    results = [result | {"versions": versions.of(result)} for result in results]
    if json:
        console.print(f"kept: {report.save(results)}")
    if output is not None:
        console.print(f"kept: {report.save(results, output)}")


@contextmanager
def progress(title: str) -> Iterator[scenarios.Progress]:
    """A bar on standard error while a scenario runs; a line now and then if it is no terminal."""
    errors = Console(stderr=True)
    if not errors.is_terminal:
        said_at = -math.inf

        def say(what: str, done: float) -> None:
            nonlocal said_at
            if (now := time.monotonic()) - said_at >= QUIET_LINE_EVERY_S:
                said_at = now
                errors.print(f"{title}: {what} ({done:.0%})", markup=False, highlight=False)

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def tell(what: str, done: float) -> None:
            bar.update(task, description=f"{title}: {what}", completed=done)

        yield tell
