"""What is measured: each subject is started as one process, with one stream running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import natives
from benchmarks.child import Child
from benchmarks.load import Target
from benchmarks.source import tls_context
from benchmarks.workload import SOURCE_PATH, Workload

START_TIMEOUT_S = 120.0
EMAIL = "benchmark@example.org"
PASSWORD = "correct horse battery"
TORTURED: Final = "benchmarks.tortured_server"
"""The module whose `serve` is a roomserver that can be tortured."""
COUNTED: Final = "benchmarks.counted_server"
"""The module whose `serve` is a roomserver that tells figures."""

Subject = Callable[[Workload, int], AbstractContextManager[Target]]
"""Starts the subject for a workload, for at most so many seconds; leaving the block ends it."""


def floor(workload: Workload, max_seconds: int) -> AbstractContextManager[Target]:
    """A C loop that sends the same bytes to every connection, and does nothing else."""
    return send_floor(workload, max_seconds)


@contextmanager
def send_floor(
    workload: Workload, max_seconds: int, *, certificate: tuple[Path, Path] | None = None
) -> Iterator[Target]:
    """The loop, plain, or with TLS when it is given a certificate chain and its key."""
    tls = certificate is not None
    command: list[str | Path] = [
        natives.build("send_floor", tls=tls),
        *("--listeners", str(workload.listeners)),
        *("--message", str(workload.message_bytes)),
        *("--tick-us", str(workload.frame_ms * 1000)),
        *("--max-seconds", str(max_seconds)),
    ]
    if certificate is not None:
        command += ["--certificate", certificate[0], "--key", certificate[1]]
    with Child(command) as child:
        said = child.expect("listening", START_TIMEOUT_S)
        offset = said["clock_offset_us"]
        yield Target(child.pid, said["port"], clock_offset_us=offset, tls=tls)


@contextmanager
def group_floor(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """A C loop that sends each of the listeners there are all that it has not had."""
    command: list[str | Path] = [
        natives.build("group_floor"),
        *("--message", str(workload.message_bytes)),
        *("--tick-us", str(workload.frame_ms * 1000)),
        *("--max-seconds", str(max_seconds)),
    ]
    with Child(command) as child:
        said = child.expect("listening", START_TIMEOUT_S)
        yield Target(child.pid, said["port"], clock_offset_us=said["clock_offset_us"])


@contextmanager
def relay(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """`relaycore.Relay` with one thread in a small Python process."""
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.bare_relay"]
    command += ["--buffer-ms", str(workload.buffer_ms)]
    command += stream_options(workload, max_seconds)
    with Child(command) as child, ExitStack() as stack:
        said = child.expect("listening", START_TIMEOUT_S)
        port = said["port"]
        stack.enter_context(_source(workload, max_seconds, port, SOURCE_PATH, ""))
        yield Target(child.pid, port, clock_offset_us=said["clock_offset_us"])


@contextmanager
def server(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """`roomserver serve` with one relay thread and a database of its own, as it is installed."""
    with running_server(workload, max_seconds, database="embedded") as running:
        yield running.target


@contextmanager
def server_of_two(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """The same with two relay threads."""
    options = ["--threads", "2"]
    with running_server(workload, max_seconds, database="embedded", options=options) as running:
        yield running.target


@contextmanager
def server_without_realtime(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """The same without SCHED_FIFO, which no peer has."""
    options = ["--no-realtime"]
    with running_server(workload, max_seconds, database="embedded", options=options) as running:
        yield running.target


@dataclass(slots=True)
class RunningServer:
    """A roomserver with a room: its process, and how it is reached.

    `room` is its room, as it was answered when it was made, `access` the token of its owner.
    """

    child: Child
    target: Target
    url: str
    access: str
    room: Mapping[str, Any]
    data_dir: Path
    start: Callable[[int], Child]

    def restart(self) -> None:
        """Ends the process, as SIGTERM does, and starts it again at the same port."""
        self.end()
        self.begin()

    def begin(self) -> None:
        """Starts it again, when it has ended."""
        self.child = self.start(self.target.port)
        self.child.expect("listening", START_TIMEOUT_S)
        self.target = replace(self.target, pid=self.child.pid)

    def end(self) -> None:
        """Raises RuntimeError when it does not end cleanly."""
        code = self.child.terminate()
        self.child.close()
        if code:
            raise RuntimeError(f"the server ended with exit code {code}")


Front = Callable[[str], AbstractContextManager[tuple[str, Sequence[int]]]]
"""Starts what stands in front of a server, given that one's address: its own, and processes."""


