"""How results are shown, in a terminal and in the documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from benchmarks.peers import PEERS

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]
T = TypeVar("T")

BUSY_CORES: Final = 0.3  # the source, and what a system does anyway, stay well below
JOINS: Final = {
    "handshake": "a handshake of bare aiohttp",
    "join": "a full join over two connections",
    "join-same": "a full join over one connection",
}
STREAMED: Final = {
    "floor": "a plain C `send()` loop",
    "group-floor": "a C loop that groups frames",
    "relay": "`relaycore.Relay` in a Python program",
    "server": "the whole `roomserver`",
    "server-2": "the whole `roomserver` with two relay threads",
    "server-no-realtime": "the whole `roomserver` without SCHED_FIFO",
    "bun": "Bun (uWebSockets)",
    "picows": "picows on uvloop",
    "nchan": "nchan in nginx",
    "icecast": "Icecast (HTTP)",
    "ws": "`ws` on Node",
    "aiohttp": "aiohttp on uvloop",
    "websockets": "websockets on uvloop",
}
"""What sends streams, for readers."""
CONDITIONS: Final = {
    "alone": "nobody",
    "joins": "200 a second",
    "flat-out": "as many as get in",
}

SCHEDULING: Final = {
    "fifo": "with SCHED_FIFO",
    "slice": "with a short slice",
    "plain": "as any other thread",
}
TORTURES: Final = {
    "quiet": "quiet",
    "gil": "GIL held for a second at a time",
    "loop": "event loop blocked",
    "gc": "collections of a large heap",
    "bcrypt": "burst of bcrypt",
    "all": "all four tortures",
}
ENCRYPTED: Final = {
    "floor": "a plain C `SSL_write()` loop",
    "plain": "`roomserver` without TLS",
    "tls": "`roomserver` with TLS in process",
    "nginx": "nginx with TLS, `roomserver` behind it",
}
PAGES: Final = {
    "bare": "the client alone, mixing",
    "bare-mix": "the client alone, server mix",
    "page": "the listener's page, mixing",
    "page-moved": "… while a fader moves",
    "page-mix": "the listener's page, server mix",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The table of one scenario: its title, what is said of its numbers, its columns in order."""

    title: str
    caption: str
    """May name values of the result: `{seconds}`."""
    columns: Columns
    after: Callable[[Mapping[str, Any]], str] = lambda result: ""
    """What stands below it, made of the whole result."""
    target: str | Callable[[Mapping[str, Any]], str] = ""
    """What the figures ought to be, where that was said beforehand; made of the whole result."""

    def remarks(self, result: Mapping[str, Any]) -> str:
        """What is said of its numbers, how fine they are, and what they ought to be."""
        said = [self.caption.format_map(result)]
        if growth := result.get("growth"):
            said.append(how_fine(growth))
        target = self.target if isinstance(self.target, str) else self.target(result)
        if target:
            said.append(f"target: {target}")
        return "; ".join(said)


def how_fine(growth: float) -> str:
    """What is said of limits that ramps found, each of whose steps is so many times the last."""
    return f"a ramp goes up by {(growth - 1) * 100:.0f} %, and a limit may be higher by that"


def how_many_ramps(result: Mapping[str, Any]) -> str:
    """Of how many ramps of each subject its limits are."""
    return "one ramp" if result["rounds"] == 1 else f"median of {result['rounds']} ramps"


def spread(name: str, digits: int = 2, scale: float = 1.0) -> Callable[[Row], str]:
    """A median, with lowest and highest."""

    def text(row: Row) -> str:
        of = row.get(name)
        if not of or math.isnan(of["median"]):  # not measured, or nothing came of it
            return "–"
        median, low, high = (f"{of[q] * scale:.{digits}f}" for q in ("median", "low", "high"))
        return f"{median} ({low}–{high})"

    return text


def number(name: str, digits: int = 2) -> Callable[[Row], str]:
    """A number, if there is one."""
    return lambda row: "–" if row.get(name) is None else f"{row[name]:.{digits}f}"


def milliseconds(*names: str, digits: int = 1) -> Callable[[Row], str]:
    """Quantiles of a delay, one after another."""
    return lambda row: " / ".join(f"{row[name]:.{digits}f}" for name in names)


def lateness(name: str) -> Callable[[Row], str]:
    """Quantiles that are kept in µs, as ms."""
    return lambda row: " / ".join(
        f"{row[name][quantile] / 1000:.2f}" for quantile in ("p50", "p99", "p999", "max")
    )


