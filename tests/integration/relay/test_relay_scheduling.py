"""Relay threads run with real-time scheduling where that is allowed, and without it elsewhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from relaycore import Relay
from support.freeze import thread_named

# Gives CAP_SYS_NICE (23) and the limit that could stand in for it away, then says how a relay's
# thread is scheduled that asked for more.
WITHOUT_PERMISSION = """
import ctypes, os, resource, sys
sys.path[:0] = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
sets = (ctypes.c_uint32 * 6)()
assert libc.capget(header, sets) == 0
for i in range(3):
    sets[i] &= ~(1 << 23)
assert libc.capset(header, sets) == 0
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
from integration.relay.test_relay_scheduling import scheduling
print(scheduling(realtime=True)[0])
"""


def scheduling(*, realtime: bool) -> tuple[int, int]:
    """Policy and priority of a relay's thread that has done something."""
    with Relay(threads=1, realtime=realtime) as relay:
        ours, theirs = socket.socketpair()
        relay.attach(theirs, b"hello")
        with ours:
            assert ours.recv(5) == b"hello"
        thread = thread_named(os.getpid(), "relay-0")
        return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority


def may_be_realtime() -> bool:
    """Tried by a thread, because that is whom the permission is for."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            answers.append(False)
        else:
            answers.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.parametrize("wanted", [True, False])
def test_realtime_scheduling_is_asked_for_unless_refused(wanted: bool) -> None:
    allowed = wanted and may_be_realtime()
    assert scheduling(realtime=wanted) == ((os.SCHED_FIFO, 10) if allowed else (os.SCHED_OTHER, 0))


def test_without_permission_the_relay_runs_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PERMISSION, *sys.path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == str(os.SCHED_OTHER), done.stderr