@contextmanager
def running_server(
    workload: Workload,
    max_seconds: int,
    *,
    module: str = "roomserver",
    options: Sequence[str] = (),
    database: str = "none",
    with_source: bool = True,
    front: Front | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """`python -m MODULE serve` with one relay thread and `options`; it must end cleanly.

    It keeps its rooms in memory, so that nothing else uses the machine.

    The stream comes from a process of its own, or not at all without `with_source`. Source and
    listeners come through `front`, if there is one.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ROOMSERVER_") and k != "PORT"}
    clean |= {"ROOMSERVER_DATABASE_URL": database, **(env or {})}
    with tempfile.TemporaryDirectory(prefix="bench-") as data_dir, ExitStack() as stack:
        common = ["--data-dir", data_dir]
        usual = ["--threads", "1", "--bcrypt-rounds", "4", "--log-format", "json"]
        for limit in ("create", "join-success"):  # all come from one account and one address
            usual += [f"--{limit}-limit", "1000000 per minute"]
        usual += ["--max-connections-per-participant", "0"]  # thousands listen with one token

        def start(port: int) -> Child:
            command = [*_python(module, "serve"), "--port", str(port), *usual, *common, *options]
            return Child(command, env=clean, events_on_stderr=True)

        child = start(0)
        running: RunningServer | None = None
        # Whichever process it is by then.
        stack.callback(lambda: (running.child if running is not None else child).close())
        url = child.expect("listening", START_TIMEOUT_S)["urls"][0]
        subprocess.run(
            [*_python("roomserver", "user", "add", EMAIL, "--password-stdin"), *common],
            input=PASSWORD + "\n",
            env=clean | {"ROOMSERVER_BCRYPT_ROUNDS": "4"},
            text=True,
            check=True,
            capture_output=True,
            timeout=START_TIMEOUT_S,
        )
        pids: Sequence[int] = ()
        if front is not None:
            url, pids = stack.enter_context(front(url))
        port = int(url.rsplit(":", 1)[1].rstrip("/"))
        access = log_in(url)
        room = make_room(url, access)
        heard = post(url, "/auth/room/join", {"roomCode": room["roomCode"], "password": PASSWORD})
        tls = url.startswith("https:")
        target = Target(
            child.pid,
            port,
            registers=[listener_register(room, heard["roomToken"], workload)],
            ask=json.dumps({"roomCode": room["roomCode"], "password": PASSWORD}),
            tls=tls,
            more_pids=pids,
        )
        running = RunningServer(child, target, url, access, room, Path(data_dir), start)
        if with_source:
            again = True  # the server may be started again
            text = source_register(room, workload)
            stack.enter_context(
                _source(workload, max_seconds, port, "/ws", text, tls=tls, again=again)
            )
        yield running
        running.end()


SUBJECTS: Final[Mapping[str, Subject]] = {
    "floor": floor,
    "relay": relay,
    "server": server,
    "server-2": server_of_two,
    "server-no-realtime": server_without_realtime,
}


def _python(module: str, *arguments: str) -> list[str | Path]:
    return [sys.executable, "-m", module, *arguments]


def stream_options(workload: Workload, max_seconds: int) -> list[str | Path]:
    """What source and bare relay are told of the stream on their command lines."""
    return [
        *("--channels", str(workload.channels)),
        *("--sample-rate", str(workload.sample_rate)),
        *("--encoding", workload.encoding),
        *("--frame-ms", str(workload.frame_ms)),
        *("--max-seconds", str(max_seconds)),
    ]


@contextmanager
def _source(
    workload: Workload,
    max_seconds: int,
    port: int,
    path: str,
    register: str,
    *,
    tls: bool = False,
    again: bool = False,
) -> Iterator[None]:
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.source"]
    command += ["--tls"] if tls else []
    command += ["--again"] if again else []
    command += ["--port", str(port), "--path", path, "--register", register]
    command += stream_options(workload, max_seconds)
    with Child(command) as child:
        child.expect("registered", START_TIMEOUT_S)
        yield


def log_in(url: str) -> str:
    """The access token of the account that every server here has."""
    return str(
        post(url, "/auth/broadcaster", {"email": EMAIL, "password": PASSWORD})["accessToken"]
    )


def make_room(url: str, access: str) -> dict[str, Any]:
    """A new room, as it is answered."""
    wish = {"password": PASSWORD, "name": "Benchmark"}
    return post(url, "/auth/room/create", wish, {"Authorization": f"Bearer {access}"})


def source_register(room: Mapping[str, Any], workload: Workload) -> str:
    """The register text of a room's source."""
    return json.dumps(
        {
            "type": "registerSource",
            "roomId": room["roomId"],
            "roomToken": room["roomToken"],
            "channels": workload.channels,
            "sampleRate": workload.sample_rate,
            "encoding": workload.encoding,
            "frameMs": workload.frame_ms,
            "bufferMs": workload.buffer_ms,
        }
    )


def listener_register(room: Mapping[str, Any], token: str, workload: Workload) -> str:
    """The register text of a listener with this token."""
    return json.dumps(
        {
            "type": "registerListener",
            "roomId": room["roomId"],
            "roomToken": token,
            "encoding": workload.encoding,
            "intervalMs": workload.interval_ms,
        }
    )


def post(
    url: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON answer to a POST. Raises urllib's errors."""
    request = urllib.request.Request(
        url.rstrip("/") + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
    )
    context = tls_context() if url.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=START_TIMEOUT_S, context=context) as answer:
        value = json.load(answer)
    assert isinstance(value, dict)
    return value
