"""A command of the project as people run it: a process of its own, whose words a test waits on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence

from support.live import ROOM_PASSWORD
from support.server import PASSWORD, command, environment

SECRETS = {"ROOMSERVER_ACCOUNT_PASSWORD": PASSWORD, "ROOMSERVER_PASSWORD": ROOM_PASSWORD}


class Command:
    """A running command, leader of a process group of its own.

    Args:
        url: The server.
        arguments: As after `roomserver`.
        stdin, stdout: As `subprocess.Popen` takes them.
        env: Variables in place of those that give the passwords.
        prefix: What runs it, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        url: str,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        variables = {"ROOMSERVER_URL": url, **(SECRETS if env is None else env)}
        self.process = subprocess.Popen(
            [*prefix, *command(*arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment(**variables),
            start_new_session=True,
        )
        self.said = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Waits until standard error matches."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.said)

        with self._changed:
            self._changed.wait_for(lambda: found() or not self._reader.is_alive(), 30)
        match = found()
        assert match is not None, f"no {pattern!r} in:\n{self.said}"
        return match

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Waits for the end; the exit code."""
        code = self.process.wait(30)
        self._reader.join(5)
        assert "Traceback" not in self.said, self.said
        assert "ResourceWarning" not in self.said, self.said
        return code

    def signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to the command and all it has started."""
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Kills the command if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        while data := os.read(self.process.stderr.fileno(), 65536):
            with self._changed:
                self.said += data.decode()
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
