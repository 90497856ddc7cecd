"""Connections that send without end what costs most to read and no limit forbids."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

from support.peer import PONG, TEXT, Peer, mask

BURST_BYTES = 4 << 20
SEND_BUFFER_BYTES = 64 << 10
CONTINUATION = 0

#: What is sent once, and what then is sent again and again. Of empty messages most go into a byte.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "pongs": (b"", mask(PONG, b"")),
    "empty fragments": (mask(TEXT, b"", fin=False), mask(CONTINUATION, b"", fin=False)),
}


class Flood:
    """What these peers, of which nobody else sends anything, have to say.

    Args:
        kind: One of `FLOODS`.
    """

    def __init__(self, peers: Sequence[Peer], kind: str) -> None:
        first, again = FLOODS[kind]
        self._burst = memoryview(again * (BURST_BYTES // len(again)))
        self._peers = {peer.sock.fileno(): peer for peer in peers}
        self._at = dict.fromkeys(self._peers, 0)  # where in the burst each is
        for peer in peers:
            peer.sock.sendall(first)
            # Or many of them fill what memory the kernel has for TCP, and nobody's packets arrive.
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            peer.sock.setblocking(False)

    def send(self, seconds: float) -> int:
        """Sends for so long as much as is taken; how many bytes that were."""
        waiting = select.poll()
        for descriptor in self._peers:
            waiting.register(descriptor, select.POLLOUT)
        taken = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for descriptor, _ in waiting.poll(100):
                at = self._at[descriptor]
                sent = self._peers[descriptor].sock.send(self._burst[at:])
                self._at[descriptor] = (at + sent) % len(self._burst)
                taken += sent
        return taken
