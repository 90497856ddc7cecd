"""`python -m benchmarks`: whole-server scenarios. See docs/benchmarks.md for what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    documents,
    joins,
    listeners,
    machine,
    outbox,
    pacing,
    reconnect,
    report,
    scenarios,
    scrape,
    tls,
)
from benchmarks.child import ChildError
from benchmarks.load import LoadError
from benchmarks.peers import PEERS
from benchmarks.subjects import SUBJECTS
from benchmarks.workload import SAMPLE_BYTES, Workload

ROUNDS = 9
QUICK_ROUNDS = 3
STREAMED = {**SUBJECTS, **PEERS}
CPU_SUBJECTS = ",".join(STREAMED)
LIMIT_ROUNDS = 3
LIMIT_SUBJECTS = ",".join(listeners.SUBJECTS)
MEMORY_ROUNDS = 3
PACING_ROUNDS = 3
PACING_S = 10.0
QUICK_PACING_S = 2.0
# Twice as many ticks as usual, and so much in the buffer that the source's process may wait.
PACING_WORKLOAD = Workload(listeners=200, frame_ms=10, buffer_ms=500)
TLS_LIMIT_ROUNDS = 3
JOIN_SUBJECTS = ",".join(joins.SUBJECTS)
HOUSE = 5000
HOUSE_ROUNDS = 3
OUTBOX_ROUNDS = 5
SCRAPES = 20

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
console = Console()
if not console.is_terminal:
    console = Console(width=160)  # in a file or a pipe, wide enough for every column

Listeners = Annotated[int, typer.Option(min=1, max=18_000, help="Connections.")]
Channels = Annotated[int, typer.Option(min=1, max=64, help="Channels of the stream.")]
SampleRate = Annotated[int, typer.Option(help="Hz.")]
Encoding = Annotated[str, typer.Option(help="pcm_s16le or pcm_f32le.")]
FrameMs = Annotated[int, typer.Option(help="Frame length: 5, 10, 20, 40 or 60.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Times each subject is run.")]
Seconds = Annotated[float, typer.Option(min=0.5, max=60, help="Length of a measured interval.")]
ConditionSeconds = Annotated[
    float | None, typer.Option(min=0.5, max=60, help="Length of each condition.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer rounds: a look, not a result.")]
Subjects = Annotated[str, typer.Option(help="Which, separated by commas.")]
Json = Annotated[bool, typer.Option("--json", help="Keep raw results in benchmarks/results/.")]
Output = Annotated[Path | None, typer.Option(help="Keep raw results in this file.")]


@app.callback(invoke_without_command=True)
def everything(context: typer.Context, quick: Quick = False, json: Json = False) -> None:
    """Runs all scenarios with their defaults, or one with its own options."""
    if context.invoked_subcommand is None:
        results = [run_cpu(quick=quick), run_memory(quick=quick)]
        results += [run_listeners(stream, quick=quick) for stream in listeners.STREAMS]
        results += [run_pacing(quick=quick), run_tls(quick=quick)]
        results += [run_joins(quick=quick), run_reconnect(quick=quick)]
        results += [run_outbox(quick=quick), run_scrape(quick=quick)]
        keep(results, json, None)


@app.command()
def cpu(
    listeners: Listeners = 1000,
    channels: Channels = 2,
    sample_rate: SampleRate = 48_000,
    encoding: Encoding = "pcm_s16le",
    frame_ms: FrameMs = 20,
    subjects: Subjects = CPU_SUBJECTS,
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """CPU time per delivered frame, against a plain C send() loop and peers in the same run."""
    workload = workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    result = run_cpu(workload, subjects, rounds=rounds, seconds=seconds, quick=quick)
    keep([result], json, output)


@app.command("listeners")
def listeners_command(
    streams: Annotated[str, typer.Option(help="What is sent, separated by commas.")] = ",".join(
        listeners.STREAMS
    ),
    subjects: Subjects = LIMIT_SUBJECTS,
    first: Annotated[int, typer.Option(min=1, help="Where a ramp begins.")] = listeners.FIRST,
    most: Annotated[int, typer.Option(min=1, max=18_000, help="Where a ramp ends.")] = (
        listeners.MOST
    ),
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """How many listeners get every frame in time: ramps, of the relay and of its peers."""
    chosen = names(streams, tuple(listeners.STREAMS))
    results = [
        run_listeners(
            stream, subjects, first=first, most=most, rounds=rounds, seconds=seconds, quick=quick
        )
        for stream in chosen
    ]
    keep(results, json, output)


@app.command()
def memory(
    listeners: Listeners = 5000,
    channels: Channels = 1,
    sample_rate: SampleRate = 8000,
    encoding: Encoding = "pcm_s16le",
    frame_ms: FrameMs = 60,
    subjects: Subjects = "relay,server",
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """Memory per connection: resident, and the kernel's TCP buffers."""
    workload = workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    keep([run_memory(workload, subjects, rounds=rounds, quick=quick)], json, output)


