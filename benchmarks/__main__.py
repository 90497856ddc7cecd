"""`python -m benchmarks`: whole-server scenarios. See docs/benchmarks.md for what they mean."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import (
    browser,
    capacity,
    documents,
    listeners,
    machine,
    micro,
    mixes,
    outbox,
    overload,
    pacing,
    report,
    runs,
    soak,
    stalled,
    tls,
    unheard,
)
from benchmarks.failures import FAILURES
from benchmarks.workload import Workload

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
Listeners = Annotated[int, typer.Option(min=1, max=18_000, help="Connections.")]
Channels = Annotated[int, typer.Option(min=1, max=64, help="Channels of the stream.")]
SampleRate = Annotated[int, typer.Option(help="Hz.")]
Encoding = Annotated[str, typer.Option(help="pcm_s16le or pcm_f32le.")]
FrameMs = Annotated[int, typer.Option(help="Frame length: 5, 10, 20, 40 or 60.")]
First = Annotated[int, typer.Option(min=1, help="Where a ramp begins.")]
Most = Annotated[int, typer.Option(min=1, max=18_000, help="Where a ramp ends.")]
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
    machine.raise_descriptor_limit()
    if context.invoked_subcommand is None:
        runs.console.print(f"All scenarios: about {'50 minutes' if quick else '4 hours'}.")
        runs.run_each(runs.everything(quick=quick), json)


@app.command("micro")
def micro_command(
    select: Annotated[str, typer.Option("-k", help="Which, as pytest selects them.")] = "",
    json: Json = False,
    output: Output = None,
) -> None:
    """Kernels, rings, jitter buffer, codec and the pieces of a join, each beside its floor."""
    runs.keep([micro.micro(select)], json, output)


@app.command()
def cpu(
    listeners: Listeners = 1000,
    channels: Channels = 2,
    sample_rate: SampleRate = 48_000,
    encoding: Encoding = "pcm_s16le",
    frame_ms: FrameMs = 20,
    subjects: Subjects = runs.CPU_SUBJECTS,
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """CPU time per delivered frame, against a plain C send() loop and peers in the same run."""
    workload = runs.workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    result = runs.run_cpu(workload, subjects, rounds=rounds, seconds=seconds, quick=quick)
    runs.keep([result], json, output)


@app.command("listeners")
def listeners_command(
    streams: Annotated[str, typer.Option(help="What is sent, separated by commas.")] = ",".join(
        listeners.STREAMS
    ),
    subjects: Subjects = runs.LIMIT_SUBJECTS,
    first: First = listeners.FIRST,
    most: Most = listeners.MOST,
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """How many listeners get every frame in time: ramps, of the relay and of its peers."""
    chosen = runs.names(streams, tuple(listeners.STREAMS))
    run = partial(
        runs.run_listeners,
        subjects=subjects,
        first=first,
        most=most,
        rounds=rounds,
        seconds=seconds,
        quick=quick,
    )
    runs.run_each({stream: partial(run, stream) for stream in chosen}, json, output)


@app.command("capacity")
def capacity_command(
    streams: Annotated[str, typer.Option(help="What is sent, separated by commas.")] = ",".join(
        capacity.STREAMS
    ),
    first: First = capacity.FIRST,
    most: Most = listeners.MOST,
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """How many listeners one relay thread serves, by bitrate and interval."""
    result = runs.run_capacity(
        streams, first=first, most=most, rounds=rounds, seconds=seconds, quick=quick
    )
    runs.keep([result], json, output)


@app.command()
def memory(
    listeners: Annotated[int, typer.Option(min=2, max=18_000, help="Connections.")] = 5000,
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
    workload = runs.workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    runs.keep([runs.run_memory(workload, subjects, rounds=rounds, quick=quick)], json, output)


@app.command("pacing")
def pacing_command(
    listeners: Listeners = runs.PACING_WORKLOAD.listeners,
    channels: Channels = runs.PACING_WORKLOAD.channels,
    sample_rate: SampleRate = runs.PACING_WORKLOAD.sample_rate,
    encoding: Encoding = runs.PACING_WORKLOAD.encoding,
    frame_ms: FrameMs = runs.PACING_WORKLOAD.frame_ms,
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
    workload = runs.workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    workload = replace(workload, buffer_ms=runs.PACING_WORKLOAD.buffer_ms)
    result = runs.run_pacing(workload, conditions, rounds=rounds, seconds=seconds, quick=quick)
    runs.keep([result], json, output)


@app.command(name="tls")
def tls_command(
    listeners: Listeners = 1000,
    channels: Channels = 2,
    sample_rate: SampleRate = 48_000,
    encoding: Encoding = "pcm_s16le",
    frame_ms: FrameMs = 20,
    subjects: Subjects = "floor,plain,tls,nginx",
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    most: Most = tls.MOST,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What TLS costs per delivered frame, and how many listeners it leaves room for."""
    workload = runs.workload_of(listeners, channels, sample_rate, encoding, frame_ms)
    result = runs.run_tls(
        workload, subjects, rounds=rounds, seconds=seconds, most=most, quick=quick
    )
    runs.keep([result], json, output)


