"""Icecast: everyone listens to a mount over plain HTTP, which a process of its own feeds."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.child import Child, ChildError
from benchmarks.load import Target
from benchmarks.nginx import START_TIMEOUT_S, free_port, wait_for_port
from benchmarks.peers.frames import unix_offset_us
from benchmarks.workload import Workload

MOUNT: Final = "/live"
PASSWORD: Final = "benchmark"
JOINS_PER_S: Final = 200
"""Its queue of connections is 5 long: of a crowd the kernel lets most try again after a second."""
# The queue holds 20 s of 48 kHz stereo: who lags is to be measured, not put out. Lines of the
# access log are written when listeners leave.
CONFIG: Final = """
<icecast>
    <limits>
        <clients>19000</clients>
        <sources>1</sources>
        <queue-size>4194304</queue-size>
        <burst-size>0</burst-size>
    </limits>
    <authentication>
        <source-password>{password}</source-password>
        <admin-password>{password}</admin-password>
    </authentication>
    <hostname>127.0.0.1</hostname>
    <listen-socket>
        <port>{port}</port>
        <bind-address>127.0.0.1</bind-address>
    </listen-socket>
    <fileserve>0</fileserve>
    <paths>
        <logdir>{directory}</logdir>
        <webroot>{directory}</webroot>
        <adminroot>{directory}</adminroot>
    </paths>
    <logging>
        <accesslog>-</accesslog>
        <errorlog>-</errorlog>
        <loglevel>1</loglevel>
    </logging>
    <security>{owner}</security>
</icecast>
"""
# It does not run as root.
OWNER: Final = "<changeowner><user>nobody</user><group>nogroup</group></changeowner>"


def program() -> str:
    """Where Icecast is. Raises FileNotFoundError."""
    found = shutil.which("icecast2") or shutil.which("icecast")
    if found is None:
        raise FileNotFoundError("there is no Icecast here (Debian's package icecast2)")
    return found


@contextmanager
def subject(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """Icecast; the publisher's CPU time is not counted."""
    port = free_port()
    publisher: list[str | Path] = [sys.executable, "-m", "benchmarks.peers.publisher"]
    publisher += ["--port", str(port), "--path", MOUNT, "--password", PASSWORD]
    publisher += ["--message", str(workload.message_bytes)]
    publisher += ["--tick-us", str(workload.frame_ms * 1000), "--max-seconds", str(max_seconds)]
    with (
        tempfile.TemporaryDirectory(prefix="bench-icecast-") as directory,
        icecast(Path(directory), port) as server,
        Child(publisher) as source,
    ):
        source.expect("publishing", START_TIMEOUT_S)
        wait_for_mount(port)
        yield Target(
            server.pid,
            port,
            clock_offset_us=unix_offset_us(),
            bare=True,
            stream=MOUNT,
            joins_per_s=JOINS_PER_S,
        )


@contextmanager
def icecast(directory: Path, port: int) -> Iterator[Child]:
    """Runs it with a configuration in this directory."""
    conf = directory / "icecast.xml"
    owner = OWNER if os.geteuid() == 0 else ""
    conf.write_text(CONFIG.format(directory=directory, port=port, password=PASSWORD, owner=owner))
    with Child([program(), "-c", conf]) as child:
        wait_for_port(child, port)
        try:
            yield child
        finally:
            child.terminate()


def wait_for_mount(port: int) -> None:
    """Returns when listeners are let in: a moment after the source is. Raises ChildError."""
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{MOUNT}", timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ChildError(f"Icecast has no {MOUNT}: {error}") from error
            time.sleep(0.05)
