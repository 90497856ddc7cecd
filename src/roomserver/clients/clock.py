"""Clocks of a client: the media clock that paces a source, and the server's clock by ``ping``.

Local time is always the monotonic clock, with Unix time at the start of the program for its
origin, so that nothing here ever steps. Not shared between threads.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final


class LocalClock:
    """Unix time that is never stepped: read once, then carried on by the monotonic clock."""

    def __init__(self) -> None:
        self._origin_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def now_us(self) -> int:
        """Unix microseconds."""
        return self._origin_us + time.monotonic_ns() // 1000

    def to_unix_us(self, monotonic: float) -> int:
        """Unix microseconds of a moment of ``time.monotonic()``."""
        return self._origin_us + round(monotonic * 1e6)


@dataclass(slots=True)
class MediaClock:
    """Says when each sample of a source is due.

    Deadlines are absolute: they are computed from the start and the sample's number, so a sleep
    that overshoots delays one packet and shifts nothing.

    Args:
        sample_rate: In Hz.
        start: Moment of sample 0 on ``time.monotonic()``.
    """

    sample_rate: int
    start: float

    def deadline(self, position: int) -> float:
        """The moment at which the sample before ``position`` has been heard."""
        return self.start + position / self.sample_rate

    def position(self, now: float) -> int:
        """The first sample that has not begun at ``now``."""
        return max(0, -int(-(now - self.start) * self.sample_rate // 1))

    def shift(self, seconds: float) -> None:
        """Move every deadline that is yet to come."""
        self.start += seconds


@dataclass(slots=True)
class ServerClock:
    """The server's clock, estimated from ``ping`` and ``pong`` as NTP does.

    Of the last exchanges the one with the shortest round trip counts: the less a message queued,
    the less its two ways can differ.
    """

    window: int = 16
    _samples: deque[tuple[int, int]] = field(default_factory=deque)

    def add(self, sent_us: int, received_us: int, replied_us: int, returned_us: int) -> None:
        """Take an exchange into account.

        Args:
            sent_us: Local clock when the ping was sent.
            received_us: Server clock when it was read.
            replied_us: Server clock when the pong was written.
            returned_us: Local clock when the pong was read.
        """
        round_trip = (returned_us - sent_us) - (replied_us - received_us)
        offset = ((received_us - sent_us) + (replied_us - returned_us)) // 2
        self._samples.append((max(0, round_trip), offset))
        while len(self._samples) > self.window:
            self._samples.popleft()

    @property
    def known(self) -> bool:
        """Whether there was any exchange."""
        return bool(self._samples)

    @property
    def offset_us(self) -> int:
        """What to add to the local clock to get the server's; 0 before the first exchange."""
        return min(self._samples)[1] if self._samples else 0

    @property
    def round_trip_us(self) -> int:
        """The shortest round trip of the window; 0 before the first exchange."""
        return min(self._samples)[0] if self._samples else 0


#: Seconds between pings: a few quickly at first, so that the delay shown is soon right.
PING_INTERVALS_S: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)


def ping_interval(count: int) -> float:
    """Seconds to wait before ping number ``count``, from 0."""
    return PING_INTERVALS_S[min(count, len(PING_INTERVALS_S) - 1)]