def named(name: str, names: Mapping[str, str]) -> Callable[[Row], str]:
    """A word for readers."""
    return lambda row: names.get(row[name], str(row[name]))


def named_subject(row: Row) -> str:
    """What sends the stream."""
    return STREAMED.get(row["subject"], str(row["subject"]))


def _house(result: Mapping[str, Any]) -> str:
    lines = []
    for sample in result["house"]:
        rate = sample["listeners"] / sample["seconds"]
        lines.append(
            f"{sample['listeners']} listeners joined one room of a server that had just started in "
            f"{sample['seconds']:.1f} s ({rate:.0f} a second), with {sample['bcrypts']} bcrypt."
        )
    return "\n".join(lines)


def megabytes(name: str) -> Callable[[Row], str]:
    """Bytes, as MB: a number, or a median with lowest and highest."""

    def text(row: Row) -> str:
        of = row[name]
        if isinstance(of, Mapping):
            return spread(name, 0, 1e-6)(row)
        return f"{of / 1e6:.0f}"

    return text


def delivered(row: Row) -> str:
    """Share of the frames due that came, and how many listeners were lost, if any were."""
    return f"{row['delivered']:.1%}" + (f", {row['lost']} lost" if row["lost"] else "")


def busy(result: Mapping[str, Any]) -> str:
    """A remark when other programs had a good part of a core, empty otherwise."""
    others = max(row["others"] for row in result["summary"])
    if others < BUSY_CORES:
        return ""
    return (
        f"Other programs used up to {others:.1f} cores meanwhile: all subjects met that alike, "
        "but delays are longer than they would be alone, and ratios less sharp."
    )


def _cpu_target(result: Mapping[str, Any]) -> str:
    subjects = {row["subject"] for row in result["summary"]}
    target = "1.10 × the floor at most for `roomserver`"
    if subjects & PEERS.keys():
        target += ", below every peer, and p50 and p99 not above those of the best"
    if "server-2" in subjects:
        target += "; two relay threads 1.1 × the server of one"
    return target


def _long_task(row: Row) -> str:
    return f"{row['longest_ms']:.0f}" if row["longest_ms"] else "–"


def _front(row: Row) -> str:
    us = row["front_us_per_frame"]
    return f"{us:.1f}" if us else "–"


def _kilobytes(row: Row) -> str:
    return f"{row['bytes'] / 1000:.0f}"


def most(row: Row) -> str:
    """A limit that ramps found, and how far they differed."""
    limit = row["limit"]
    if not limit:
        return "–"
    apart = f" ({limit['low']:,.0f}–{limit['high']:,.0f})" if limit["low"] < limit["high"] else ""
    return f"{'≥ ' if row['open'] else ''}{limit['median']:,.0f}{apart}"


def _if_any(text: Callable[[Row], str]) -> Callable[[Row], str]:
    """Of the best step of a ramp, where one kept up."""
    return lambda row: text(row) if row["server"] else "–"


def _microseconds(row: Row) -> str:
    us = row["seconds"] * 1e6
    return f"{us:.3g}" if us < 100 else f"{us:.0f}"


def _multiples(row: Row) -> str:
    return ", ".join(f"{ratio:.2f} × {name}" for name, ratio in row["ratios"].items())


