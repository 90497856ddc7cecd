"""nchan in nginx: everyone subscribes to a channel, and a process of its own posts the frames."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import nginx
from benchmarks.child import Child
from benchmarks.load import Target
from benchmarks.peers.frames import unix_offset_us
from benchmarks.workload import Workload

MODULE: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
HTTP: Final = """
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location /publish {{
            nchan_publisher http;
            nchan_channel_id frames;
            nchan_message_buffer_length 1;
        }}
        location / {{
            nchan_subscriber websocket;
            nchan_channel_id frames;
            nchan_subscriber_first_message newest;
        }}
    }}
"""


@contextmanager
def subject(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """nginx with nchan, one process; the publisher's CPU time is not counted."""
    if not MODULE.exists():
        raise FileNotFoundError(f"there is no {MODULE} (Debian's package libnginx-mod-nchan)")
    port = nginx.free_port()
    publisher: list[str | Path] = [sys.executable, "-m", "benchmarks.peers.publisher"]
    publisher += ["--port", str(port), "--path", "/publish"]
    publisher += ["--message", str(workload.message_bytes)]
    publisher += ["--tick-us", str(workload.frame_ms * 1000), "--max-seconds", str(max_seconds)]
    with (
        tempfile.TemporaryDirectory(prefix="bench-nchan-") as directory,
        nginx.nginx(
            Path(directory), HTTP.format(port=port), port, f"load_module {MODULE};"
        ) as server,
        Child(publisher) as source,
    ):
        source.expect("publishing", nginx.START_TIMEOUT_S)
        yield Target(server.pid, port, clock_offset_us=unix_offset_us(), bare=True)
