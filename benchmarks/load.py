"""The native load client, driven from Python."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import natives
from benchmarks.child import Child

JOIN_TIMEOUT_S = 60.0
FLOW_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a subject listens and how its listeners register.

    Attributes:
        pid: Process whose CPU time and memory are measured.
        port: On 127.0.0.1.
        registers: Register texts, one for each kind of listener; none: the subject binds them.
        clock_offset_us: The subject's clock less CLOCK_MONOTONIC; None: from its `config`.
        tls: Whether its listeners speak TLS.
        more_pids: Processes whose CPU time counts as the subject's too: a proxy's.
    """

    pid: int
    port: int
    registers: Sequence[str] = ()
    clock_offset_us: int | None = None
    tls: bool = False
    more_pids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of a duration, ms."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Joined:
    """Answer to `join`: the connections open, those that failed, how long joining took each."""

    connections: int
    failed: int
    join_ms: Quantiles
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the load client saw in one interval; times in seconds unless named otherwise.

    `frames_fewest` and `frames_most` are those of the least and best served connection; `missing`
    are frames that a connection's sequence passed over, in `gaps` places. `server_cpu_s` is read
    at the same instants as the frames are counted. `delay_ms` is from a frame's tick to its being
    read, `arrival_ms` to its reaching the socket, if the client was asked for `kernel_times`;
    `arrival_us` says the same as pairs of a bound in µs and how many were under it, but not under
    the bound before.
    """

    connections: int
    lost: int
    seconds: float
    frames: int
    frames_fewest: int
    frames_most: int
    gaps: int
    missing: int
    bytes: int
    reads: int
    pings: int
    server_cpu_s: float
    client_cpu_s: float
    client_longest_batch_ms: float
    delay_ms: Quantiles
    arrival_ms: Quantiles
    arrival_us: list[tuple[int, int]]
    errors: dict[str, int]

    @property
    def client_load(self) -> float:
        """Share of one core that the load client used."""
        return self.client_cpu_s / self.seconds


class LoadError(Exception):
    """Listeners could not join or were lost, so that nothing can be said about the rest."""


class LoadClient:
    """Listeners of one target in a process of their own; leaving the block ends it.

    With `kernel_times` the kernel notes when frames reach a socket; `realtime` asks for scheduling
    with which the process reads them then, whatever else wants the processor.
    """

    def __init__(
        self,
        target: Target,
        *,
        max_seconds: int,
        in_flight: int = 64,
        kernel_times: bool = False,
        realtime: bool = False,
    ) -> None:
        command: list[str | Path] = [natives.build("load_client", tls=target.tls)]
        pids = ",".join(map(str, (target.pid, *target.more_pids)))
        command += ["--port", str(target.port), "--server-pid", pids]
        command += ["--max-seconds", str(max_seconds), "--in-flight", str(in_flight)]
        command += ["--kernel-times", str(int(kernel_times))]
        command += ["--realtime", str(int(realtime))]
        if target.clock_offset_us is not None:
            command += ["--clock-offset-us", str(target.clock_offset_us)]
        self._texts = tempfile.NamedTemporaryFile("w", suffix=".txt")  # noqa: SIM115
        if target.registers:
            self._texts.write("\n".join(target.registers) + "\n")
            self._texts.flush()
            command += ["--register", self._texts.name]
        self._child = Child(command)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    def join(self, connections: int, timeout: float = JOIN_TIMEOUT_S) -> Joined:
        """Grows to this many connections.

        Raises LoadError when one of them fails, ChildError when it takes longer.
        """
        self._child.tell(f"join {connections}")
        said = self._child.expect("joined", timeout)
        joined = Joined(
            said["connections"], said["failed"], Quantiles(**said["join_ms"]), said["errors"]
        )
        if joined.connections != connections:
            raise LoadError(
                f"{joined.connections} of {connections} connections joined: {joined.errors}"
            )
        return joined

    def wait_for_frames(self, frames: int) -> None:
        """Returns when every connection has received this many frames more."""
        self._child.tell(f"flow {frames}")
        self._child.expect("flowing", FLOW_TIMEOUT_S)

    def measure(self, seconds: float) -> Measured:
        """Counts for an interval that begins now."""
        self._child.tell(f"measure {round(seconds * 1000)}")
        said = self._child.expect("measured", seconds + FLOW_TIMEOUT_S)
        del said["event"]
        times = {name: Quantiles(**said[name]) for name in ("delay_ms", "arrival_ms")}
        return Measured(**said | times)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.close()
        self._texts.close()