LAYOUTS: Final[Mapping[str, Layout]] = {
    "micro": Layout(
        title="Micro-benchmarks",
        caption="median times, and medians of their ratios to what was measured by turns with them",
        target="interleave 0.2 × NumPy and 4 × copying its output at most, mix 0.25 × NumPy",
        columns={
            "what": lambda row: str(row["subject"]),
            "µs": _microseconds,
            "in multiples of": _multiples,
        },
    ),
    "cpu": Layout(
        title="CPU per delivered frame",
        caption="medians of intervals of {seconds:g} s; ratios: to the floor beside, and to the "
        "nearest run of the server with one relay thread (lowest–highest); both ends: with the "
        "load client's CPU; delay from tick to receipt; client, others: cores used",
        target=_cpu_target,
        columns={
            "subject": named_subject,
            "µs / frame": number("us_per_frame"),
            "× floor": spread("ratio"),
            "× server": spread("over_server"),
            "both ends, µs": number("both_us_per_frame"),
            "delivered": delivered,
            "p50 / p99 / p99.9 ms": milliseconds("p50_ms", "p99_ms", "p999_ms"),
            "client": number("client"),
            "others": number("others"),
        },
        after=busy,
    ),
    "listeners": Layout(
        title="Listeners that get every frame in time",
        caption="the last step of a ramp that kept up: median of ramps (lowest–highest); ≥: more "
        "were not tried; delays and cores used are those of the best such step",
        target="for the whole `roomserver` 10,000 of the stereo stream, 2.5 × the best peer, and "
        "18,000 of the mono stream",
        columns={
            "what": named_subject,
            "listeners": most,
            "p50 / p99 ms": _if_any(milliseconds("p50_ms", "p99_ms", digits=0)),
            "server, cores": _if_any(number("server")),
            "load client": _if_any(number("client")),
            "others": _if_any(number("others")),
        },
    ),
    "capacity": Layout(
        title="Listeners that one relay thread serves",
        caption="the greatest number that got every frame in time: median of ramps "
        "(lowest–highest), and what was used where most did; ≥: more were not tried; per core: "
        "those over the server's cores",
        columns={
            "stream": lambda row: str(row["format"]),
            "kbit/s": lambda row: f"{row['message_bytes'] * 8 / row['frame_ms']:,.0f}",
            "sent every": lambda row: f"{max(row['interval_ms'], row['frame_ms'])} ms",
            "listeners": most,
            "server, cores": _if_any(number("server")),
            "per core": _if_any(lambda row: f"{row['listeners'] / row['server']:,.0f}"),
            "p50 / p99 ms": _if_any(milliseconds("p50_ms", "p99_ms", digits=0)),
            "load client": _if_any(number("client")),
            "others": _if_any(number("others")),
        },
    ),
    "memory": Layout(
        title="Memory per connection",
        caption="slope from {base} connections to all, medians of rounds (lowest–highest); "
        "database: with all of them, its processes' own and what they have touched of the buffers "
        "they share, neither of which is a listener's; TCP buffers: the kernel's, of both ends and "
        "of all sockets of this machine",
        target="0.5 kB at most in the relay, 2 kB in the whole `roomserver`",
        columns={
            "subject": named_subject,
            "resident, kB": spread("resident", 2, 1e-3),
            "database, MB": spread("database", 1, 1e-6),
            "its buffers, MB": spread("buffers", 1, 1e-6),
            "TCP buffers, kB": spread("tcp_buffers", 2, 1e-3),
        },
    ),
    "stalled": Layout(
        title="Beside listeners that stopped reading",
        caption="of those who read; medians of rounds (lowest–highest); ratio: of p99 beside "
        "stalled ones to p99 without, each in a server of its own, by round; TCP buffers are the "
        "kernel's, of both ends; memory: the most that was seen; reset: of those who stall, in all "
        "rounds",
        target="1.1 × without",
        columns={
            "who": named("condition", {"all read": "nobody stalls", "stalled": "others stall"}),
            "listeners": lambda row: str(row["listeners"]),
            "delivered": delivered,
            "frames missing": lambda row: str(row["missing"]),
            "p50, ms": spread("p50_ms", 1),
            "p99, ms": spread("p99_ms", 1),
            "× without": spread("ratio"),
            "reset": lambda row: f"{row['reset']} of {row['stalled']}",
            "memory, MB": megabytes("resident_mb"),
            "TCP buffers, MB": megabytes("tcp_mb"),
            "server, cores": spread("server"),
            "others": number("others"),
        },
    ),
    "mixes": Layout(
        title="A mix for each listener",
        caption="medians of rounds (lowest–highest); ratio: of CPU time for a frame, by round; "
        "own: no two mixes alike, and each changes once a second",
        target="1.5 × shared at most",
        columns={
            "mixes": named("subject", {"shared": "one for all", "own": "one for each"}),
            "CPU, µs / frame": spread("us_per_frame"),
            "× shared": spread("ratio"),
            "delivered": spread("delivered", 3),
            "frames missing": lambda row: str(row["missing"]),
            "p50, ms": spread("p50_ms", 1),
            "p99, ms": spread("p99_ms", 1),
            "server, cores": spread("server"),
            "client": spread("client"),
            "others": number("others"),
        },
    ),
    "overload": Layout(
        title="Beyond capacity",
        caption="phases of one server, one after another; delays of what came; frames of "
        "one: fewest, median, most; left out: as sequences passed over them, and as the server "
        "counts; memory and TCP buffers: the most that was seen; longest answer: of a join over "
        "HTTP or a look at its health; entry: the longest, of a listener who comes meanwhile, "
        "until it is registered over its WebSocket; login: the longest, "
        "with a bcrypt that gets what the rest leaves of the cores; failed: of all these requests",
        target="delay and memory bounded, control answers in under a second, recovers by itself",
        columns={
            "phase": named(
                "phase",
                {
                    "within": "as much as can be served",
                    "beyond": "eight times the bytes",
                    "later": "eight times the bytes, later",
                    "after": "as in the beginning",
                    "recovered": "as in the beginning, later",
                },
            ),
            "delivered": lambda row: f"{row['delivered']:.1%}",
            "p50 / p99 / max ms": lambda row: (
                f"{row['p50_ms']:.0f} / {row['p99_ms']:.0f} / {row['max_ms']:.0f}"
            ),
            "frames of one": lambda row: f"{row['fewest']} / {row['median']:.0f} / {row['most']}",
            "left out": lambda row: f"{row['missing']} / {row['dropped']}",
            "lost": lambda row: str(row["lost"]),
            "memory, MB": megabytes("resident"),
            "TCP buffers, MB": megabytes("tcp_buffers"),
            "longest answer, ms": number("answer_ms", 0),
            "entry, ms": number("entry_ms", 0),
            "login, ms": number("login_ms", 0),
            "failed": lambda row: f"{row['answers_failed']} of {row['asked']}",
            "server, cores": number("server"),
            "client": number("client"),
            "others": number("others"),
        },
    ),
    "unheard": Layout(
        title="Rooms that nobody hears",
        caption="medians of rounds (lowest–highest); ratio by round; packets left out: the source "
        "could not send them in time",
        target="near the cost of receiving",
        columns={
            "what": named("subject", {"floor": "a loop of `recv()`", "server": "the server"}),
            "CPU, µs / packet": spread("us_per_packet"),
            "× floor": spread("ratio"),
            "cores": spread("server"),
            "packets left out": lambda row: str(row["skipped"]),
            "memory, MB": megabytes("resident"),
            "client": spread("client"),
            "others": number("others"),
        },
    ),
    "pacing": Layout(
        title="Pacing",
        caption="{seconds:g} s for each row in every round; p50 / p99 / p99.9 / max in ms, "
        "quantiles are medians of rounds; tick: from its deadline to its block; floor: of a bare "
        "timer loop, and how often its p99.9 goes into that of the ticks; arrival: from the "
        "deadline to the listener's socket; others: cores used by other programs at most",
        columns={
            "scheduling": named("granted", SCHEDULING),
            "Python": named("condition", TORTURES),
            "ticks": lambda row: str(row["ticks"]["count"]),
            "tick late": lateness("ticks"),
            "floor": lateness("floor"),
            "p99.9 × floor": number("ratio"),
            "arrival": lateness("arrival"),
            "frames missing": lambda row: str(row["missing"]),
            "others": number("others"),
        },
        after=busy,
    ),
    "tls": Layout(
        title="CPU per delivered frame over TLS",
        caption="medians of intervals of {seconds:g} s; ratios: to the nearest run "
        "(lowest–highest); delay from tick to receipt; client, others: cores used",
        columns={
            "subject": named("subject", ENCRYPTED),
            "µs / frame": number("us_per_frame", 1),
            "of it nginx": _front,
            "× plain": spread("over_plain"),
            "× floor": spread("over_floor"),
            "delivered": delivered,
            "p50 / p99 ms": milliseconds("p50_ms", "p99_ms"),
            "client": number("client"),
            "others": number("others"),
        },
        after=busy,
    ),
    "limits": Layout(
        title="Listener limit over TLS",
        caption="the greatest number of listeners at which each got every frame due, however "
        "late: median of ramps (lowest–highest), with what was used where most did; ≥: more were "
        "not tried; server, client, others: cores used",
        columns={
            "subject": named("subject", ENCRYPTED),
            "listeners": most,
            "server": number("server"),
            "client": number("client"),
            "others": number("others"),
            "p99 ms": number("p99_ms", 0),
        },
    ),
    "joins": Layout(
        title="Joins",
        caption="medians; ratios to the handshake paired by round; µs of CPU for one, of the event "
        "loop's thread, of the server's whole process and of its database; stored: from the last "
        "join until the database has all; client, others: cores used",
        target="half as many joins as handshakes; one bcrypt for a full house",
        columns={
            "what": named("subject", JOINS),
            "per second": number("per_s", 0),
            "× handshake": spread("ratio"),
            "loop, µs": number("loop_us", 0),
            "loop × handshake": spread("loop_ratio"),
            "server, µs": number("cpu_us", 0),
            "database, µs": number("database_us", 0),
            "p50 / p99 ms": lambda row: f"{row['p50_ms']:.0f} / {row['p99_ms']:.0f}",
            "stored, s": number("stored_s"),
            "client": number("client"),
            "others": number("others"),
        },
        after=_house,
    ),
    "reconnect": Layout(
        title="A full house after a restart",
        caption="seconds: down, from the first listener that was lost to the first that was back; "
        "from then on until the last had registered, and until the last heard audio; silence of a "
        "listener from frame to frame; client: cores used",
        columns={
            "listeners": lambda row: str(row["listeners"]),
            "down, s": spread("open_s"),
            "all registered, s": spread("joined_s"),
            "all hear, s": spread("heard_s"),
            "silence p50, s": spread("silence_p50_ms", 1, 1e-3),
            "longest, s": spread("silence_max_ms", 1, 1e-3),
            "client": spread("client"),
        },
    ),
    "outbox": Layout(
        title="Events through the outbox into PostgreSQL",
        caption="medians of rounds (lowest–highest); cores used by server, database and all",
        target="5,000 events a second while listeners join",
        columns={
            "who joins": named("condition", CONDITIONS),
            "events a second": spread("per_s", 0),
            "joins a second": number("joins_per_s", 0),
            "server": number("server"),
            "database": number("database"),
            "machine": number("machine"),
        },
    ),
    "scrape": Layout(
        title="A scrape of /metrics",
        caption="medians (lowest–highest); others wait: the longest that another request took "
        "while a scrape went on",
        columns={
            "rooms": lambda row: str(row["rooms"]),
            "kB": _kilobytes,
            "ms": spread("wall_ms", 1),
            "CPU, ms": spread("cpu_ms", 1),
            "others wait, ms": spread("other_ms", 1),
        },
    ),
    "browser": Layout(
        title="A page that listens",
        caption="medians of rounds (lowest–highest); main thread: part of the time that the "
        "page's is busy; longest: task of all rounds, – when none took 50 ms; browser: cores used "
        "by all its processes; missing and underruns: of all rounds",
        columns={
            "page": named("subject", PAGES),
            "main thread, %": spread("main", 1, 100),
            "longest, ms": _long_task,
            "pictures/s": spread("pictures", 0),
            "browser, cores": spread("cpu"),
            "delay, ms": spread("latency_ms", 0),
            "frames missing": number("missing", 0),
            "underruns": number("underruns", 0),
        },
    ),
    "soak": Layout(
        title="Hours of coming and going",
        caption="medians of the first quarter (less the first step) and of the last; lowest and "
        "highest of all steps",
        target="memory, descriptors, threads and delay level",
        columns={
            "figure": lambda row: str(row["figure"]),
            "first quarter": number("first", 1),
            "last quarter": number("last", 1),
            "lowest": number("low", 1),
            "highest": number("high", 1),
        },
    ),
}


