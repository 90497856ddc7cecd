"""Threads of a process by name, what they may and use, and one stopped while the others go on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# <sys/ptrace.h>, <sys/wait.h>
_PTRACE_DETACH = 17
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def thread_names(pid: int | str = "self") -> dict[str, int]:
    """The threads of a process: their ids by their names."""
    names = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            names[(task / "comm").read_text().strip()] = int(task.name)
    return names


def thread_named(pid: int, name: str) -> int:
    """The id of a process's thread."""
    return thread_names(pid)[name]


def cpu_s(thread: int) -> float:
    """The CPU time that a thread has used, in steps of some milliseconds."""
    fields = Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def may_be_realtime() -> bool:
    """Tried by a thread, because that is whom the permission is for."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        except PermissionError:
            answers.append(False)
        else:
            answers.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


@contextlib.contextmanager
def frozen(thread: int) -> Iterator[None]:
    """A thread of a child process stands still inside the block, which may not await.

    A signal would stop its whole process. Raises OSError where tracing children is not allowed.
    """
    _ptrace(_PTRACE_SEIZE, thread)
    try:
        _ptrace(_PTRACE_INTERRUPT, thread)
        os.waitpid(thread, _WALL)
        yield
    finally:
        _ptrace(_PTRACE_DETACH, thread)


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace of thread {thread}: {os.strerror(number)}")
