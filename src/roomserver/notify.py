"""What the service manager is told: that the server is ready, that it lives, that it ends.

This is systemd's sd_notify: datagrams to the Unix socket that $NOTIFY_SOCKET names. The sign of
life comes from the event loop, and so fails to come when that hangs.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog

log = structlog.stdlib.get_logger("roomserver")


@contextmanager
def told_to_service_manager(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """The server is ready within, and stops after it; nothing is told where nobody asked.

    For an event loop, which tells that it lives twice in the time that the manager gives it.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        yield
        return
    loop = asyncio.get_running_loop()
    interval_s = _watchdog_s(environment) / 2
    timer: asyncio.TimerHandle | None = None

    def live() -> None:
        nonlocal timer
        _tell(address, "WATCHDOG=1")
        timer = loop.call_later(interval_s, live)

    _tell(address, "READY=1")
    if interval_s:
        live()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        _tell(address, "STOPPING=1")


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """In which time this process has to tell that it lives; 0: it need not."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0


def _tell(address: str, state: str) -> None:
    path = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.connect(path)
            manager.send(state.encode())
    except OSError as error:
        log.warning("service_manager_not_told", state=state, reason=str(error))