def parts(result: Mapping[str, Any]) -> Iterator[tuple[Layout, Mapping[str, Any]]]:
    """The tables of a result: layouts, and what is in them. Raises KeyError for an unknown one."""
    yield LAYOUTS[result["scenario"]], result
    if limits := result.get("limits"):
        rows = [row | _where_most_kept_up(result["steps"], row["subject"]) for row in limits]
        yield (
            LAYOUTS["limits"],
            {
                **result,
                "title": result["title"].split(" listeners, ", 1)[-1],  # how many is looked for
                "summary": rows,
                "rounds": result["limit_rounds"],
                "growth": result["limit_growth"],
            },
        )


def _where_most_kept_up(steps: Iterable[Row], subject: str) -> dict[str, Any]:
    """What a subject used, and how late it was, with the most listeners at which it kept up."""
    kept = [step for step in steps if step["subject"] == subject and step["kept_up"]]
    last = max(kept, key=lambda step: int(step["listeners"]), default={})
    return {name: last.get(name) for name in ("server", "client", "others", "p99_ms")}


def cells(layout: Layout, rows: Sequence[Row]) -> list[list[str]]:
    """The table's cells, row by row."""
    return [[text(row) for text in layout.columns.values()] for row in rows]


def markdown(columns: Mapping[str, Callable[[T], str]], rows: Sequence[T]) -> str:
    """A table of a document."""
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|" + "|".join("---" if i == 0 else "---:" for i in range(len(columns))) + "|")
    lines += ["| " + " | ".join(text(row) for text in columns.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
