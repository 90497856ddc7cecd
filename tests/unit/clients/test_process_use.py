"""What a load test sees of the server's process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

import pytest

from roomserver.clients import process_use
from roomserver.clients.load_report import ServerReport
from roomserver.clients.process_use import ProcessSample, SocketUse, cpu_seconds
from roomserver.commands.load_tables import socket_memory

NO_FAMILY = 255  # which every kernel refuses to tell of


def test_the_sockets_of_a_process_are_counted_with_what_waits_in_them() -> None:
    before = ProcessSample.take(os.getpid())
    assert before.sockets is not None
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0],
    ):
        near.sendall(bytes(10_000))
        now = ProcessSample.take(os.getpid())
    assert now.sockets is not None
    assert now.sockets.count == before.sockets.count + 3
    assert now.sockets.queued >= before.sockets.queued + 10_000
    assert now.resident > 1 << 20


def test_the_cpu_time_of_a_process_is_that_of_all_its_threads() -> None:
    before, own = cpu_seconds(os.getpid()), time.process_time()
    after = cpu_seconds(os.getpid())
    assert before <= own <= after


def report_of(before: ProcessSample, steady: Sequence[ProcessSample]) -> ServerReport:
    return ServerReport.of(before, steady, cpu_s=0.5, seconds=2.0, frames=100)


def test_sockets_that_the_kernel_does_not_tell_of_are_unknown_and_not_none_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = ProcessSample.take(os.getpid())
    monkeypatch.setattr(process_use, "_FAMILIES", (socket.AF_INET, NO_FAMILY))
    unknown = ProcessSample.take(os.getpid())
    assert unknown.sockets is None
    assert unknown.resident > 1 << 20
    report = report_of(unknown, [unknown, unknown])
    assert (report.sockets, report.socket_bytes) == (None, None)
    assert (report.cores, report.us_per_frame) == (0.25, 5000.0)
    assert "does not tell" in socket_memory(report)
    # One look that failed spoils nothing.
    assert isinstance(known.sockets, SocketUse)
    report = report_of(known, [known, unknown])
    assert report.sockets == known.sockets.count
    assert report.socket_bytes == (known.sockets.queued, known.sockets.queued)
    assert f"{known.sockets.count:,} sockets" in socket_memory(report)
