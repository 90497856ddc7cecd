"""nginx with one process, started for a benchmark."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.child import Child

START_TIMEOUT_S: Final = 20.0
FRAME: Final = """
{modules}
daemon off;
master_process off;
{user}
pid {directory}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{http}
}}
"""


def program() -> str:
    """Where nginx is. Raises FileNotFoundError."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError("there is no nginx here (Debian's package nginx)")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert isinstance(port, int)
    return port


@contextmanager
def nginx(directory: Path, http: str, port: int, modules: str = "") -> Iterator[Child]:
    """Runs it with this in its `http` block, where it is to listen at `port`."""
    conf = directory / "nginx.conf"
    # As root it would go on as somebody who may not use what is in the directory.
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(FRAME.format(directory=directory, http=http, user=user, modules=modules))
    with Child([program(), "-p", directory, "-c", conf], events_on_stderr=True) as child:
        wait_for_port(child, port)
        try:
            yield child
        finally:
            child.terminate()


def wait_for_port(child: Child, port: int) -> None:
    """Returns when a process listens. Raises ChildError, with what it said."""
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                child.expect("listening", 0)
            time.sleep(0.05)