@app.command("pacing")
def pacing_command(
    listeners: Listeners = PACING_WORKLOAD.listeners,
    channels: Channels = PACING_WORKLOAD.channels,
    sample_rate: SampleRate = PACING_WORKLOAD.sample_rate,
    encoding: Encoding = PACING_WORKLOAD.encoding,
    frame_ms: FrameMs = PACING_WORKLOAD.frame_ms,
    conditions: Annotated[
        str, typer.Option(help="What is done to Python, separated by commas.")
    ] = ",".join(pacing.CONDITIONS),
    rounds: Rounds = None,
    seconds: ConditionSeconds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """How late ticks are while the server's Python is tortured, against a bare timer loop."""
    workload = workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    workload = replace(workload, buffer_ms=PACING_WORKLOAD.buffer_ms)
    result = run_pacing(workload, conditions, rounds=rounds, seconds=seconds, quick=quick)
    keep([result], json, output)


@app.command(name="tls")
def tls_command(
    listeners: Listeners = 200,
    channels: Channels = 2,
    sample_rate: SampleRate = 48_000,
    encoding: Encoding = "pcm_s16le",
    frame_ms: FrameMs = 20,
    subjects: Subjects = "floor,plain,tls,nginx",
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    most: Annotated[int, typer.Option(min=1, max=18_000, help="Where a ramp ends.")] = tls.MOST,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What TLS costs per delivered frame, and how many listeners it leaves room for."""
    workload = workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    result = run_tls(workload, subjects, rounds=rounds, seconds=seconds, most=most, quick=quick)
    keep([result], json, output)


@app.command("joins")
def joins_command(
    subjects: Subjects = JOIN_SUBJECTS,
    count: Annotated[int, typer.Option(min=50, max=15_000, help="Joins in a round.")] = 2000,
    house: Annotated[int, typer.Option(min=1, max=9000, help="Listeners of one room.")] = HOUSE,
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """Full joins a second, beside bare handshakes; and a full house with one bcrypt."""
    keep([run_joins(subjects, count, house, rounds=rounds, quick=quick)], json, output)


@app.command("reconnect")
def reconnect_command(
    listeners: Annotated[int, typer.Option(min=1, max=9000, help="Connections.")] = HOUSE,
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """A full house after a restart: how long until everyone hears again."""
    keep([run_reconnect(listeners, rounds=rounds, quick=quick)], json, output)


@app.command("outbox")
def outbox_command(
    conditions: Annotated[
        str, typer.Option(help="Who joins meanwhile, separated by commas.")
    ] = ",".join(outbox.CONDITIONS),
    events: Annotated[int, typer.Option(min=1000, max=150_000, help="Events at once.")] = 30_000,
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """Events a second through the outbox into PostgreSQL, alone and while listeners join."""
    keep([run_outbox(conditions, events, rounds=rounds, quick=quick)], json, output)


@app.command("scrape")
def scrape_command(
    rooms: Annotated[int, typer.Option(min=2, max=5000, help="Open rooms.")] = 1000,
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What a scrape of /metrics costs with many rooms, and whom it holds up."""
    keep([run_scrape(rooms, rounds=rounds, quick=quick)], json, output)


@app.command()
def docs(results: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False)]) -> None:
    """Put kept results, of all scenarios that are to stand there, into docs and README.md."""
    for path in documents.update(results):
        console.print(f"changed: {path}")


