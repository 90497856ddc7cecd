"""The jitter buffer against copying the bytes of a frame twice, which is the least it has to do.

One operation is 20 ms of a room: its packets are pushed and the frame that is due is popped, by one
thread. The floor copies the same float32 samples in and out with NumPy. Time is simulated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.conftest import Compare, on_pages
from relaycore import JitterBuffer

RATE = 48000
SAMPLES = 960
PERIOD_NS = 20_000_000
channel_counts = pytest.mark.parametrize("channels", [1, 2, 16, 64])


def noise(channels: int) -> NDArray[np.float32]:
    random = np.random.default_rng(channels)
    return random.uniform(-0.9, 0.9, (channels, SAMPLES)).astype(np.float32)


def twice_copied(planes: NDArray[np.float32]) -> Callable[[], None]:
    source, between, out = (on_pages(planes) for _ in range(3))

    def copy() -> None:
        np.copyto(between, source)
        np.copyto(out, between)

    return copy


def room(
    planes: NDArray[np.generic], packets: int, every: Callable[[int], bool] = lambda tick: True
) -> tuple[JitterBuffer, Callable[[], None]]:
    """A buffer, and an operation that gives it the next 20 ms and takes the frame that is due."""
    channels = len(planes)
    buffer = JitterBuffer(channels, RATE, target_ms=100)
    out = np.empty((channels, SAMPLES), np.float32)
    n = SAMPLES // packets
    parts = [np.ascontiguousarray(planes[:, i * n : (i + 1) * n]) for i in range(packets)]
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        now = ticks * PERIOD_NS
        if every(ticks):
            for i, part in enumerate(parts):
                buffer.push(0, ticks * SAMPLES + i * n, part, now)
        ticks += 1
        buffer.pop(max(now, buffer.next_deadline_ns), out)

    for _ in range(20):
        tick()
    assert buffer.state == "live"
    return buffer, tick


@channel_counts
def test_all_channels_in_one_packet(compare: Compare, channels: int) -> None:
    planes = noise(channels)
    buffer, tick = room(planes, 1)
    compare(f"jitter: {channels} x 960 float32", tick, {"two NumPy copies": twice_copied(planes)})
    assert buffer.counters(0).concealed == 0


@channel_counts
def test_int16_packets(compare: Compare, channels: int) -> None:
    planes = noise(channels)
    buffer, tick = room((planes * 32767).astype(np.int16), 1)
    compare(f"jitter: {channels} x 960 int16", tick, {"two NumPy copies": twice_copied(planes)})
    assert buffer.counters(0).concealed == 0


def test_many_short_packets(compare: Compare) -> None:
    planes = noise(16)
    _, tick = room(planes, 40)
    compare("jitter: 16 x 40 x 24 float32", tick, {"two NumPy copies": twice_copied(planes)})


@channel_counts
def test_every_other_packet_lost(compare: Compare, channels: int) -> None:
    """The price of concealment: a joint on both sides of each gap, on every channel."""
    planes = noise(channels)
    buffer, tick = room(planes, 1, every=lambda tick: tick < 20 or tick % 2 == 0)
    compare(
        f"jitter: {channels} x 960, half of it concealed",
        tick,
        {"two NumPy copies": twice_copied(planes)},
    )
    assert buffer.counters(0).concealed > 0
