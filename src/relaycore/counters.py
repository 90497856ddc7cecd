"""Figures that relaycore counts."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ChannelCounters", "RelayCounters", "RoomCounters", "ThreadCounters"]


class ChannelCounters(NamedTuple):
    """What became of one channel's samples in a jitter buffer.

    Every sample that was pushed is counted once, as received, duplicate, late or dropped. Every
    position that was played of a channel that is not silent was received or concealed.
    """

    received: int
    """Placed at its position."""
    duplicate: int
    """Its position was already filled; the first to come was kept."""
    late: int
    """Its position was already played."""
    lost: int
    """Positions concealed whose sample has not come to this moment. One that comes within a second
    after all is counted late and taken off here."""
    concealed: int
    """Positions played without data: at most 200 ms of each gap. After that the channel has fallen
    silent, and silence is not counted until it speaks again."""
    dropped: int
    """Outside the window, or came after the end."""


class ThreadCounters(NamedTuple):
    """Totals of one relay thread since its start; the first three are as of now."""

    connections: int
    listeners: int
    rooms: int
    ticks: int
    tick_late_ns_max: int
    frames_sent: int
    frames_dropped: int
    frames_built: int
    bytes_sent: int
    bytes_received: int
    sends: int
    packets: int
    evicted: int
    stalls: int
    """Times the watchdog found it over its limit late."""
    tick_late_us: dict[float, int]
    """Ticks by how late their block was there: under so many µs, and not under the bound before.
    The bounds rise from 1 µs to a second, above 4 µs by a quarter at most; the last is infinite."""


class RoomCounters(NamedTuple):
    """Totals of one room; `listeners` is as of now, `blocks` counts the ticks that had audio.

    `bytes_sent`: all that its listeners got while they were, texts and pings too.
    """

    blocks: int
    packets: int
    frames_sent: int
    frames_dropped: int
    bytes_sent: int
    listeners: int


class RelayCounters(NamedTuple):
    """Snapshot of a relay's figures, read without stopping any thread."""

    threads: tuple[ThreadCounters, ...]
    rooms: dict[int, RoomCounters]
