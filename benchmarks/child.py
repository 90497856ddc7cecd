"""A process that speaks with the harness in lines: commands to it, JSON objects from it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


class ChildError(Exception):
    """A process ended or kept silent when something was expected of it; says what it printed."""


class ChildTimeoutError(ChildError):
    """It kept silent for too long, and had not ended."""


class Child:
    """Starts `command`; leaving the block ends it, if need be the hard way.

    JSON lines are read from standard output, or from standard error with `events_on_stderr`; what
    the other stream says is kept for error messages.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        events_on_stderr: bool = False,
    ) -> None:
        self._name = Path(command[0]).name
        self._other = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=self._other if events_on_stderr else subprocess.PIPE,
            stderr=subprocess.PIPE if events_on_stderr else self._other,
            text=True,
            cwd=ROOT,
            env=dict(os.environ if env is None else env),
        )
        events = self._process.stderr if events_on_stderr else self._process.stdout
        assert events is not None
        self._events = events
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._next: dict[str, Any] | None = None  # that was looked at, and not taken
        self._plain: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Sends one line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(self._story("ended early")) from None

    def expect(self, event: str, timeout: float) -> dict[str, Any]:
        """The next object whose `event` is this one; others are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line, self._next = self._next, None
                line = line or self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                what = f"did not say {event!r} in {timeout:g} s"
                raise ChildTimeoutError(self._story(what)) from None
            if line is None:
                self._lines.put(None)
                raise ChildError(self._story(f"ended without saying {event!r}"))
            if line.get("event") == event:
                return line

    def has(self, event: str) -> bool:
        """Whether the next object is here, and its `event` is this one."""
        if self._next is None and not self._lines.empty():
            self._next = self._lines.get()
        return self._next is not None and self._next.get("event") == event

    def close(self) -> None:
        """End of input, then SIGTERM, then SIGKILL, each with time to obey."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, which is what is wanted
            self._process.stdin.close()
        for insist in (self._process.terminate, self._process.kill, None):
            try:
                self._process.wait(5)
                break
            except subprocess.TimeoutExpired:
                if insist is None:
                    raise
                insist()
        self._reader.join(5)
        self._events.close()
        self._other.close()

    def terminate(self) -> int:
        """SIGTERM; waits for the end and returns the exit code."""
        self._process.terminate()
        return self._process.wait(20)

    def _read(self) -> None:
        for line in self._events:
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                self._lines.put(value)
            else:
                self._plain.append(line)
        self._lines.put(None)

    def _story(self, what: str) -> str:
        self._other.seek(0)
        said = (self._other.read() + "".join(self._plain))[-4000:].strip()
        return f"{self._name} {what}" + (f"; it said:\n{said}" if said else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
