"""Sends every message back: the program with which Autobahn's fuzzing client tests `Relay`.

Only the public interface is used, as a program of your own would. Prints its URL, serves until its
standard input ends.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import threading

from relaycore import Relay, UpgradeRefused, read_upgrade
from relaycore.events import BinaryReceived, TextReceived

MOST = 64 << 20  # bytes of a message; the largest of the suite have 16 MiB


def serve(relay: Relay, server: socket.socket) -> None:
    """Accepts for ever, one thread per handshake, so that a slow one holds nobody up."""

    def admit(client: socket.socket) -> None:
        with contextlib.suppress(UpgradeRefused, OSError):
            relay.attach(client, read_upgrade(client).response, deliver_binary=True)
        client.close()  # of no effect on one that has been attached

    while True:
        client, _ = server.accept()
        threading.Thread(target=admit, args=(client,), daemon=True).start()


def main() -> None:
    with (
        Relay(
            threads=1, max_text_bytes=MOST, max_binary_bytes=MOST, max_queued_bytes=4 * MOST
        ) as relay,
        socket.create_server(("127.0.0.1", 0), backlog=64) as server,
        selectors.DefaultSelector() as selector,
    ):
        threading.Thread(target=serve, args=(relay, server), daemon=True).start()
        selector.register(relay.fileno(), selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print(f"ws://127.0.0.1:{server.getsockname()[1]}", flush=True)
        while all(key.fileobj is not sys.stdin for key, _ in selector.select()):
            for event in relay.poll():
                if isinstance(event, TextReceived | BinaryReceived):
                    relay.send(event.connection, event.data)


if __name__ == "__main__":
    main()
