"""What a process of this machine uses: processor, memory, and the kernel's memory of its sockets.

Read from /proc and from the kernel's socket diagnostics (netlink, `sock_diag(7)`). Linux.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from roomserver.clients.errors import ClientError

_SOCK_DIAG_BY_FAMILY: Final = 20
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_DONE, _ERROR = 3, 2
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_SKMEMINFO: Final = 7
_REQUEST: Final = struct.Struct("=IHHII BBBBI 48x")
_HEADER: Final = struct.Struct("=IHHII")
_STATUS: Final = struct.Struct("=i")  # of an end: 0, or an error below it
_INODE_AT: Final = 68  # in struct inet_diag_msg, of 72 bytes
_ATTRIBUTES_AT: Final = 72
_SOCKET_LINK: Final = "socket:["


@dataclass(frozen=True, slots=True)
class SocketUse:
    """TCP sockets: how many, and the bytes that the kernel holds in their queues."""

    count: int
    queued: int


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """What a process holds at one moment.

    Attributes:
        resident: Its memory that is in RAM, bytes.
        sockets: Its TCP sockets; None: the kernel does not tell, as one without `inet_diag`.
    """

    resident: int
    sockets: SocketUse | None

    @classmethod
    def take(cls, pid: int) -> Self:
        """Now.

        Raises:
            ClientError: There is no such process, or it is another user's.
        """
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            inodes = _socket_inodes(pid)
        except PermissionError as error:
            raise ClientError(
                f"process {pid} is another user's: run this as that user, or as root, to see it"
            ) from error
        except OSError as error:
            raise ClientError(f"process {pid}: {error.strerror}") from error
        sockets = None
        with contextlib.suppress(OSError):
            held = [size for inode, size in _tcp_sockets() if inode in inodes]
            sockets = SocketUse(len(held), sum(held))
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), sockets)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process since its start.

    Raises:
        ClientError: There is no such process.
    """
    try:
        # The CPU clock of another process, as clock_getcpuclockid(3) makes its number.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError as error:
        raise ClientError(f"process {pid}: {error.strerror}") from error


def _socket_inodes(pid: int) -> set[int]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(entry.readlink())
            if target.startswith(_SOCKET_LINK):
                found.add(int(target[len(_SOCKET_LINK) : -1]))
    return found


def _tcp_sockets() -> Iterator[tuple[int, int]]:
    """Inode and memory in queues of every TCP socket of this network namespace.

    Raises:
        OSError: The kernel does not tell, or not all.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diagnostics:  # NETLINK_SOCK_DIAG
        for family in _FAMILIES:
            request = _REQUEST.pack(
                *(_REQUEST.size, _SOCK_DIAG_BY_FAMILY, _DUMP, 0, 0),
                *(family, socket.IPPROTO_TCP, 1 << (_SKMEMINFO - 1), 0, 0xFFFFFFFF),
            )
            diagnostics.send(request)
            done = False
            while not done:
                data = memoryview(diagnostics.recv(1 << 18))
                while data and not done:
                    length, kind, *_ = _HEADER.unpack_from(data)
                    done = kind in (_DONE, _ERROR)
                    if done and (code := _STATUS.unpack_from(data, _HEADER.size)[0]) < 0:
                        raise OSError(-code, os.strerror(-code))
                    if kind == _SOCK_DIAG_BY_FAMILY:
                        yield _socket(data[_HEADER.size : length])
                    data = data[(length + 3) & ~3 :]


def _socket(message: memoryview) -> tuple[int, int]:
    (inode,) = struct.unpack_from("=I", message, _INODE_AT)
    attributes = message[_ATTRIBUTES_AT:]
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == _SKMEMINFO:
            # Received, its limit, in flight, its limit, set aside, to be sent, options, backlog.
            held = struct.unpack_from("=8I", attributes, 4)
            return inode, held[0] + sum(held[4:])
        attributes = attributes[max(4, (length + 3) & ~3) :]
    return inode, 0
