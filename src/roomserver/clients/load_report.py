"""What a load test found: frames delivered against frames due, delays, and who was the bottleneck.

Pure functions of what `relaycore.LoadClient` counted; no input or output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import chain
from operator import add
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from relaycore import Durations
from relaycore.counters import LoadFigures
from roomserver.clients.process_use import ProcessSample

#: Groups of listeners, by their number in the load client.
GROUPS: Final = ("listening", "slow", "stalled")
GONE: Final = 3
_SLACK_US: Final = 1000  # between clocks, and for a deadline that is rounded
#: What the clock of a source may be off, and frames that may be on their way: half a thousandth
#: is more than any quartz, and one frame is what a phase can cost.
_DRIFT: Final = 0.0005
_BUSY: Final = 0.9
_WAITED: Final = 0.25
_LATE_SHARE: Final = 0.5
_LATE_MS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of durations, ms."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, durations: Durations) -> Self:
        """Of a histogram; zeros when it is empty."""
        return cls(
            count=durations.count,
            mean=round(durations.mean_ms, 3),
            p50=durations.quantile_ms(0.5),
            p90=durations.quantile_ms(0.9),
            p99=durations.quantile_ms(0.99),
            p999=durations.quantile_ms(0.999),
            max=durations.max_ms,
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One group of listeners.

    Attributes:
        listeners: How many of them joined.
        due: Frames whose tick came between their joining and the end, over all of them.
        delivered: Those that came.
        missing: Those that did not.
        gaps: Places where a listener's sequence passed over frames.
        repeated: Frames that came again on resuming; they are not counted as delivered.
        bytes: Received, of everything.
        worst: Share of its frames that the worst served listener had.
        gone: Listeners that are not there at the end.
        delay: From tick to receipt.
    """

    listeners: int
    due: int
    delivered: int
    missing: int
    gaps: int
    repeated: int
    bytes: int
    worst: float
    gone: int
    delay: Quantiles