def workload_of(
    listeners: int, channels: int, sample_rate: int, encoding: str, frame_ms: int
) -> Workload:
    """The workload, checked."""
    if encoding not in SAMPLE_BYTES:
        raise typer.BadParameter(f"encoding is one of {', '.join(SAMPLE_BYTES)}")
    if frame_ms not in (5, 10, 20, 40, 60):
        raise typer.BadParameter("frame-ms is 5, 10, 20, 40 or 60")
    return Workload(listeners, channels, sample_rate, encoding, frame_ms)


def run_cpu(
    workload: Workload | None = None,
    subjects: str = CPU_SUBJECTS,
    *,
    rounds: int | None = None,
    seconds: float = 4.0,
    quick: bool = False,
) -> dict[str, Any]:
    """Runs and prints the scenario; returns what is kept."""
    with progress("cpu") as tell:
        result = scenarios.cpu(
            workload or Workload(),
            names(subjects, tuple(STREAMED)),
            rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
            seconds=seconds,
            progress=tell,
            known=STREAMED,
        )
    console.print(report.cpu_table(result))
    return result.as_json()


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
    with progress("listeners") as tell:
        result = listeners.listeners(
            listeners.STREAMS[stream],
            names(subjects, tuple(listeners.SUBJECTS)),
            rounds=rounds or (1 if quick else LIMIT_ROUNDS),
            seconds=seconds,
            progress=tell,
            first=first,
            most=most,
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
    console.print(report.memory_table(result))
    return result.as_json()


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
    console.print(report.pacing_table(result))
    return result.as_json()


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
    with progress("tls") as tell:
        result = tls.tls(
            workload or Workload(200),
            names(subjects, tuple(tls.SUBJECTS)),
            rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
            limit_rounds=1 if quick else TLS_LIMIT_ROUNDS,
            seconds=seconds,
            most=most,
            growth=tls.QUICK_GROWTH if quick else tls.GROWTH,
            progress=tell,
        )
    for table in report.tls_tables(result):
        console.print(table)
    return result.as_json()


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
            rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
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


def shown(result: dict[str, Any]) -> dict[str, Any]:
    """Prints the table of a result, and returns it."""
    console.print(report.layout_table(result))
    return result


def names(subjects: str, known: tuple[str, ...]) -> list[str]:
    """The subjects (or conditions) named, each once."""
    chosen = list(dict.fromkeys(name.strip() for name in subjects.split(",") if name.strip()))
    if not chosen or not set(chosen) <= set(known):
        raise typer.BadParameter(f"choose some of {', '.join(known)}")
    return chosen


def keep(results: list[dict[str, Any]], json: bool, output: Path | None) -> None:
    """Writes the results where they were asked for."""
    console.print(f"commit {machine.commit()}")
    if json:
        console.print(f"kept: {report.save(results)}")
    if output is not None:
        console.print(f"kept: {report.save(results, output)}")


@contextmanager
def progress(title: str) -> Iterator[scenarios.Progress]:
    """A bar on standard error while a scenario runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def tell(what: str, done: float) -> None:
            bar.update(task, description=f"{title}: {what}", completed=done)

        yield tell


def main() -> None:
    """Runs the command line; a subject or client that fails ends it with what that said."""
    try:
        app(prog_name="python -m benchmarks")
    except (ChildError, LoadError) as error:
        raise SystemExit(f"the benchmark could not run: {error}") from None


if __name__ == "__main__":
    main()
