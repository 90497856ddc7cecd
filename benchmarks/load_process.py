"""The load client in a process of its own: `python -m benchmarks.load_process OPTIONS`.

OPTIONS is a JSON object: `client`, keywords of `relaycore.LoadClient`; `registers` and `asks` of
its listeners; `per_second`, how many begin to join; `pids`, processes that are the server; and
`max_seconds`, after which it ends by itself. Commands come on standard input, one a line; each is
answered by one line of JSON.

    join N       grow to N connections; {"event": "joined", …} when all have joined or failed
    flow K       {"event": "flowing"} when every connection has had K more frames
    measure MS   {"event": "measured", …} after that time, counted from now
    rejoin       from now on whoever is lost comes back; {"event": "rejoined", …} when everyone was
                 lost and hears again
    quit         (or end of input) ends the process
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relaycore import Durations, LoadClient
from relaycore.counters import LoadFigures
from roomserver.clients.errors import ClientError
from roomserver.clients.load_report import Quantiles, total
from roomserver.clients.process_use import cpu_seconds

LOOK_S: Final = 0.02
"""Between looks at what is waited for; when it came is known to the microsecond all the same."""
ENTERING, JOINED = 1, 2

Json = dict[str, Any]


def quantiles(each: Iterable[Durations]) -> Json:
    """Of durations, ms."""
    return asdict(Quantiles.of(total(each)))


class Process:
    """Carries commands out, one at a time; `look` says whether an answer is due."""

    def __init__(self, options: Json) -> None:
        self._options = options
        self._client = LoadClient(**options["client"])
        self._count = 0
        self._errors: Counter[str] = Counter()
        self._own_cpu = 0.0
        self._server_cpu = self._server_cpu_s()
        self._began_ns = 0
        self._answer: Callable[[], Json | None] | None = None

    def close(self) -> None:
        """Ends all connections."""
        self._client.close()

    def command(self, line: str) -> bool:
        """Begins to carry one out; False: it is the last."""
        verb, _, value = line.strip().partition(" ")
        if verb == "join":
            self._begin()
            target = max(int(value), self._count)
            self._client.add_listeners(
                target - self._count,
                self._options["registers"],
                asks=self._options["asks"],
                per_second=self._options["per_second"],
            )
            self._count = target
            self._answer = self._joined
        elif verb == "flow":
            before = self._client.listeners()["frames"]
            wanted = int(value)
            self._answer = lambda: self._flowing(before, wanted)
        elif verb == "measure":
            self._begin()
            before_all = self._client.listeners()
            end = time.monotonic() + int(value) / 1000
            self._answer = lambda: self._measured(before_all) if time.monotonic() >= end else None
        elif verb == "rejoin":
            self._begin()
            self._errors.clear()
            returns = self._client.listeners()["returns"]
            self._client.rejoin(True)
            self._answer = lambda: self._rejoined(returns)
        elif verb != "quit":
            raise ValueError(f"unknown command {line!r}")
        return verb != "quit"

    def look(self) -> Json | None:
        """The answer, if it is due."""
        answer = self._answer() if self._answer is not None else None
        if answer is not None:
            self._answer = None
        return answer

    @property
    def waits(self) -> bool:
        """Whether an answer is to come."""
        return self._answer is not None

    # ---- intervals ----

    def _figures(self, *, restart: bool = False) -> Sequence[LoadFigures]:
        return self._client.figures(restart=restart)[:-1]  # the last one's are of sources

    def _begin(self) -> None:
        ended = self._figures(restart=True)
        self._own_cpu = time.process_time()
        self._server_cpu = self._server_cpu_s()
        self._began_ns = ended[0].taken_ns
        for figures in ended:
            self._errors.update(figures.errors)

    def _server_cpu_s(self) -> list[float]:
        """What each of the server's processes has used; 0: it is gone."""
        used = []
        for pid in self._options["pids"]:
            try:
                used.append(cpu_seconds(pid))
            except ClientError:
                used.append(0.0)
        return used

    def _server_cpu_since(self) -> Json:
        """What all of them, and those behind the first, have used since the interval began."""
        ended_and_began = zip(self._server_cpu_s(), self._server_cpu, strict=True)
        each = [ended - began for ended, began in ended_and_began]
        return {"server_cpu_s": sum(each), "more_cpu_s": sum(each[1:])}

    def _interval(self, figures: Sequence[LoadFigures], *, end_ns: int) -> Json:
        """From its beginning until now; it ended before, if it was to."""
        errors = self._errors.copy()
        for each in figures:
            errors.update(each.errors)
        return {
            "connections": sum(f.alive for f in figures),
            "seconds": (end_ns - self._began_ns) / 1e9,
            "client_cpu_s": time.process_time() - self._own_cpu,
            "client_longest_batch_ms": max(f.batch.max_ms for f in figures),
            "errors": dict(errors),
        }

    # ---- answers ----

    def _joined(self) -> Json | None:
        figures = self._figures()
        if sum(f.settled for f in figures) < self._count:
            return None
        server_cpu_s = self._server_cpu_since()["server_cpu_s"]
        last_ns = max(f.last_joined_ns for f in figures) or figures[0].taken_ns
        joined = int((self._client.listeners()["joined_ns"] > 0).sum())
        return {
            "event": "joined",
            **self._interval(figures, end_ns=last_ns),
            "connections": joined,
            "failed": self._count - joined,
            "server_cpu_s": server_cpu_s,
            "join_ms": quantiles(f.join for f in figures),
        }

    def _flowing(self, before: NDArray[np.uint64], wanted: int) -> Json | None:
        records = self._client.listeners()
        alive = np.isin(records["state"], (ENTERING, JOINED))
        if ((records["frames"] - before)[alive] < wanted).any():
            return None
        return {"event": "flowing", "connections": int(alive.sum())}

    def _measured(self, before: NDArray[Any]) -> Json:
        figures = self._figures()
        server_cpu = self._server_cpu_since()
        interval = self._interval(figures, end_ns=figures[0].taken_ns)
        records = self._client.listeners()
        served = (records["frames"] - before["frames"])[
            np.isin(records["state"], (ENTERING, JOINED))
        ]
        arrival = total(f.arrival for f in figures)
        return {
            "event": "measured",
            "lost": sum(f.lost for f in figures),
            **server_cpu,
            **interval,
            "frames": sum(f.frames for f in figures),
            "frames_fewest": int(served.min()) if served.size else 0,
            "frames_most": int(served.max()) if served.size else 0,
            "gaps": sum(f.gaps for f in figures),
            "missing": sum(f.missing for f in figures),
            "bytes": sum(f.bytes for f in figures),
            "reads": sum(f.reads for f in figures),
            "pings": sum(f.pings for f in figures),
            "delay_ms": quantiles(f.delay[0] for f in figures),
            "arrival_ms": quantiles([arrival]),
            "arrival_us": arrival.ranges_us(),
        }

    def _rejoined(self, before: NDArray[np.uint32]) -> Json | None:
        if (self._client.listeners()["returns"] <= before).any():
            return None
        figures = self._figures()

        def since_lost(name: str, which: Callable[[Iterable[int]], int]) -> float:
            at_ns = which(getattr(f, name) for f in figures)
            return (at_ns - lost_ns) / 1e9

        lost_ns = min(f.first_lost_ns or self._began_ns for f in figures)
        return {
            "event": "rejoined",
            "attempts": sum(f.attempts for f in figures),
            "open_s": since_lost("first_open_ns", min),
            "joined_s": since_lost("last_joined_ns", max),
            "heard_s": since_lost("last_back_ns", max),
            "silence_ms": quantiles(f.silence for f in figures),
            **self._interval(figures, end_ns=figures[0].taken_ns),
        }


def main() -> None:
    """See the module."""
    options = json.loads(sys.argv[1])
    process = Process(options)
    end = time.monotonic() + options["max_seconds"]
    commands = open(0, "rb", buffering=0)  # noqa: SIM115  nothing may wait in a buffer
    with selectors.DefaultSelector() as selector:
        selector.register(commands, selectors.EVENT_READ)
        told = b""
        while (left := end - time.monotonic()) > 0:
            if selector.select(min(LOOK_S, left) if process.waits else left):
                more = commands.read(4096)
                *lines, told = (told + more).split(b"\n")
                if not more or not all(process.command(line.decode()) for line in lines):
                    break
            if (answer := process.look()) is not None:
                print(json.dumps(answer), flush=True)
    process.close()


if __name__ == "__main__":
    main()