def frames_due(
    records: NDArray[Any], *, until_us: int, offset_us: int, frame_ms: NDArray[np.int64] | int
) -> NDArray[np.int64]:
    """How many frames each listener should have got, from its joining to the end.

    What the sequence tells is exact: the frames that came, those it passed over, and the ticks
    before the first and after the last of them. A server that makes fewer frames than its rate
    tells would look well in that, so what the clock says counts where it is more, less what the
    clock of a source may be off.

    Args:
        records: As `LoadClient.listeners` has them; of those that never joined nothing is due.
        until_us: Frames of this time of the server and later do not count.
        offset_us: The server's clock less ours.
        frame_ms: Of the room, or of each listener's.
    """
    period = frame_ms * 1000
    joined_us = records["joined_ns"] // 1000 + offset_us
    by_clock = np.maximum((until_us - joined_us) // period, 0)
    before = np.maximum((records["first_us"] - joined_us - _SLACK_US) // period, 0)
    after = np.maximum((until_us - records["last_us"] - _SLACK_US) // period, 0)
    by_sequence = records["expected"].astype(np.int64) + before + after
    heard = records["frames"] > 0
    at_least = np.where(heard, np.floor(by_clock * (1 - _DRIFT)) - 1, by_clock).astype(np.int64)
    due = np.maximum(np.where(heard, by_sequence, 0), at_least)
    return np.where(records["joined_ns"] > 0, np.maximum(due, 0), 0)


def delivery(records: NDArray[Any], due: NDArray[np.int64], delay: Durations) -> Delivery:
    """Sum up a group: its records, what was due to each, and its delays."""
    joined = records["joined_ns"] > 0
    frames = records["frames"].astype(np.int64)
    missing = np.maximum(due - frames, 0)[joined]
    shares = (frames[joined] / np.maximum(due[joined], 1)).clip(max=1.0)
    return Delivery(
        listeners=int(joined.sum()),
        due=int(np.maximum(due, frames)[joined].sum()),
        delivered=int(frames[joined].sum()),
        missing=int(missing.sum()),
        gaps=int(records["gaps"][joined].sum()),
        repeated=int(records["repeated"][joined].sum()),
        bytes=int(records["bytes"][joined].sum()),
        worst=round(float(shares.min()), 6) if shares.size else 1.0,
        gone=int((records["state"][joined] == GONE).sum()),
        delay=Quantiles.of(delay),
    )


@dataclass(frozen=True, slots=True)
class ThreadLoad:
    """What a thread of the load client did, or all of Python together, which reads no frames.

    Attributes:
        name: Which.
        load: Share of a processor that it used.
        waited: Share of the time for which it wanted one and had none; None: of Python's.
        late: How late it may have read; None: of Python's.
    """

    name: str
    load: float
    waited: float | None = None
    late: Quantiles | None = None


def thread_loads(figures: Sequence[LoadFigures], *, process_s: float) -> list[ThreadLoad]:
    """The load of each thread that had something to do, and of Python.

    Args:
        figures: Of one interval.
        process_s: CPU seconds of the whole process in it.
    """
    loads = []
    for number, f in enumerate(figures):
        if f.connections == 0:
            continue
        length = max(f.taken_ns - f.since_ns, 1)
        name = "sources" if f.is_sources else f"listeners {number}"
        load, waited = (round(ns / length, 4) for ns in (f.cpu_ns, f.wait_ns))
        loads.append(ThreadLoad(name, load, waited, Quantiles.of(f.batch)))
    native_ns = sum(f.cpu_ns for f in figures)
    length = max(figures[0].taken_ns - figures[0].since_ns, 1)
    loads.append(ThreadLoad("python", round(max(process_s * 1e9 - native_ns, 0) / length, 4)))
    return loads


def bottleneck(threads: Iterable[ThreadLoad], delay_p99_ms: float) -> str | None:
    """Whether the load client itself spoilt the result: why, or None."""
    for thread in threads:
        if thread.load > _BUSY:
            return f"thread {thread.name} was busy {100 * thread.load:.0f} % of the time"
        if thread.waited is not None and thread.waited > _WAITED:
            return (
                f"thread {thread.name} waited for a processor {100 * thread.waited:.0f} % of the "
                "time: the machine is too small for what runs on it"
            )
        late = thread.late
        if late is not None and late.p99 > max(_LATE_MS, _LATE_SHARE * delay_p99_ms):
            return f"thread {thread.name} took up to {late.p99:.0f} ms (p99) to come round"
    return None


@dataclass(frozen=True, slots=True)
class StormReport:
    """Listeners that were cut off at once, and how they came back.

    Attributes:
        dropped: How many.
        returned: How many heard again.
        seconds: From the cut to the last of these.
        attempts: Connections that were tried.
        silence: What each missed.
    """

    dropped: int
    returned: int
    seconds: float
    attempts: int
    silence: Quantiles


@dataclass(frozen=True, slots=True)
class MixReport:
    """Changes of mixes, and how long the server took to answer."""

    sent: int
    answered: int
    answer: Quantiles


@dataclass(frozen=True, slots=True)
class ServerReport:
    """The server's process while everybody listened; bytes.

    Attributes:
        cores: Processors it used on average.
        us_per_frame: Its CPU time per frame delivered, µs.
        resident: Its memory in RAM: before the listeners came, and the most.
        socket_bytes: The kernel's memory of its sockets: before, and the most; None: unknown.
        sockets: The most it had; None: unknown.
    """

    cores: float
    us_per_frame: float
    resident: tuple[int, int]
    socket_bytes: tuple[int, int] | None
    sockets: int | None

    @classmethod
    def of(
        cls,
        before: ProcessSample,
        steady: Sequence[ProcessSample],
        *,
        cpu_s: float,
        seconds: float,
        frames: int,
    ) -> Self:
        """Of a sample before everything, at least one of the time that counts, and the CPU seconds
        used in that."""
        seen = [s.sockets for s in steady if s.sockets is not None]
        socket_bytes = None
        if before.sockets is not None and seen:
            socket_bytes = (before.sockets.queued, max(s.queued for s in seen))
        return cls(
            cores=round(cpu_s / seconds, 4),
            us_per_frame=round(cpu_s * 1e6 / frames, 3) if frames else 0.0,
            resident=(before.resident, max(s.resident for s in steady)),
            socket_bytes=socket_bytes,
            sockets=max((s.count for s in seen), default=None),
        )


@dataclass(frozen=True, slots=True)
class LoadReport:
    """All that is told at the end; `as_json` has the same names.

    Attributes:
        server_url: Who was loaded.
        started: ISO 8601, UTC.
        options: What was asked for.
        interrupted: It was ended early; everything is of the time until then.
        shared_token: All listeners of a room had one token: joining was not part of the load.
        wanted, joined, failed: Listeners.
        lost, returned: Connections that broke (those of a storm too), and listeners back from it.
        joining_s, steady_s: Until everybody was in, and from there to the end.
        groups: By name, of the whole time.
        delay_joining, delay_steady: Of those that simply listen, in either part.
        bytes_per_s: That all listeners received, in the steady part.
        round_trip_us: The shortest to the server; the clock may be half of it off.
    """

    server_url: str
    started: str
    options: dict[str, Any]
    interrupted: bool
    shared_token: bool
    rooms: int
    wanted: int
    joined: int
    failed: int
    lost: int
    returned: int
    joining_s: float
    steady_s: float
    groups: dict[str, Delivery]
    delay_joining: Quantiles
    delay_steady: Quantiles
    join: Quantiles
    bytes_per_s: float
    source_packets: int
    source_packets_skipped: int
    round_trip_us: int
    threads: list[ThreadLoad]
    bottleneck: str | None
    storm: StormReport | None = None
    mixes: MixReport | None = None
    server: ServerReport | None = None
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Everybody joined, and those that simply listen had every frame that was due."""
        return self.joined == self.wanted and self.groups["listening"].missing == 0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"format": 1, **asdict(self), "complete": self.complete}


def total(durations: Iterable[Durations]) -> Durations:
    """Durations of several threads, groups or intervals as one."""
    return reduce(add, durations, Durations())


def count_errors(figures: Iterable[LoadFigures]) -> dict[str, int]:
    """What went wrong and how often. A server's words may hold anything: here only what prints."""
    errors: Counter[str] = Counter()
    for what, count in chain.from_iterable(f.errors.items() for f in figures):
        errors["".join(c if c.isprintable() else " " for c in what)] += count
    return dict(errors)
