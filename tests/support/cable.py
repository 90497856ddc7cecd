"""A cable that a test can cut: between this machine and a network namespace."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

NEEDS = (
    "the test makes a network namespace, for which it needs Linux, the command ip (Debian's "
    "package iproute2), CAP_NET_ADMIN and CAP_SYS_ADMIN: run it as root or as one who may use sudo "
    "without a password; in a container, one that has them (docker run --privileged)"
)

CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    socket.send_fds(socket.socket(fileno=0), [b"."], [connection.fileno()])
"""


class CableError(Exception):
    """The machine does not let us make a network namespace; the message says what it takes."""


class Cable:
    """A network namespace whose only way out leads to this machine. A context manager.

    Attributes:
        host: This machine's address, as seen from the other end.
        prefix: What to put before a command so that it runs at the other end.
    """

    def __init__(self) -> None:
        chance = random.SystemRandom()
        # A network of four addresses out of those that are set aside for tests (RFC 2544).
        base = (198 << 24) + (18 << 16) + 4 * chance.randrange(1 << 15)
        self.host, self._far = _dotted(base + 1), _dotted(base + 2)
        self._name = f"cable-{base & 0x1FFFF:05x}"
        self._macs = tuple(
            f"02:00:00:{n:02x}:{base >> 8 & 255:02x}:{base & 255:02x}" for n in (1, 2)
        )
        self._nobody = "02:00:00:03:00:00"
        needs_sudo = os.geteuid() != 0 and shutil.which("sudo") is not None
        self._root = ["sudo", "-n", "-E"] if needs_sudo else []
        self.prefix = [*self._root, "ip", "netns", "exec", self._name]

    def cut(self) -> None:
        """From now on every packet is lost on its way, in both directions, and nobody is told."""
        self._address(self._nobody, self._nobody)

    def join(self) -> None:
        """Packets arrive again."""
        self._address(*self._macs)

    def connect(self, port: int) -> socket.socket:
        """A connection that was made at the other end, to a port of this machine."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            done = subprocess.run(
                [*self.prefix, sys.executable, "-c", CONNECT, self.host, str(port)],
                stdin=theirs.fileno(), capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
            if done.returncode != 0:
                raise CableError(f"no connection from the other end: {done.stderr}")
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=descriptors[0])

    def __enter__(self) -> Self:
        try:
            here, there = self._macs
            self._ip("netns", "add", self._name)
            self._ip(
                "link", "add", self._name, "address", here, "type", "veth",
                "peer", "name", "eth0", "address", there, "netns", self._name,
            )  # fmt: skip
            self._ip("address", "add", f"{self.host}/30", "dev", self._name)
            self._ip("link", "set", self._name, "up")
            self._ip("-n", self._name, "address", "add", f"{self._far}/30", "dev", "eth0")
            self._ip("-n", self._name, "link", "set", "eth0", "up")
            self.join()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def _address(self, here: str, there: str) -> None:
        """Sets which hardware each end sends to. What goes to nobody's is dropped by the other."""
        self._ip("neighbour", "replace", self._far, "lladdr", there, "dev", self._name,
                 "nud", "permanent")  # fmt: skip
        self._ip("-n", self._name, "neighbour", "replace", self.host, "lladdr", here,
                 "dev", "eth0", "nud", "permanent")  # fmt: skip

    def _remove(self) -> None:
        """Takes everything away, and who still runs at the other end with it."""
        if shutil.which("ip") is None:
            return
        # Not every piece exists when making them has failed.
        running = self._run("ip", "netns", "pids", self._name)
        if pids := running.stdout.split():
            self._run("kill", "-KILL", *pids)
        self._run("ip", "link", "delete", self._name)
        self._run("ip", "netns", "delete", self._name)

    def _ip(self, *arguments: str) -> None:
        if shutil.which("ip") is None:
            raise CableError(f"there is no command ip here: {NEEDS}")
        done = self._run("ip", *arguments)
        if done.returncode != 0:
            raise CableError(f"ip {' '.join(arguments)}: {done.stderr.strip()}\n{NEEDS}")

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._root, *command], capture_output=True, text=True, check=False, timeout=30
        )


def _dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
