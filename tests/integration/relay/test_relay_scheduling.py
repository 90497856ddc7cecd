"""Relay threads run with real-time scheduling where that is allowed, and without it elsewhere."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from relaycore import Relay
from support.freeze import may_be_realtime, thread_named

# Their numbers; neither Python nor every C library has the calls.
SCHED_SETATTR, SCHED_GETATTR = {"x86_64": (314, 315), "aarch64": (274, 275)}[platform.machine()]
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


@contextmanager
def relay_thread(*, realtime: bool) -> Iterator[int]:
    """The id of a relay's thread that has done something."""
    with Relay(threads=1, realtime=realtime) as relay:
        ours, theirs = socket.socketpair()
        relay.attach(theirs, b"hello")
        with ours:
            assert ours.recv(5) == b"hello"
        yield thread_named(os.getpid(), "relay-0")


def scheduling(*, realtime: bool) -> tuple[int, int]:
    """Policy and priority of a relay's thread."""
    with relay_thread(realtime=realtime) as thread:
        return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority


def attributes_of(thread: int) -> bytearray:
    """The kernel's `struct sched_attr` of a thread; 0: of the one that asks."""
    attributes = bytearray(48)
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(SCHED_GETATTR, thread, buffer, len(attributes), 0) == 0
    return attributes


def slice_ns(thread: int) -> int:
    """How long a thread runs before others have their turn; 0 where the kernel does not tell."""
    return int(struct.unpack_from("=Q", attributes_of(thread), 24)[0])


def slice_that_is_granted(wanted_ns: int) -> int:
    """Tried by a thread: a kernel before 6.12 knows one slice for all."""
    answers: list[int] = []

    def ask() -> None:
        attributes = attributes_of(0)
        struct.pack_into("=Q", attributes, 24, wanted_ns)
        buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
        assert ctypes.CDLL(None).syscall(SCHED_SETATTR, 0, buffer, 0) == 0
        answers.append(slice_ns(0))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.parametrize("wanted", [True, False])
def test_realtime_scheduling_is_asked_for_unless_refused(wanted: bool) -> None:
    allowed = wanted and may_be_realtime()
    assert scheduling(realtime=wanted) == ((os.SCHED_FIFO, 10) if allowed else (os.SCHED_OTHER, 0))


def test_a_thread_without_realtime_scheduling_has_a_short_slice() -> None:
    with relay_thread(realtime=False) as thread:
        assert slice_ns(thread) == slice_that_is_granted(100_000)


def niceness_of_relay_thread(wanted: int) -> tuple[int, int]:
    """Of a thread that asked for it, and of the thread of a relay that it started then."""
    answers: list[int] = []

    def ask() -> None:
        with suppress(PermissionError):  # then it has what it had
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), wanted)
        with relay_thread(realtime=False) as thread:
            both = (threading.get_native_id(), thread)
            answers.extend(os.getpriority(os.PRIO_PROCESS, one) for one in both)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0], answers[1]


@pytest.mark.parametrize("wanted", [-5, 7])
def test_a_thread_without_realtime_scheduling_is_as_nice_as_who_started_it(wanted: int) -> None:
    ours, relays = niceness_of_relay_thread(wanted)
    assert relays == ours
    if wanted > os.getpriority(os.PRIO_PROCESS, 0):
        assert ours == wanted


def test_without_permission_the_relay_runs_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PERMISSION, *sys.path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == str(os.SCHED_OTHER), done.stderr
