"""nginx before a server, configured as docs/operations.md says."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0

# All that the documentation leaves to nginx's main configuration.
FRAME = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log warn;
worker_rlimit_nofile {descriptors};
events {{ worker_connections {descriptors}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{documented}
}}
"""


def documented(unix_socket: Path, port: int) -> str:
    """What the documentation shows, with this server's socket, without TLS, on a port of ours."""
    (block,) = re.findall(
        r"^```nginx\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL
    )
    for shown, ours in (
        (r"unix:[^;]+;", f"unix:{unix_socket};"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        (r"ssl_certificate +[^;]+;", ""),
        (r"ssl_certificate_key +[^;]+;", ""),
    ):
        block, count = re.subn(shown, ours, block)
        assert count == 1, f"the documented configuration has {count} times {shown}"
    return str(block)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Waits until somebody listens there."""
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "nginx did not start"
        assert time.monotonic() < end, "nginx does not listen"
        time.sleep(0.02)


@contextmanager
def nginx(directory: Path, unix_socket: Path, *, connections: int) -> Iterator[tuple[int, int]]:
    """Hands connections over to the server on the Unix socket; its port on 127.0.0.1
    and its process's id.

    What it has to say (warnings, errors) fails the test that leaves the block.
    """
    program = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
    assert program is not None, "nginx is not installed: apt-get install nginx"
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    configuration = directory / "nginx.conf"
    configuration.write_text(
        FRAME.format(
            directory=directory,
            descriptors=2 * connections + 100,
            documented=documented(unix_socket, port),
        )
    )
    log = directory / "nginx.log"
    process = subprocess.Popen([program, "-p", directory, "-c", configuration, "-e", log])
    try:
        wait_for_port(port, process)
        yield port, process.pid
        assert process.poll() is None, "nginx has ended"
        assert log.read_text() == ""
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
