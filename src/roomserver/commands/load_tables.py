"""How a load test's progress and report look to people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from roomserver.clients.load import Progress
from roomserver.clients.load_report import LoadReport, Quantiles, ServerReport

_QUANTILES = ("p50", "p99", "p99.9", "max")


def progress_line(progress: Progress, listeners: int) -> Text:
    """One line of where it is."""
    line = Text()
    line.append(f"{progress.stage} {100 * progress.done:3.0f} %  ", "bold")
    line.append(f"{progress.joined}/{listeners} in  ")
    if progress.failed:
        line.append(f"{progress.failed} failed  ", "red")
    if progress.lost:
        line.append(f"{progress.lost} lost  ", "red")
    line.append(f"{progress.frames_per_s:,.0f} frames/s  {_bits(progress.bytes_per_s)}  ")
    line.append(f"delay p50 {progress.delay.p50:.1f} p99 {progress.delay.p99:.1f} ms  ")
    line.append(f"own load {100 * progress.load:.0f} %", "dim")
    return line


def report_tables(report: LoadReport) -> Iterator[RenderableType]:
    """What is printed at the end, one thing after another."""
    yield Text(
        f"{report.server_url}: {report.joined} of {report.wanted} listeners in {report.rooms} "
        f"room{'s' if report.rooms != 1 else ''}, {report.joining_s:.1f} s to join"
        f"{' (with one token each room)' if report.shared_token else ''}, "
        f"{report.steady_s:.1f} s together{' (interrupted)' if report.interrupted else ''}",
        style="bold",
    )
    yield _deliveries(report)
    yield _times(report)
    yield _figures(report)
    if report.errors:
        yield _errors(report)
    verdict = report.bottleneck
    yield (
        Text(f"The load client was the bottleneck: {verdict}.", "bold red")
        if verdict
        else Text("The load client was not the bottleneck.", "green")
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _deliveries(report: LoadReport) -> Table:
    table = _table(
        "frames", "listeners", "due", "delivered", "", "missing", "gaps", "worst", "gone"
    )
    for name, d in report.groups.items():
        share = d.delivered / d.due if d.due else 1.0
        table.add_row(
            name,
            f"{d.listeners:,}",
            f"{d.due:,}",
            f"{d.delivered:,}",
            _share(share),
            Text(f"{d.missing:,}", "red" if d.missing and name == "listening" else ""),
            f"{d.gaps:,}",
            _share(d.worst),
            f"{d.gone:,}",
        )
    return table


def _times(report: LoadReport) -> Table:
    table = _table("ms", "count", *_QUANTILES)
    rows: list[tuple[str, Quantiles]] = [
        ("joining", report.join),
        ("delay while joining", report.delay_joining),
        ("delay together", report.delay_steady),
    ]
    rows += [
        (f"delay of {name}", d.delay) for name, d in report.groups.items() if name != "listening"
    ]
    if report.mixes is not None:
        rows.append(("answer to a mix", report.mixes.answer))
    if report.storm is not None:
        rows.append(("silence in the storm", report.storm.silence))
    rows += [(f"{t.name}: late", t.late) for t in report.threads if t.late is not None]
    for name, q in rows:
        table.add_row(name, f"{q.count:,}", *(f"{ms:.1f}" for ms in (q.p50, q.p99, q.p999, q.max)))
    return table


def _figures(report: LoadReport) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    received = sum(d.bytes for d in report.groups.values())
    table.add_row("received", f"{_bits(report.bytes_per_s)}, {_mib(received)} in all")
    if report.failed or report.lost:
        table.add_row(
            "connections", f"{report.failed} failed, {report.lost} lost, {report.returned} back"
        )
    if report.source_packets:
        table.add_row(
            "sources",
            f"{report.source_packets:,} packets, {report.source_packets_skipped:,} not in time",
        )
    if report.storm is not None:
        s = report.storm
        table.add_row(
            "storm",
            f"{s.dropped} cut off, {s.returned} back in {s.seconds:.2f} s, {s.attempts} attempts",
        )
    if report.mixes is not None:
        table.add_row("mixes", f"{report.mixes.sent:,} changed, {report.mixes.answered:,} answered")
    if report.server is not None:
        s2 = report.server
        table.add_row(
            "server",
            f"{s2.cores:.2f} cores, {s2.us_per_frame:.2f} µs a frame; memory "
            f"{_mib(s2.resident[0])} before, {_mib(s2.resident[1])} at most; "
            f"{socket_memory(s2)}",
        )
    for thread in report.threads:
        waited = "" if thread.waited is None else f", waited {100 * thread.waited:.0f} %"
        table.add_row(f"own {thread.name}", f"{100 * thread.load:.0f} % of a core{waited}")
    table.add_row("round trip", f"{report.round_trip_us / 1000:.2f} ms")
    return table


def _errors(report: LoadReport) -> Table:
    table = _table("what went wrong", "times")
    for what, count in sorted(report.errors.items(), key=lambda item: -item[1]):
        table.add_row(Text(what), f"{count:,}")
    return table


def _share(share: float) -> str:
    """Never 100 % unless it is all."""
    return "100 %" if share >= 1 else f"{min(100 * share, 99.999):.3f} %"


def socket_memory(server: ServerReport) -> str:
    """What the kernel holds for the server's sockets, before the listeners came and at most."""
    if server.sockets is None or server.socket_bytes is None:
        return "the kernel does not tell of its sockets"
    before, most = map(_mib, server.socket_bytes)
    return f"kernel's of {server.sockets:,} sockets {before}, {most}"


def _bits(bytes_per_s: float) -> str:
    return f"{8 * bytes_per_s / 1e6:,.1f} Mbit/s"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
