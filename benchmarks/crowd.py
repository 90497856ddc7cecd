"""Listeners of a running server, of whom groups can be treated differently, in intervals."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np

from benchmarks import machine
from benchmarks.load import LoadError, with_token
from benchmarks.subjects import RunningServer, source_register
from benchmarks.workload import Workload
from relaycore import LoadClient
from relaycore.counters import LoadFigures

JOIN_TIMEOUT_S: Final = 120.0
LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Interval:
    """What the listeners of one group got in an interval, and what it took.

    `fewest`, `median` and `most` are frames of one listener; `missing` are frames that sequences
    passed over, in `gaps` places. Delays are from tick to receipt. Cores used: the server's
    process, the load client (with its source, if it has one), everything else. Bytes: the server's
    process, and the kernel's TCP buffers at both ends of every connection of the machine.
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


class Crowd:
    """Listeners of one server; leaving the block ends them. Used by one thread."""

    def __init__(self, running: RunningServer, *, in_flight: int = 64) -> None:
        self._running = running
        self.client = LoadClient(
            "127.0.0.1", running.target.port, clock="config", in_flight=in_flight
        )
        self._count = 0

    def join(self, count: int, *, group: int = 0, register: str | None = None) -> range:
        """So many more join, each by the room's password; returns their numbers.

        register: their register text, with any token. Raises LoadError.
        """
        text = with_token(register or self._running.target.registers[0], "$TOKEN")
        numbers = range(self._count, self._count + count)
        self._count += count
        self.client.add_listeners(count, [text], asks=[self._running.target.ask], group=group)
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

    def measure(self, workload: Workload, seconds: float, *, group: int = 0) -> Interval:
        """An interval that begins now, of the listeners of one group."""
        pid = self._running.child.pid
        before = self.client.listeners()
        cpu = machine.CpuSnapshot.take(pid)
        used = machine.cpu_seconds([pid])
        self.client.figures(restart=True)
        time.sleep(seconds)
        figures = self.client.figures(restart=True)
        used = machine.cpu_seconds([pid]) - used
        whole = machine.CpuSnapshot.take(pid).since(cpu).machine
        after = self.client.listeners()
        took = (figures[0].taken_ns - figures[0].since_ns) / 1e9
        mine = before["group"] == group
        frames = (after["frames"] - before["frames"])[mine].astype(np.int64)
        expected = (after["expected"] - before["expected"])[mine].astype(np.int64)
        delay = figures[0].delay[group]
        for figure in figures[1:]:
            delay += figure.delay[group]
        client = sum(f.cpu_ns for f in figures) / 1e9
        return Interval(
            seconds=took,
            listeners=int(mine.sum()),
            lost=int((after["losses"] - before["losses"])[mine].sum()),
            frames=int(frames.sum()),
            due=int(mine.sum()) * workload.frames_per_s * took,
            fewest=int(frames.min()),
            median=float(np.median(frames)),
            most=int(frames.max()),
            gaps=int((after["gaps"] - before["gaps"])[mine].sum()),
            missing=int((expected - frames).sum()),
            p50_ms=delay.quantile_ms(0.5),
            p99_ms=delay.quantile_ms(0.99),
            p999_ms=delay.quantile_ms(0.999),
            max_ms=delay.max_ms,
            server=round(used / took, 4),
            client=round(client / took, 4),
            others=round(max(0.0, whole - used - client) / took, 4),
            resident=machine.resident_bytes(pid),
            tcp_buffers=machine.tcp_buffer_bytes(),
        )

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
