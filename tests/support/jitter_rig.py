"""Runs schedules of packets through a JitterBuffer and, beside it, through the model."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relaycore import Frame, JitterBuffer
from support.jitter_model import EXCESS_MS, JitterModel, ModelFrame, Packet, signed

NS_PER_S = 1_000_000_000
MS = 1_000_000
MAX_U64 = 2**64 - 1
START_NS = 5 * NS_PER_S
SLACK_MS = 50  # by which the mean of arrivals may move in one tick


@dataclass(frozen=True)
class Sent:
    """A packet on its way: which channels, from where on, when it comes."""

    arrival_ns: int
    channel: int
    timestamp: int
    samples: NDArray[np.float32]


def signal(timestamp: int, n: int, channel: int = 0) -> NDArray[np.float32]:
    """Noise whose every sample tells its timestamp and channel apart, within ±1."""
    positions = np.arange(n, dtype=np.uint64) + np.uint64(timestamp % 2**64)
    mixed = (positions + np.uint64(channel * 7919)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return ((mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**23)) - np.float32(1)


def moved(packet: Sent, by: int) -> Sent:
    """The packet with another timestamp, modulo 2**64."""
    timestamp = (packet.timestamp + by) % 2**64
    return Sent(packet.arrival_ns, packet.channel, timestamp, packet.samples)


def steady(
    *,
    rate: int,
    lengths: Sequence[int],
    duration_s: float,
    channels: int = 1,
    timestamp: int = 0,
    start_ns: int = START_NS,
) -> list[Sent]:
    """A source on time: each packet comes when its last sample has been captured.

    The lengths are taken in turn; a packet has all channels in one.
    """
    sent = []
    at = 0
    for i in range(10**9):
        n = lengths[i % len(lengths)]
        if at + n > duration_s * rate:
            break
        planes = np.stack([signal(timestamp + at, n, c) for c in range(channels)])
        at += n
        arrival = start_ns + at * NS_PER_S // rate
        sent.append(Sent(arrival, 0, (timestamp + at - n) % 2**64, planes))
    return sent


def play(
    buffer: JitterBuffer,
    packets: Iterable[Sent],
    *,
    until_ns: int | None = None,
    pauses: Sequence[tuple[int, int]] = (),
) -> list[Frame]:
    """Push every packet when it comes and pop every frame when it is due.

    pauses: times and lengths in ns; what is due in one is popped when it is over.
    """
    frames: list[Frame] = []
    now = START_NS

    def next_pop(earliest_ns: int) -> int:
        due_ns = max(earliest_ns, buffer.next_deadline_ns)
        for begin_ns, length_ns in pauses:
            if begin_ns <= due_ns < begin_ns + length_ns:
                return begin_ns + length_ns
        return due_ns

    pop_at = next_pop(now)

    def pop_until(time_ns: int) -> None:
        nonlocal pop_at
        while pop_at <= time_ns:
            frame = buffer.pop(pop_at)
            if frame is not None:
                frames.append(frame)
            pop_at = next_pop(pop_at)

    last = now
    for packet in sorted(packets, key=lambda packet: packet.arrival_ns):
        # What comes at the moment of a tick comes in time for it.
        pop_until(packet.arrival_ns - 1)
        assert buffer.push(packet.channel, packet.timestamp, packet.samples, packet.arrival_ns)
        last = packet.arrival_ns
    pop_until(last if until_ns is None else until_ns)
    return frames


def heard(frames: list[Frame], channel: int = 0) -> NDArray[np.float32]:
    """All samples of one channel, one frame after another."""
    return np.concatenate([frame.samples[channel] for frame in frames])


def finish(buffer: JitterBuffer) -> list[Frame]:
    """Play out what is held."""
    buffer.finish()
    frames: list[Frame] = []
    for _ in range(10_000):
        if buffer.ended:
            return frames
        frame = buffer.pop(buffer.next_deadline_ns)
        if frame is not None:
            frames.append(frame)
    raise AssertionError("the buffer did not end")


def disturb(
    packets: Iterable[Sent],
    rng: random.Random,
    *,
    delay_ms: float = 0,
    reorder_ms: float = math.inf,
    loss: float = 0,
    twice: float = 0,
) -> list[Sent]:
    """Delay each packet at random, lose some and send some twice.

    A packet overtakes only packets that were sent less than `reorder_ms` before it.
    """
    out: list[Sent] = []
    sent_and_came: deque[tuple[int, int]] = deque()
    came = 0  # when the last of those came that can't be overtaken any more
    for packet in packets:
        sent_ns = packet.arrival_ns
        while sent_and_came and sent_and_came[0][0] < sent_ns - reorder_ms * 1e6:
            came = max(came, sent_and_came.popleft()[1])
        if rng.random() < loss:
            continue
        for _ in range(2 if rng.random() < twice else 1):
            arrival = max(came, sent_ns + int(rng.uniform(0, delay_ms) * 1e6))
            sent_and_came.append((sent_ns, arrival))
            out.append(Sent(arrival, packet.channel, packet.timestamp, packet.samples))
    return out


class ComparedRun:
    """A buffer and its model, given the same packets and ticks; any difference fails."""

    def __init__(
        self,
        *,
        channels: int,
        rate: int,
        frame_ms: int,
        target_ms: float | None,
        origin: int = 1000,
    ) -> None:
        self.rate = rate
        self.channels = channels
        self.frame_ms = frame_ms
        self.buffer = JitterBuffer(
            channels, rate, frame_ms=frame_ms, target_ms=target_ms, origin=origin
        )
        self.adaptive = target_ms is None
        self.model = JitterModel(channels, rate, frame_ms, origin, adaptive=self.adaptive)
        self.frames: list[Frame] = []
        self.news: list[Packet] = []  # that brought something since the last tick

    def push(self, packet: Sent) -> None:
        planes = np.atleast_2d(packet.samples)
        assert self.buffer.push(packet.channel, packet.timestamp, planes, packet.arrival_ns)
        for k, plane in enumerate(planes):
            self.model.push(packet.channel + k, Packet(packet.timestamp, plane, packet.arrival_ns))

    def pop(self, now_ns: int) -> Frame | None:
        deadline_ns = self.buffer.next_deadline_ns
        held_ms = self.buffer.fill_ms if self.buffer.state == "live" else 0.0
        frame = self.buffer.pop(now_ns)
        self.news += self.model.drain(now_ns, deadline_ns)
        if now_ns >= deadline_ns:
            # Half samples are rounded up; going through ms must not change that.
            target = math.floor(self.buffer.target_ms * self.rate / 1000 + 0.5 + 1e-6)
            # How much it holds is a matter of its clock, which the model knows nothing of. But what
            # came since then moves the mean no further than to where it puts the source itself; and
            # if nothing was heard, it told what was held: less than a frame, when it runs dry.
            stopped = self.buffer.state == "buffering"
            least_ms = min([held_ms, *(self.ahead_ms(packet, deadline_ns) for packet in self.news)])
            self.news.clear()
            lacking_ms = max(self.frame_ms, self.buffer.target_ms - self.frame_ms)
            starves = self.adaptive and stopped and least_ms < lacking_ms
            exceeds = (
                not self.adaptive
                and stopped
                and held_ms > self.buffer.target_ms + EXCESS_MS - SLACK_MS
            )
            next_ns = self.buffer.next_deadline_ns
            expected = self.model.tick(
                now_ns, deadline_ns or now_ns, next_ns, target, starves=starves, exceeds=exceeds
            )
        else:
            expected = None
        assert (frame is None) == (expected is None)
        if frame is not None and expected is not None:
            self.compare(frame, expected)
            self.frames.append(frame)
        for c, channel in enumerate(self.model.channels):
            assert self.buffer.counters(c) == channel.counters
            assert channel.received == channel.played + len(channel.held)
        assert self.buffer.state == ("live" if self.model.live else "buffering")
        assert self.buffer.ended == self.model.ended
        assert self.buffer.end_timestamp == self.model.timestamp
        return frame

    def ahead_ms(self, packet: Packet, time_ns: int) -> float:
        """How far the source is ahead of the next sample to play, if all comes as this did."""
        end = signed(packet.timestamp + len(packet.samples) - self.model.head_source)
        return end * 1000 / self.rate + (time_ns - packet.arrival_ns) / MS

    def compare(self, frame: Frame, expected: ModelFrame) -> None:
        assert frame.index == expected.index
        assert frame.timestamp == expected.timestamp
        assert frame.discontinuity == expected.discontinuity
        assert frame.samples.shape == expected.samples.shape
        assert np.all(np.isfinite(frame.samples))
        differs = expected.exact & (frame.samples != expected.samples)
        assert not np.any(differs & ~expected.may_fade)
        flagged = sum(1 << c for c in range(self.channels) if differs[c].any())
        assert expected.must_flag | flagged == (expected.must_flag | flagged) & frame.concealed_mask
        assert frame.concealed_mask & ~expected.may_flag == 0

    def run(self, packets: Iterable[Sent], rng: random.Random, *, stall_ms: float = 0) -> None:
        """Everything up to the last packet; some ticks come up to `stall_ms` late."""

        def next_pop() -> int:
            late = rng.uniform(0, stall_ms) if rng.random() < 0.1 else 0
            return max(START_NS, self.buffer.next_deadline_ns) + int(late * 1e6)

        pop_at = next_pop()
        for packet in sorted(packets, key=lambda packet: packet.arrival_ns):
            while pop_at < packet.arrival_ns and not self.buffer.ended:
                self.pop(pop_at)
                pop_at = max(pop_at, next_pop())
            self.push(packet)

    def finish(self, late_ms: Callable[[], float] = lambda: 0) -> None:
        """The rest; each pop comes by so much too late."""
        self.buffer.finish()
        self.model.finish()
        now = START_NS
        for _ in range(10_000):
            if self.buffer.ended:
                return
            now = max(now, self.buffer.next_deadline_ns + int(late_ms() * MS))
            self.pop(now)
        raise AssertionError("the buffer did not end")
