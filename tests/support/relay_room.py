"""A room of a bare `Relay`: sources that send in real time, listeners, and what they heard."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relaycore import Relay, Subscription
from relaycore.events import SourceReport, StreamBuffering, StreamEnded, StreamLive
from support.peer import Frame, Peer

RATE = 48_000
FRAME = 960
FRAME_S = FRAME / RATE
ANNOUNCE = '{"type":"streamStarted","timestamp":'
ALL = Subscription()
MUTED_S, MUTED_LOOKS = 0.3, 4


class Source(threading.Thread):
    """Sends int16 planes in real time, a packet per frame, until it is told to stop or done."""

    def __init__(
        self, peer: Peer, planes: NDArray[np.int16], *, start: int = 0, samples: int = FRAME
    ) -> None:
        super().__init__(daemon=True)
        self.peer, self.planes, self.first, self.samples = peer, planes, start, samples
        self.stopped = threading.Event()

    def run(self) -> None:
        begin = time.monotonic()
        total = self.planes.shape[1]
        for at in range(0, total, self.samples):
            if self.stopped.wait(max(0.0, begin + at / RATE - time.monotonic())):
                return
            self.peer.send_packet(self.planes[:, at : at + self.samples], self.first + at)

    def stop(self) -> None:
        self.stopped.set()
        self.join()


def noise(channels: int, seconds: float, seed: int = 1) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    return rng.integers(-20000, 20000, (channels, round(seconds * RATE)), np.int16)


def bind_source(
    relay: Relay,
    room: int,
    *,
    channels: int = 2,
    stream: int = 1,
    frame_ms: int = 20,
    buffer_ms: float = 300,
) -> Peer:
    peer = Peer.attach(relay)
    relay.bind_source(
        peer.connection,
        room,
        stream=stream,
        channels=channels,
        frame_ms=frame_ms,
        buffer_ms=buffer_ms,
        sample_rate=RATE,
        encoding="pcm_s16le",
        announce=ANNOUNCE,
        reply='{"type":"sourceRegistered"}',
    )
    assert peer.next_text()["type"] == "sourceRegistered"
    return peer


def bind_listener(
    relay: Relay, room: int, subscription: Subscription = ALL, **options: Any
) -> Peer:
    peer = Peer.attach(relay)
    relay.bind_listener(
        peer.connection, room, subscription, reply='{"type":"listenerRegistered"}', **options
    )
    assert peer.next_text()["type"] == "listenerRegistered"
    return peer


@contextlib.contextmanager
def on_air(relay: Relay, *, channels: int = 2, seconds: float = 20.0) -> Iterator[int]:
    """A room whose source is heard as long as the block lasts."""
    room = relay.open_room()
    source = Source(bind_source(relay, room, channels=channels), noise(channels, seconds))
    source.start()
    deadline = time.monotonic() + 10
    try:
        while not relay.counters().rooms[room].blocks:
            assert time.monotonic() < deadline, "the room does not play"
            time.sleep(0.005)
        yield room
    finally:
        source.stop()
        Peer.close_all()  # or the relay would wait for their goodbyes


def until_muted(peer: Peer) -> None:
    """Reads, without an answer to a ping, until nothing comes any more."""
    quiet = 0  # looks in a row: during one of them the whole machine may have stood still
    with contextlib.suppress(EOFError, ConnectionError):
        while quiet < MUTED_LOOKS:
            if peer.buffer or select.select([peer.sock], [], [], MUTED_S / MUTED_LOOKS)[0]:
                peer.read_frame()
                quiet = 0
            else:
                quiet += 1


def of_stream(
    number: int,
) -> Callable[[StreamLive | StreamBuffering | StreamEnded | SourceReport], bool]:
    return lambda event: event.stream == number


def frames_until_end(peer: Peer, samples: int) -> list[Frame]:
    """Frames until `samples` of audio have come."""
    frames: list[Frame] = []
    while sum(f.samples for f in frames) < samples:
        frames.append(peer.next_frame())
    return frames


def joined(frames: list[Frame]) -> NDArray[Any]:
    return np.concatenate([f.data for f in frames])
