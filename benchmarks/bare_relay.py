"""The relay alone, as a plain program would use it: `python -m benchmarks.bare_relay ...`.

One room; a connection to `/source` becomes its source, any other a listener of all channels. It
ends at the end of its input or after `--max-seconds`.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time

from benchmarks.workload import ENCODING_CODE, SOURCE_PATH
from relaycore import Relay, Subscription
from relaycore.handshake import UpgradeRefused, read_upgrade

LISTENER_REPLY = '{"type":"listenerRegistered"}'
SOURCE_REPLY = '{"type":"sourceRegistered"}'


def serve(options: argparse.Namespace) -> None:
    """Accepts until told to stop; everything else happens in the relay's thread."""
    deadline = time.monotonic() + options.max_seconds
    everything = Subscription(encoding=options.encoding)
    with (
        Relay(threads=1) as relay,
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
    ):
        room = relay.open_room()
        offset_us = relay.clock_us() - time.monotonic_ns() // 1000
        ready = {
            "event": "listening",
            "port": listener.getsockname()[1],
            "clock_offset_us": offset_us,
        }
        print(json.dumps(ready), flush=True)
        watched = [sys.stdin.fileno(), listener.fileno(), relay.fileno()]
        while (left := deadline - time.monotonic()) > 0:
            readable = select.select(watched, [], [], left)[0]
            if sys.stdin.fileno() in readable:
                return
            if relay.fileno() in readable:
                relay.poll()
            if listener.fileno() not in readable:
                continue
            sock = listener.accept()[0]
            try:
                upgrade = read_upgrade(sock)
            except (UpgradeRefused, OSError):
                sock.close()
                continue
            connection = relay.attach(sock, upgrade.response)
            if upgrade.path == SOURCE_PATH:
                relay.bind_source(
                    connection,
                    room,
                    stream=1,
                    channels=options.channels,
                    sample_rate=options.sample_rate,
                    encoding=options.encoding,
                    frame_ms=options.frame_ms,
                    buffer_ms=options.buffer_ms,
                    announce='{"type":"streamStarted","stream":1,"timestamp":',
                    reply=SOURCE_REPLY,
                )
            else:
                relay.bind_listener(connection, room, everything, reply=LISTENER_REPLY)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Benchmark subject: the bare relay.")
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--sample-rate", type=int, required=True)
    parser.add_argument("--encoding", choices=list(ENCODING_CODE), required=True)
    parser.add_argument("--frame-ms", type=int, required=True)
    parser.add_argument("--buffer-ms", type=int, required=True)
    parser.add_argument("--max-seconds", type=float, required=True)
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
