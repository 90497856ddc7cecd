"""The load client (`relaycore.LoadClient`) in a process of its own, driven from here."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from benchmarks.child import Child
from roomserver.clients.load_report import Quantiles

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
        bare: An open WebSocket is all that is wanted.
        stream: Path of an endless HTTP body in which the frames come; empty: over a WebSocket.
        joins_per_s: How many are to begin at most, if nobody says otherwise; 0: as many as will.
        tls: Whether its listeners speak TLS.
        more_pids: Processes whose CPU time counts as the subject's too: a proxy's.
        ask: Body of the HTTP join with which a listener gets a token of its own.
    """

    pid: int
    port: int
    registers: Sequence[str] = ()
    clock_offset_us: int | None = None
    bare: bool = False
    stream: str = ""
    joins_per_s: int = 0
    tls: bool = False
    more_pids: Sequence[int] = ()
    ask: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """Answer to `join`: the connections open, those that failed, how long joining took each.

    `seconds` is from the command to the last of them; CPU times and the longest batch are of it.
    """

    connections: int
    failed: int
    seconds: float
    server_cpu_s: float
    client_cpu_s: float
    client_longest_batch_ms: float
    join_ms: Quantiles
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Rejoined:
    """How everyone came back. Seconds since the first was lost, but for `seconds`.

    `open_s` is when the first WebSocket opened again, `joined_s` when the last listener had
    registered, `heard_s` when the last one had audio. `silence_ms` is what each listener missed.
    `seconds` and the client's CPU time are since it was told to watch.
    """

    connections: int
    attempts: int
    open_s: float
    joined_s: float
    heard_s: float
    silence_ms: Quantiles
    seconds: float
    client_cpu_s: float
    client_longest_batch_ms: float
    errors: dict[str, int]


class Ask(StrEnum):
    """Whether each listener joins by HTTP first."""

    NO = "no"
    """All of them register with the token that the target has."""
    APART = "apart"
    """The WebSocket is a connection of its own, as in browsers."""
    SAME = "same"
    """The WebSocket takes the connection of the request."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the load client saw in one interval; times in seconds unless named otherwise.

    `frames_fewest` and `frames_most` are those of the least and best served connection; `missing`
    are frames that a connection's sequence passed over, in `gaps` places. `server_cpu_s` is read
    as soon as counting begins and ends; `more_cpu_s` is what of it the target's `more_pids` used.
    `delay_ms` is from a frame's tick to its being
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
    more_cpu_s: float
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

    At most `in_flight` are on their way in at a time; `per_second` begin, or as many as will. With
    `kernel_times` the kernel notes when frames reach a socket; `realtime` asks for scheduling with
    which the process reads them then, whatever else wants the processor.
    """

    def __init__(
        self,
        target: Target,
        *,
        max_seconds: int,
        in_flight: int = 64,
        per_second: int = 0,
        ask: Ask = Ask.NO,
        kernel_times: bool = False,
        realtime: bool = False,
    ) -> None:
        registers = list(target.registers)
        if ask is not Ask.NO:
            registers = [with_token(text, "$TOKEN") for text in registers]
        options = {
            "client": {
                "host": "127.0.0.1",
                "port": target.port,
                "in_flight": in_flight,
                "registers": not target.bare,
                "stream": bool(target.stream),
                "path": target.stream or "/ws",
                "reuse": ask is Ask.SAME,
                "clock": "config" if target.clock_offset_us is None else target.clock_offset_us,
                "kernel_times": kernel_times,
                "realtime": realtime,
                "tls": target.tls,
                "verify": False,  # it only connects to this machine
            },
            "registers": registers,
            "asks": [] if ask is Ask.NO else [target.ask],
            "per_second": per_second or target.joins_per_s,
            "pids": [target.pid, *target.more_pids],
            "max_seconds": max_seconds,
        }
        self._child = Child([sys.executable, "-m", "benchmarks.load_process", json.dumps(options)])

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    def join(self, connections: int, timeout: float = JOIN_TIMEOUT_S) -> Joined:
        """Grows to this many connections.

        Raises LoadError when one of them fails, ChildTimeoutError when it takes longer.
        """
        self.begin_join(connections)
        return self.joined(connections, timeout)

    def begin_join(self, connections: int) -> None:
        """Begins to grow to this many connections; `joined` waits for them."""
        self._child.tell(f"join {connections}")

    def joined(self, connections: int, timeout: float = JOIN_TIMEOUT_S) -> Joined:
        """How they joined. Raises as `join` does."""
        said = self._child.expect("joined", timeout)
        del said["event"]
        joined = Joined(**said | {"join_ms": Quantiles(**said["join_ms"])})
        if joined.connections != connections:
            raise LoadError(
                f"{joined.connections} of {connections} connections joined: {joined.errors}"
            )
        return joined

    def joined_by_now(self, connections: int) -> Joined | None:
        """As `joined`, or None while they are still on their way in."""
        return self.joined(connections, 0.0) if self._child.has("joined") else None

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

    def watch(self) -> None:
        """From now on who is lost comes back: `rejoined` waits for that."""
        self._child.tell("rejoin")

    def rejoined(self, timeout: float) -> Rejoined:
        """Waits until everyone was lost and hears again."""
        said = self._child.expect("rejoined", timeout)
        del said["event"]
        return Rejoined(**said | {"silence_ms": Quantiles(**said["silence_ms"])})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.close()


def with_token(register: str, token: str) -> str:
    """The register text with another token."""
    return json.dumps(json.loads(register) | {"roomToken": token})
