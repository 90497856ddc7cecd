"""A real server in a process of its own, on a free port, whose log the test can read.

    with ServerProcess.start(tmp_path) as server:
        requests.get(server.url + "/health")

Leaving the block stops it with SIGTERM and fails the test when it did not end cleanly: exit code
other than 0, an error in the log, a traceback or a ResourceWarning on standard error.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bcrypt

from roomserver.store.accounts import AccountFile
from support.postgres import put_new_cluster

PASSWORD = "correct horse battery"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
BAD_WORDS = ("Traceback (most recent call last)", "ResourceWarning", "was never retrieved")


def environment(**extra: str) -> dict[str, str]:
    """The environment without anything that would change a server's settings.

    Servers and commands have no database unless told, which is quicker to start.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ROOMSERVER_") and k != "PORT"}
    return clean | {"PYTHONUNBUFFERED": "1", "ROOMSERVER_DATABASE_URL": "none"} | extra


def command(*arguments: str) -> list[str]:
    """The `roomserver` command of this interpreter, with resource warnings shown."""
    return [sys.executable, "-W", "always::ResourceWarning", "-m", "roomserver", *arguments]


@dataclass
class ServerProcess:
    """Made by `start`; `url` is where it listens, `events` are its log lines so far."""

    process: subprocess.Popen[str]
    data_dir: Path
    settings: dict[str, str]  # of its environment
    url: str = ""
    admin_url: str | None = None  # with `--admin-port`
    events: list[dict[str, Any]] = field(default_factory=list)
    other_output: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _reader: threading.Thread | None = None
    _stopping: bool = False
    _said_all: bool = False

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *options: str,
        env: Mapping[str, str] | None = None,
        bcrypt_rounds: int = 4,
        from_nothing: bool = False,
        wait: bool = True,
    ) -> Self:
        """Starts `roomserver serve` with `options` and waits until it listens, if it is to.

        Without a database, unless `options` or `env` say otherwise. For a private one it finds a
        cluster that is new; it makes that itself `from_nothing`. Not waited for it has no `url`.
        """
        variables = environment(**(env or {}))
        if "--database-url" in options:
            variables["ROOMSERVER_DATABASE_URL"] = options[options.index("--database-url") + 1]
        if variables["ROOMSERVER_DATABASE_URL"] == "embedded" and not from_nothing:
            put_new_cluster(data_dir)
        process = subprocess.Popen(
            command(
                "serve",
                "--port",
                "0",
                "--data-dir",
                str(data_dir),
                "--log-format",
                "json",
                "--bcrypt-rounds",
                str(bcrypt_rounds),
                # A test that is about limits says so: all come from one address.
                *("--create-limit", "1000000 per hour"),
                *("--login-address-limit", "1000000 per hour"),
                *("--join-address-limit", "1000000 per hour"),
                *("--max-connections-per-participant", "0"),
                *options,
            ),
            stderr=subprocess.PIPE,
            text=True,
            env=variables,
        )
        server = cls(process, data_dir, variables)
        server._reader = threading.Thread(target=server._read, daemon=True)
        server._reader.start()
        if wait:
            server._wait_until_listening()
        return server

    def _wait_until_listening(self) -> None:
        try:
            listening = self.wait_for_event("listening", timeout=START_TIMEOUT_S)
        except BaseException:
            self.process.kill()
            self.stop()
            raise
        self.url = listening["urls"][0]
        self.admin_url = next(iter(listening["admin_urls"]), None)

    @property
    def ws_url(self) -> str:
        """The WebSocket address."""
        return "ws" + self.url.removeprefix("http") + "/ws"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def add_user(
        self,
        email: str = "engineer@example.org",
        password: str = PASSWORD,
        *,
        admin: bool = False,
    ) -> str:
        """Adds an account, as `roomserver user add` does, while the server runs."""
        if self.settings["ROOMSERVER_DATABASE_URL"] == "none":
            hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))
            with AccountFile(self.data_dir) as accounts:
                accounts.add_account(email, hashed, "admin" if admin else "user")
        else:
            flags = ["--admin"] if admin else []
            self.user("add", email, *flags, "--password-stdin", password=password)
        return email

    def user(self, *arguments: str, password: str = PASSWORD) -> str:
        """`roomserver user`, as an operator does it while the server runs; what it prints."""
        done = subprocess.run(
            command("user", *arguments, "--data-dir", str(self.data_dir)),
            input=password + "\n",
            text=True,
            env=self.settings | {"ROOMSERVER_BCRYPT_ROUNDS": "4"},
            timeout=START_TIMEOUT_S,
            check=True,
            stdout=subprocess.PIPE,
        )
        return done.stdout

    def wait_for_event(
        self,
        name: str,
        *,
        timeout: float = START_TIMEOUT_S,
        where: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """The first log line called `name` for which `where` holds, waiting for it."""

        def found() -> dict[str, Any] | None:
            return next((e for e in self.events if e.get("event") == name and where(e)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._said_all, timeout)
            event = found()
        if event is None:
            raise AssertionError(f"no log line {name!r}; the server said:\n{self.output()}")
        return event

    def output(self) -> str:
        """All that the server wrote on standard error."""
        return "\n".join([*(json.dumps(e) for e in self.events), *self.other_output])

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the server."""
        self._stopping |= number is signal.SIGTERM
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, unless it was sent already, then waits for the end; returns the exit code."""
        if self.process.poll() is None and not self._stopping:
            self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end:\n{self.output()}") from None
        finally:
            if self._reader is not None:
                self._reader.join(5)
            if self.process.stderr is not None:
                self.process.stderr.close()
        return code

    def check(self) -> None:
        """Fails when the server logged an error or left something behind."""
        errors = [e for e in self.events if e.get("level") in ("error", "critical")]
        bad = [line for line in self.other_output if any(word in line for word in BAD_WORDS)]
        assert not errors, errors
        assert not bad, self.output()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            with self._changed:
                if isinstance(event, dict):
                    self.events.append(event)
                else:
                    self.other_output.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._said_all = True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = self.stop()
        if kind is None:
            assert code == 0, self.output()
            self.check()
