"""Listeners of a running server, to whom a scenario can do something, in intervals.

Their load client runs in this process, all of whose CPU time counts as the client's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.load import LoadError, with_token
from benchmarks.subjects import RunningServer, source_register
from benchmarks.workload import Workload
from relaycore import LoadClient
from relaycore.counters import LoadFigures
from roomserver.clients.load_report import total
from roomserver.clients.process_use import cpu_seconds

JOIN_TIMEOUT_S: Final = 120.0
LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Interval:
    """What the listeners of a crowd got in an interval, and what it took.

    `fewest`, `median` and `most` are frames of one listener; `missing` are frames that sequences
    passed over, in `gaps` places. Delays are from tick to receipt. Cores used: the server's
    process, this one (with the source, if the crowd has one), everything else. Bytes, the most that
    was seen: the server's process, and the kernel's TCP buffers at both ends of every connection of
    the machine.
    """

    seconds: float
    listeners: int
    lost: int
    frames: int
    due: float
    fewest: int
    median: float
    most: int
    gaps: int
    missing: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    server: float
    client: float
    others: float
    resident: int
    tcp_buffers: int

    @property
    def us_per_frame(self) -> float:
        """CPU time of the server for a frame that a listener received, µs."""
        return self.server * self.seconds * 1e6 / self.frames if self.frames else float("nan")

    @property
    def delivered(self) -> float:
        """Share of the frames due that came."""
        return self.frames / self.due if self.due else 0.0


class Observed(NamedTuple):
    """What a load client of this process counted in an interval, and who used the cores.

    `frames` are those of each of its listeners, or the packets of each of its sources.
    """

    figures: Sequence[LoadFigures]
    seconds: float
    frames: NDArray[np.int64]
    cores: machine.Cores
    memory: machine.Memory


class _Look(NamedTuple):
    """What has been counted and used at one moment."""

    figures: Sequence[LoadFigures]
    at_s: float
    server_s: float
    client_s: float
    frames: NDArray[np.int64]
    cpu: machine.CpuSnapshot


def observe(
    client: LoadClient, pid: int, seconds: float, records: Callable[[], NDArray[Any]]
) -> Observed:
    """An interval that begins now, of a load client and of the server's process `pid`.

    A busy thread of the client answers late, so figures say from when to when they are. CPU times
    are read right after them, and what share of the cores they are is reckoned by when that was.

    Args:
        records: The client's `listeners` or `sources`.
    """

    def look() -> _Look:
        figures = client.figures(restart=True)
        at_s, server_s, client_s = time.monotonic(), cpu_seconds(pid), time.process_time()
        frames = records()["frames"].astype(np.int64)
        return _Look(figures, at_s, server_s, client_s, frames, machine.CpuSnapshot.take(pid))

    began = look()
    with machine.watched_memory(pid) as memory:
        time.sleep(seconds)
    ended = look()
    cores = ended.cpu.since(began.cpu).cores(
        server_s=ended.server_s - began.server_s,
        client_s=ended.client_s - began.client_s,
        seconds=ended.at_s - began.at_s,
    )
    took = (ended.figures[0].taken_ns - ended.figures[0].since_ns) / 1e9
    return Observed(ended.figures, took, ended.frames - began.frames, cores, memory)


class Crowd:
    """Listeners of one server; leaving the block ends them. Used by one thread."""

    def __init__(self, running: RunningServer, *, in_flight: int = 64) -> None:
        self._running = running
        self.client = LoadClient(
            "127.0.0.1", running.target.port, clock="config", in_flight=in_flight
        )
        self._count = 0

    def join(self, count: int, *, register: str | None = None) -> range:
        """So many more join, each by the room's password; returns their numbers.

        register: their register text, with any token. Raises LoadError.
        """
        text = with_token(register or self._running.target.registers[0], "$TOKEN")
        numbers = range(self._count, self._count + count)
        self._count += count
        self.client.add_listeners(count, [text], asks=[self._running.target.ask])
        end = time.monotonic() + JOIN_TIMEOUT_S
        while (joined := sum(f.joined for f in self._listening())) < self._count:
            failed = [f.errors for f in self._listening() if f.failed]
            if failed or time.monotonic() > end:
                raise LoadError(f"{joined} of {self._count} listeners joined: {failed}")
            time.sleep(LOOK_S)
        return numbers

    def feed(self, workload: Workload) -> None:
        """A source of this format, in place of the one before. Raises LoadError."""
        self.client.stop_sources()
        self.client.add_sources(
            [source_register(self._running.room, workload)],
            channels=workload.channels,
            sample_rate=workload.sample_rate,
            encoding="pcm_f32le" if workload.encoding == "pcm_f32le" else "pcm_s16le",
            frame_ms=workload.frame_ms,
        )
        end = time.monotonic() + JOIN_TIMEOUT_S
        while self.client.sources()["state"][-1] != 2:
            if time.monotonic() > end:
                raise LoadError("the source could not register")
            time.sleep(LOOK_S)

    def measure(self, workload: Workload, seconds: float) -> Interval:
        """An interval that begins now."""
        pid = self._running.child.pid
        observed = observe(self.client, pid, seconds, self.client.listeners)
        figures = [f for f in observed.figures if not f.is_sources]
        delay = total(f.delay[0] for f in figures)
        return Interval(
            seconds=observed.seconds,
            listeners=self._count,
            lost=sum(f.lost for f in figures),
            frames=sum(f.frames for f in figures),
            due=self._count * workload.frames_per_s * observed.seconds,
            fewest=int(observed.frames.min()),
            median=float(np.median(observed.frames)),
            most=int(observed.frames.max()),
            gaps=sum(f.gaps for f in figures),
            missing=sum(f.missing for f in figures),
            p50_ms=delay.quantile_ms(0.5),
            p99_ms=delay.quantile_ms(0.99),
            p999_ms=delay.quantile_ms(0.999),
            max_ms=delay.max_ms,
            server=round(observed.cores.server, 4),
            client=round(observed.cores.client, 4),
            others=round(observed.cores.others, 4),
            resident=observed.memory.resident,
            tcp_buffers=observed.memory.tcp_buffers,
        )

    def longest_join_ms(self) -> float:
        """How long it took at most to get in: from the first connection to being registered."""
        return max(f.join.max_ms for f in self._listening())

    def _listening(self) -> list[LoadFigures]:
        return [f for f in self.client.figures() if not f.is_sources]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()
