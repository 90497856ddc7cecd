"""What the kernel says of sockets: `ss` of iproute2."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Memory that a socket holds: what came and was not read, what was written and not taken, what is
# set aside, options, backlog. Of a Unix socket what the peer did not read counts as in flight (t).
SKMEM = re.compile(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+)")
IN_USE = ("ESTAB", "CLOSE-WAIT", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK")


@dataclass(frozen=True)
class Socket:
    """One end of a connection, or what is left of it."""

    state: str
    unread: int  # bytes that came and nobody read
    unsent: int  # bytes that the other side has not taken
    peer_port: int  # 0 of a Unix socket
    memory: int  # bytes of the kernel's


def sockets_at(address: int | Path) -> list[Socket]:
    """The connections of whoever listens on a TCP port or a Unix socket: its own ends."""
    assert shutil.which("ss") is not None, "ss is not installed: apt-get install iproute2"
    is_unix = isinstance(address, Path)
    what = ["-x", "src", str(address)] if is_unix else ["-t", "sport", "=", f":{address}"]
    command = ["ss", "-a", "-m", "-n", "-H", "-O", *what]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    found = []
    for line in said.splitlines():
        fields = line.split()
        state, unread, unsent = fields[1 if is_unix else 0 :][:3]
        if state not in IN_USE:
            continue
        held = SKMEM.search(line)
        assert held is not None, line
        received, in_flight, *rest = map(int, held.groups())
        memory = received + sum(rest) + (in_flight if is_unix else 0)
        port = 0 if is_unix else int(fields[4].rsplit(":", 1)[1])
        found.append(Socket(state, int(unread), int(unsent), port, memory))
    return found
