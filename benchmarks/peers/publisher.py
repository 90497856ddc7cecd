"""`python -m benchmarks.peers.publisher ...`: sends each frame to a server when it is due.

To nchan as a request of its own, which is answered. To Icecast (with a password) all of them as the
body of one request, each as the WebSocket message that it would be: the bytes are those of others.
"""

from __future__ import annotations

import argparse
import base64
import json
import select
import socket
import sys
import time

from benchmarks.peers.frames import Schedule, binary_header

PATIENCE_S = 15.0


def head(method: str, path: str, *fields: str) -> bytes:
    """Of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *fields, "", "")).encode()


def take_answer(connection: socket.socket) -> None:
    """Raises SystemExit unless it says that all is well."""
    answer = connection.recv(65536)
    if not answer.startswith((b"HTTP/1.0 20", b"HTTP/1.1 20")):
        raise SystemExit(f"refused: {answer[:200]!r}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Publisher of a benchmark.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--password", help="of a source of Icecast, which gets a stream")
    Schedule.add_to(parser)
    options = parser.parse_args()
    is_stream = options.password is not None
    if is_stream:
        before = binary_header(options.message)
    else:
        type_ = "Content-Type: application/octet-stream"
        before = head("POST", options.path, type_, f"Content-Length: {options.message}")
    schedule = Schedule(options.message, options.tick_us, options.max_seconds)
    with socket.create_connection(("127.0.0.1", options.port), PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if is_stream:
            who = base64.b64encode(f"source:{options.password}".encode()).decode()
            fields = (f"Authorization: Basic {who}", "Content-Type: audio/L16")
            connection.sendall(head("PUT", options.path, *fields))
            take_answer(connection)
        for number, (deadline, message) in enumerate(schedule.messages()):
            wait = max(0.0, deadline - time.monotonic())
            if select.select([sys.stdin], [], [], wait)[0]:
                return
            connection.sendall(before + message)
            if not is_stream:
                take_answer(connection)  # before the next one is due
            if number == 0:
                print(json.dumps({"event": "publishing"}), flush=True)


if __name__ == "__main__":
    main()
