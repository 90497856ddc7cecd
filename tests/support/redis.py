"""A Redis to test with, which a test may stop and start again."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 30.0


@dataclass
class Redis:
    """Of one Unix socket, with nothing kept on disk."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """As a server is told of it."""
        return f"redis+unix://{self.socket}"

    def start(self) -> None:
        """Returns when it listens."""
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed: apt-get install redis-server"
        self.process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", "."],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            assert self.process.poll() is None
            assert time.monotonic() < end, "redis-server does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """All that it knew is lost."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(START_TIMEOUT_S)
            self.process = None

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(self.socket))
            return True
        return False


@contextmanager
def redis() -> Iterator[Redis]:
    """One that runs."""
    with tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp") as name:
        server = Redis(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()