@app.command("joins")
def joins_command(
    subjects: Subjects = runs.JOIN_SUBJECTS,
    count: Annotated[int, typer.Option(min=50, max=15_000, help="Joins in a round.")] = 2000,
    house: Annotated[
        int, typer.Option(min=1, max=9000, help="Listeners of one room.")
    ] = runs.HOUSE,
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """Full joins a second, beside bare handshakes; and a full house with one bcrypt."""
    runs.keep([runs.run_joins(subjects, count, house, rounds=rounds, quick=quick)], json, output)


@app.command("reconnect")
def reconnect_command(
    listeners: Annotated[int, typer.Option(min=1, max=9000, help="Connections.")] = runs.HOUSE,
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """A full house after a restart: how long until everyone hears again."""
    runs.keep([runs.run_reconnect(listeners, rounds=rounds, quick=quick)], json, output)


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
    runs.keep([runs.run_outbox(conditions, events, rounds=rounds, quick=quick)], json, output)


@app.command("scrape")
def scrape_command(
    rooms: Annotated[int, typer.Option(min=2, max=5000, help="Open rooms.")] = 1000,
    rounds: Rounds = None,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What a scrape of /metrics costs with many rooms, and whom it holds up."""
    runs.keep([runs.run_scrape(rooms, rounds=rounds, quick=quick)], json, output)


@app.command("browser")
def browser_command(
    subjects: Annotated[str, typer.Option(help="Pages, separated by commas.")] = ",".join(
        browser.SUBJECTS
    ),
    channels: Channels = browser.WORKLOAD.channels,
    rounds: Rounds = None,
    seconds: Seconds = 20.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What 64 channels cost a page that listens: its main thread, its browser, what it misses."""
    result = runs.run_browser(subjects, channels, rounds=rounds, seconds=seconds, quick=quick)
    runs.keep([result], json, output)


@app.command("stalled")
def stalled_command(
    listeners: Annotated[int, typer.Option(min=10, max=18_000, help="Connections.")] = 1000,
    rounds: Rounds = None,
    seconds: Seconds = stalled.SECONDS,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """How late frames are beside listeners that stopped reading, a tenth of all."""
    workload = Workload(listeners)
    result = runs.run_stalled(workload, rounds=rounds, seconds=seconds, quick=quick)
    runs.keep([result], json, output)


@app.command("mixes")
def mixes_command(
    listeners: Listeners = mixes.WORKLOAD.listeners,
    channels: Channels = mixes.WORKLOAD.channels,
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What a mix for each listener costs, changed every second, beside one for all."""
    workload = Workload(listeners, channels)
    result = runs.run_mixes(workload, rounds=rounds, seconds=seconds, quick=quick)
    runs.keep([result], json, output)


@app.command("overload")
def overload_command(
    listeners: Listeners = overload.WITHIN.listeners,
    seconds: Seconds = 10.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What stays bounded when a stream is more than the machine can serve."""
    result = runs.run_overload(Workload(listeners), seconds=seconds, quick=quick)
    runs.keep([result], json, output)


@app.command("unheard")
def unheard_command(
    rooms: Annotated[int, typer.Option(min=1, max=5000, help="Rooms.")] = unheard.ROOMS,
    rounds: Rounds = None,
    seconds: Seconds = 4.0,
    quick: Quick = False,
    json: Json = False,
    output: Output = None,
) -> None:
    """What rooms with a source and no listener cost, beside a loop that receives the same bytes."""
    result = runs.run_unheard(rooms, rounds=rounds, seconds=seconds, quick=quick)
    runs.keep([result], json, output)


@app.command("soak")
def soak_command(
    listeners: Listeners = soak.WORKLOAD.listeners,
    hours: Annotated[float, typer.Option(min=0.01, max=100, help="How long.")] = 2.0,
    json: Json = False,
    output: Output = None,
) -> None:
    """Hours of listeners who come and go: memory, descriptors and delay stay level."""
    result = runs.run_soak(Workload(listeners), hours=hours)
    runs.keep([result], json, output)
    if result["failures"]:
        raise SystemExit("the soak ended early")


@app.command()
def control(quick: Quick = False, json: Json = False, output: Output = None) -> None:
    """The control plane: joins, reconnect, outbox, scrape and memory, with their defaults."""
    runs.run_each(runs.control(quick=quick), json, output)


@app.command()
def docs() -> None:
    """Put the results that are kept in benchmarks/results/ into docs and README.md."""
    try:
        changed = documents.update(sorted(report.RESULTS.glob("*.json")))
    except ValueError as error:  # JSON's is one
        raise typer.BadParameter(str(error)) from None
    for path in changed:
        runs.console.print(f"changed: {path}")


def main() -> None:
    """Runs the command line; a subject or client that fails ends it with what that said."""
    try:
        app(prog_name="python -m benchmarks")
    except FAILURES as error:
        raise SystemExit(f"the benchmark could not run: {error}") from None


if __name__ == "__main__":
    main()
