"""`python -m benchmarks.peers.publisher ...`: posts each frame to nchan when it is due."""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time

from benchmarks.peers.frames import Schedule

PATIENCE_S = 15.0


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Publisher of a benchmark.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    Schedule.add_to(parser)
    options = parser.parse_args()
    head = (
        f"POST {options.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {options.message}\r\n\r\n"
    ).encode()
    schedule = Schedule(options.message, options.tick_us, options.max_seconds)
    with socket.create_connection(("127.0.0.1", options.port), PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, (deadline, message) in enumerate(schedule.messages()):
            wait = max(0.0, deadline - time.monotonic())
            if select.select([sys.stdin], [], [], wait)[0]:
                return
            connection.sendall(head + message)
            answer = connection.recv(65536)  # it is answered before the next one is due
            if not answer.startswith(b"HTTP/1.1 20"):
                raise SystemExit(f"refused: {answer[:200]!r}")
            if number == 0:
                print(json.dumps({"event": "publishing"}), flush=True)


if __name__ == "__main__":
    main()
