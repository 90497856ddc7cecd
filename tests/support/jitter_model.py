"""A slow, obvious jitter buffer, to compare relaycore's with.

It follows the rules written at the top of `jitter_buffer.h`, one position at a time, with sets of
positions instead of rings of bits. It does not know the clock: it is told when a tick takes place
and how much delay is wanted, and says what has to come out. What concealment sounds like is left
open: a sample is either known exactly, or any.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from relaycore import ChannelCounters

AHEAD_MS = 1250
BEHIND_MS = 1000
ROOM_MS = 100
SILENCE_MS = 200
STRAY_MS = 200
STRAY_TOLERANCE_MS = 500
FADE_IN_MS = 5
FULL_MS = 1150
POLL_MS = 5
EXCESS_MS = 250
NS_PER_MS = 1_000_000


def signed(difference: int) -> int:
    """A difference of two 64-bit numbers, modulo 2**64, nearest to zero."""
    return (difference + 2**63) % 2**64 - 2**63


@dataclass
class Packet:
    timestamp: int
    samples: NDArray[np.float32]
    arrival_ns: int


@dataclass
class ModelFrame:
    """What has to come out of a tick.

    `exact[c]` says which samples are known, and `samples[c]` holds them. `may_fade[c]` says which
    of the known ones may be faded in, `must_flag` and `may_flag` are masks of channels.
    """

    index: int
    timestamp: int
    discontinuity: bool
    samples: NDArray[np.float32]
    exact: NDArray[np.bool_]
    may_fade: NDArray[np.bool_]
    must_flag: int
    may_flag: int


@dataclass
class Channel:
    queue: deque[Packet] = field(default_factory=deque)
    held: dict[int, float] = field(default_factory=dict)  # what is to be played, by position
    concealed_at: set[int] = field(default_factory=set)  # concealed, and has not come since
    end: int = 0
    heard_ns: int = 0
    active: bool = False
    spoke: bool = False
    missing: int = 0  # length of the gap so far
    fade_left: int = 0  # samples that may still be faded in
    played: int = 0  # of what was received
    received: int = 0
    duplicate: int = 0
    late: int = 0
    lost: int = 0
    concealed: int = 0
    dropped: int = 0

    @property
    def counters(self) -> ChannelCounters:
        return ChannelCounters(
            self.received, self.duplicate, self.late, self.lost, self.concealed, self.dropped
        )


class JitterModel:
    def __init__(
        self, channels: int, rate: int, frame_ms: int, origin: int, *, adaptive: bool
    ) -> None:
        self.adaptive = adaptive
        self.rate = rate
        self.frame_ms = frame_ms
        self.channels = [Channel() for _ in range(channels)]
        self.ahead = self.samples(AHEAD_MS)
        self.behind = self.samples(BEHIND_MS)
        self.silence = self.samples(SILENCE_MS)
        self.head = 0  # position of the next sample to play
        self.head_source = 0  # and its source timestamp
        self.history = 0
        self.timestamp = origin
        self.frames = 0
        self.anchored = False
        self.live = False
        self.ever_live = False
        self.told_to_finish = False
        self.finishing = False  # and all is placed
        self.ended = False
        self.discontinuity = False
        self.stop_source = 0
        self.stop_ns = 0
        self.behind_ns = 0  # by so much the ticks of this buffering were late
        self.early = False  # something waits for room
        self.stray: tuple[int, int] | None = None
        self.astray = False  # all that came for 200 ms agrees on another position
        self.longest_packet = 0

    def samples(self, ms: int) -> int:
        return ms * self.rate // 1000

    def push(self, channel: int, packet: Packet) -> None:
        self.channels[channel].queue.append(packet)

    def finish(self) -> None:
        self.told_to_finish = True

    # ---- placing ----

    def drain(self, now_ns: int, due_ns: int) -> list[Packet]:
        """Places what was pushed; which packets brought something new.

        A frame was due at `due_ns` (0: none has been): what goes beyond the window, but would not
        had all been played that is due, waits for that.
        """
        late_ns = max(0, now_ns - due_ns) if due_ns else 0
        if not self.live:
            late_ns += self.behind_ns
        news = []
        for channel in self.channels:
            while channel.queue and not self.is_early(channel.queue[0], late_ns):
                packet = channel.queue.popleft()
                if self.place(channel, packet):
                    news.append(packet)
        self.finishing = self.told_to_finish and not any(c.queue for c in self.channels)
        return news

    def is_early(self, packet: Packet, late_ns: int) -> bool:
        begin = signed(packet.timestamp - self.head_source)
        end = begin + len(packet.samples)
        begins = self.anything_held() and not self.ever_live
        furthest = max(self.head, *(c.end for c in self.channels)) - self.head
        early = (
            (self.live or begins)
            and late_ns >= self.frame_ms * NS_PER_MS
            and begin >= -(-self.rate * self.frame_ms // 1000)
            and self.ahead < end <= self.ahead + self.samples_since(0, late_ns)
            and begin <= furthest + self.samples(STRAY_TOLERANCE_MS)
        )
        self.early = self.early or (early and not self.live)
        return early

    def place(self, channel: Channel, packet: Packet) -> bool:
        """Whether it brought something new."""
        self.settle(packet)
        begin = signed(packet.timestamp - self.head_source)
        positions = range(self.head + begin, self.head + begin + len(packet.samples))
        new = False
        for position, sample in zip(positions, packet.samples.tolist(), strict=True):
            if self.head <= position < self.head + self.ahead:
                if position in channel.held:
                    channel.duplicate += 1
                else:
                    channel.held[position] = sample
                    channel.received += 1
                    channel.heard_ns = packet.arrival_ns
                    channel.end = max(channel.end, position + 1)
                    new = True
            elif self.head - self.history <= position < self.head:
                channel.late += 1
                if position in channel.concealed_at:
                    channel.concealed_at.remove(position)
                    channel.lost -= 1
                    new = True
            else:
                channel.dropped += 1
        if new:
            self.longest_packet = max(self.longest_packet, len(packet.samples))
        return new

    def settle(self, packet: Packet) -> None:
        if not self.anchored:
            self.anchor(packet)
            return
        begin = signed(packet.timestamp - self.head_source)
        end = begin + len(packet.samples)
        if 0 <= begin < self.ahead:
            self.stray = None
            self.astray = False
            return
        outside = begin >= self.ahead or end <= -self.history
        if not self.live and outside and not self.anything_held():
            self.anchor(packet)
            return
        if self.stray is not None:
            timestamp, arrival_ns = self.stray
            since = packet.arrival_ns - arrival_ns
            moved = signed(packet.timestamp - timestamp)
            if abs(moved - 1e-9 * self.rate * since) <= self.samples(STRAY_TOLERANCE_MS):
                if since >= STRAY_MS * NS_PER_MS:
                    self.astray = True
                    if not self.live:
                        self.anchor(packet)
                return
        self.stray = packet.timestamp, packet.arrival_ns
        self.astray = False

    def anchor(self, packet: Packet) -> None:
        self.anchored = True
        self.early = False
        self.stray = None
        self.astray = False
        self.head_source = packet.timestamp - self.samples(ROOM_MS)
        self.history = 0
        for channel in self.channels:
            channel.received -= len(channel.held)
            channel.dropped += len(channel.held)
            channel.held.clear()
            channel.concealed_at.clear()
            channel.end = self.head

    def anything_held(self) -> bool:
        return any(channel.end > self.head for channel in self.channels)

    # ---- playing ----

    def tick(
        self,
        now_ns: int,
        due_ns: int,
        next_ns: int,
        target: int,
        *,
        starves: bool = False,
        exceeds: bool = False,
    ) -> ModelFrame | None:
        """One tick that was due at `due_ns`, and what came until then is placed already.

        `next_ns` is when the next one will be due, `target` in samples.

        `starves`: held is far less than the target, so that running dry is the end for now.
        `exceeds`: after an interruption held is far more than the target, which is the end at once.
        """
        if self.finishing and not self.anything_held():
            self.ended = True
            self.live = False
        if self.ended:
            return None
        if not self.live:
            first = min((min(c.held) for c in self.channels if c.held), default=None)
            if first is None:
                self.behind_ns = 0
                return None
            if not (self.early or self.ready(now_ns, first, target)):
                if now_ns - due_ns > POLL_MS * NS_PER_MS:
                    self.behind_ns += now_ns - due_ns
                return None
            self.begin(now_ns, self.at_target(now_ns, first, target))
        frame = self.play()
        dry = (self.astray or starves) and not self.anything_held()
        last = (dry or exceeds) and not self.finishing
        if last:
            self.fade_out(frame)
        if self.finishing and not self.anything_held():
            self.ended = True
            self.live = False
        elif last or not any(channel.active for channel in self.channels):
            self.live = False
            for channel in self.channels:
                channel.active = False
                channel.missing = max(channel.missing, self.silence)
            self.stop_source = self.head_source
            self.stop_ns = next_ns
        return frame

    def ready(self, now_ns: int, first: int, target: int) -> bool:
        holding = [c for c in self.channels if c.end > self.head]
        if self.finishing or any(c.end - first >= self.samples(FULL_MS) for c in holding):
            return True
        for channel in holding:
            since = self.since_heard(channel, now_ns)
            silent = since >= self.longest_packet + self.silence
            coming = since if silent else min(self.longest_packet, since)
            if channel.end - first + coming < target:
                return False
        return True

    def since_heard(self, channel: Channel, now_ns: int) -> int:
        return self.samples_since(channel.heard_ns, now_ns)

    def samples_since(self, then_ns: int, now_ns: int) -> int:
        return min(max(0, now_ns - then_ns), 10_000_000_000) * self.rate // 1_000_000_000

    def at_target(self, now_ns: int, first: int, target: int) -> int:
        """Where to begin: after an interruption, with a fixed target, not far more than that."""
        speaking = [
            channel.end - first
            for channel in self.channels
            if channel.end > self.head
            and self.since_heard(channel, now_ns) < self.longest_packet + self.silence
        ]
        if self.adaptive or self.finishing or not self.ever_live or not speaking:
            return first
        excess = min(speaking) - target
        return first + excess if excess > self.samples(EXCESS_MS) else first

    def begin(self, now_ns: int, first: int) -> None:
        skipped = first - self.head
        for channel in self.channels:
            for position in range(self.head, first):
                if channel.held.pop(position, None) is not None:
                    channel.received -= 1
                    channel.late += 1
        self.history = min(self.behind, self.history + skipped)
        self.head += skipped
        self.head_source += skipped
        if self.ever_live:
            jump = signed(self.head_source - self.stop_source)
            passed = 1e-9 * self.rate * (now_ns - self.stop_ns)
            if 0 <= jump <= passed + self.ahead:
                self.timestamp += jump
        self.behind_ns = 0
        self.early = False
        self.live = True
        self.ever_live = True
        self.discontinuity = True

    def play(self) -> ModelFrame:
        first = self.frames * self.rate * self.frame_ms // 1000
        count = (self.frames + 1) * self.rate * self.frame_ms // 1000 - first
        shape = len(self.channels), count
        frame = ModelFrame(
            index=self.frames,
            timestamp=self.timestamp,
            discontinuity=self.discontinuity,
            samples=np.zeros(shape, np.float32),
            exact=np.zeros(shape, np.bool_),
            may_fade=np.zeros(shape, np.bool_),
            must_flag=0,
            may_flag=0,
        )
        for c, channel in enumerate(self.channels):
            for i in range(count):
                self.play_sample(frame, c, channel, i)
        self.frames += 1
        self.timestamp += count
        self.head += count
        self.head_source += count
        self.history = min(self.behind, self.history + count)
        self.discontinuity = False
        return frame

    def fade_out(self, frame: ModelFrame) -> None:
        for c, channel in enumerate(self.channels):
            if channel.active:
                frame.may_fade[c, -self.samples(10) :] = True
                frame.must_flag |= 1 << c
                frame.may_flag |= 1 << c

    def play_sample(self, frame: ModelFrame, c: int, channel: Channel, i: int) -> None:
        position = self.head + i
        if position in channel.held:
            if channel.missing and channel.spoke:
                # A gap ended here. Only where its end could not be known in time may what came be
                # faded in: when the gap began in an earlier frame and little of it is in this one.
                began_before = channel.missing > i
                if began_before and i < self.samples(10) // 4:
                    channel.fade_left = self.samples(10) // 2
            channel.missing = 0
            channel.active = channel.spoke = True
            frame.samples[c, i] = channel.held.pop(position)
            channel.played += 1
            frame.exact[c, i] = True
            if channel.fade_left:
                channel.fade_left -= 1
                frame.may_fade[c, i] = True
                frame.may_flag |= 1 << c
            return
        padding = self.finishing and position >= channel.end
        if padding or not channel.spoke:
            frame.exact[c, i] = True  # zeros
            return
        channel.fade_left = 0
        channel.missing += 1
        frame.may_flag |= 1 << c
        if channel.active:
            channel.concealed += 1
            channel.lost += 1
            channel.concealed_at.add(position)
            channel.active = channel.missing < self.silence
            frame.must_flag |= 1 << c
