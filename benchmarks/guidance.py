"""The tables of docs/capacity.md: what a listener takes, from results and by counting bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.columns import (
    LAYOUTS,
    Columns,
    Row,
    how_fine,
    how_many_ramps,
    markdown,
    most,
    named_subject,
)
from benchmarks.workload import Workload

SEGMENT_BYTES: Final = 1448
"""Payload of a full TCP segment: an MTU of 1,500 less 20 bytes of IP and 32 of TCP."""
IP_BYTES: Final = 52  # with the time stamps of TCP
ETHERNET_BYTES: Final = 38
"""Preamble, header, check sum and gap of an Ethernet frame."""
GROUPED_MS: Final = 100
FORMATS: Final = (
    Workload(channels=1, sample_rate=8000),
    Workload(channels=1, sample_rate=16_000),
    Workload(channels=1),
    Workload(),
    Workload(encoding="pcm_f32le"),
    Workload(channels=8),
    Workload(channels=16),
    Workload(channels=64),
)


def websocket_bytes(message: int) -> int:
    """A message of so many bytes with its WebSocket header, as a server sends it."""
    return message + (2 if message < 126 else 4 if message < 65_536 else 10)


def wire_bits_per_s(workload: Workload, *, grouped_ms: int = 0, below_ip: bool = True) -> float:
    """What one listener takes of a line, bit/s: sent frame by frame, or so many ms of them at once.

    With what Ethernet adds, or without (`below_ip`), as clouds count.
    """
    frames = max(1, grouped_ms // workload.frame_ms)
    data = frames * websocket_bytes(workload.message_bytes)
    segments = -(-data // SEGMENT_BYTES)
    whole = data + segments * (IP_BYTES + (ETHERNET_BYTES if below_ip else 0))
    return whole * 8 * workload.frames_per_s / frames


def tables(files: Sequence[Mapping[str, Any]]) -> str:
    """All tables for which there are results, and that of bandwidth."""
    parts = [*_listeners(files), *_light(files), _bandwidth(), *_memory(files), *_tls(files)]
    return "\n".join(parts)


def _results(
    files: Iterable[Mapping[str, Any]], scenario: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Those of one scenario, each with where and when it was measured."""
    for whole in files:
        machine = whole["machine"]
        where = f"{machine['cpu']}, {machine['cores']} cores, {whole['when'][:10]}"
        for result in whole["results"]:
            if result["scenario"] == scenario:
                yield where, result


def _per_core(row: Row) -> str:
    """How many a core serves when each of their frames costs so much."""
    return f"{1e6 / (row['us_per_frame'] * 1000 / row['frame_ms']):,.0f}"


def _listeners(files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    layout = LAYOUTS["capacity"]
    for where, result in _results(files, "capacity"):
        yield (
            f"**{layout.title}** ({where}; {result['title']}; {how_many_ramps(result)}): "
            f"{layout.remarks(result)}.\n\n"
            f"{markdown(layout.columns, result['summary'])}"
        )


def _light(files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a core would serve at the cost of a frame that is sent by itself."""

    columns: Columns = {
        "stream": lambda r: f"{r['message_bytes']} bytes every {r['frame_ms']} ms",
        "kbit/s": lambda r: f"{r['message_bytes'] * 8 / r['frame_ms']:,.0f}",
        "listeners": lambda r: f"{r['listeners']:,}",
        "CPU, µs / frame": lambda r: f"{r['us_per_frame']:.2f}",
        "listeners per core at that": _per_core,
    }
    rows = [
        row | result["workload"] | {"where": where}
        for where, result in _results(files, "cpu")
        for row in result["summary"]
        if row["subject"] == "server"
    ]
    if rows:
        wheres = "; ".join(dict.fromkeys(row["where"] for row in rows))
        yield (
            f"**CPU at a light load** ({wheres}). Each frame is sent by itself as long as a round "
            "of sends is done before the next tick; beyond that frames group by themselves and "
            "each costs less, so that a core serves more.\n\n"
            f"{markdown(columns, rows)}"
        )


def _bandwidth() -> str:
    def megabits(**how: Any) -> Callable[[Workload], str]:
        return lambda w: f"{wire_bits_per_s(w, **how) / 1e6:.3g}"

    columns: dict[str, Callable[[Workload], str]] = {
        "stream, frames of 20 ms": lambda w: w.format,
        "frame, bytes": lambda w: f"{w.message_bytes:,}",
        "audio": lambda w: f"{(w.message_bytes - 32) * 8 * w.frames_per_s / 1e6:.3g}",
        "IP": megabits(below_ip=False),
        "Ethernet": megabits(),
        f"`intervalMs` {GROUPED_MS}": megabits(grouped_ms=GROUPED_MS),
        "listeners on 1 Gbit/s": lambda w: f"{int(1e9 / wire_bits_per_s(w)):,}",
    }
    return (
        "**Bandwidth of one listener**, Mbit/s: of the samples; with headers of frame, WebSocket, "
        "TCP and IP, as clouds count; on Ethernet; on Ethernet when frames are sent "
        f"{GROUPED_MS} ms at once; and how many fill a line.\n\n{markdown(columns, FORMATS)}"
    )


def _memory(files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    def kilobytes(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row[name]['median'] / 1000:.2f}"

    columns: Columns = {
        "what": named_subject,
        "process, kB": kilobytes("resident"),
        "TCP buffers at both ends, kB": kilobytes("tcp_buffers"),
    }
    for where, result in _results(files, "memory"):
        yield (
            f"**Memory of one listener that keeps up** ({where}; {result['title']}).\n\n"
            f"{markdown(columns, result['summary'])}"
        )

    def megabytes(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row[name] / 1e6:,.0f}"

    columns = {
        "load": lambda row: str(row["load"]),
        "frames delivered": lambda row: f"{row['delivered']:.1%}",
        "process at most, MB": megabytes("resident"),
        "TCP buffers at both ends at most, MB": megabytes("tcp_buffers"),
        "per listener, kB": lambda row: f"{row['tcp_buffers'] / row['listeners'] / 1000:,.0f}",
    }
    phases = {"within": "what can be served", "later": "eight times as much"}
    for where, result in _results(files, "overload"):
        rows = [
            row | {"load": phases[row["phase"]], "listeners": result["workload"]["listeners"]}
            for row in result["summary"]
            if row["phase"] in phases
        ]
        yield (
            f"**Memory beyond capacity** ({where}; {result['title']}).\n\n{markdown(columns, rows)}"
        )


def _tls(files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = {
        "plain": "without TLS",
        "tls": "TLS in process",
        "nginx": "nginx with TLS in front, both together",
    }

    columns: Columns = {
        "what": lambda row: names[row["subject"]],
        "CPU, µs / frame": lambda row: f"{row['us_per_frame']:.1f}",
        "listeners per core at that": _per_core,
        "most that got every frame, however late": most,
    }
    for where, result in _results(files, "tls"):
        limits = {row["subject"]: row for row in result["limits"]}
        frame_ms = result["workload"]["frame_ms"]
        rows = [
            {"limit": None, "frame_ms": frame_ms} | row | limits.get(row["subject"], {})
            for row in result["summary"]
            if row["subject"] in names
        ]
        fine = f": {how_fine(result['limit_growth'])}" if limits else ""
        yield f"**TLS** ({where}; {result['title']}){fine}.\n\n{markdown(columns, rows)}"
