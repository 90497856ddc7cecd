"""Figures that relaycore counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relaycore._core import Durations

__all__ = ["ChannelCounters", "LoadFigures", "RelayCounters", "RoomCounters", "ThreadCounters"]


class ChannelCounters(NamedTuple):
    """What became of one channel's samples in a jitter buffer.

    Every sample that was pushed is counted once, as received, duplicate, late or dropped. Every
    position that was played of a channel that is not silent was received or concealed.
    """

    received: int
    """Placed at its position, and played or still to be played. What is given up after all is taken
    off here and counted late or dropped."""
    duplicate: int
    """Its position was already filled; the first to come was kept."""
    late: int
    """Its position was already played, or passed over: of what an interruption held up no more is
    played than a fixed target wants, even if it had been received already."""
    lost: int
    """Positions concealed whose sample has not come to this moment. One that comes within a second
    after all is counted late and taken off here."""
    concealed: int
    """Positions played without data: at most 200 ms of each gap. After that the channel has fallen
    silent, and silence is not counted until it speaks again."""
    dropped: int
    """Outside the window, or came after the end, or was not yet played when the source's clock
    jumped."""


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


class LoadFigures(NamedTuple):
    """Figures of one thread of a `LoadClient`; times named `_ns` are of CLOCK_MONOTONIC, 0: never.

    From `since_ns` on they are of the interval that began there.
    """

    is_sources: bool
    """The thread has the sources, else listeners."""
    connections: int
    """That were wanted."""
    settled: int
    """Have joined once, or failed to."""
    joined: int
    """Are in at the moment."""
    alive: int
    """Have a socket at the moment."""
    clock_offset_us: int | None
    """What the server's clock is ahead of CLOCK_MONOTONIC; None: not known yet."""
    round_trip_us: int
    """Shortest of the last pings; 0: none was answered."""
    since_ns: int
    taken_ns: int
    cpu_ns: int
    """CPU time of the thread."""
    wait_ns: int
    """How long it wanted a processor and had none; 0 where the kernel does not tell."""
    frames: int
    bytes: int
    reads: int
    pings: int
    """Of the server."""
    failed: int
    """Listeners that could not join for the first time."""
    lost: int
    """Connections that ended though they had joined."""
    returned: int
    """Listeners that were lost and heard again."""
    gaps: int
    """Places where sequences passed over frames."""
    missing: int
    """Frames that they passed over."""
    attempts: int
    """To come back."""
    sent: int
    """Texts of `LoadClient.send`."""
    replies: int
    """Answers to them."""
    skipped: int
    """Packets that a source could not send in time, since the server did not read."""
    first_lost_ns: int
    first_open_ns: int
    last_joined_ns: int
    last_back_ns: int
    delay: tuple[Durations, ...]
    """From a frame's tick to its last byte, by group; frames of before a return don't count."""
    arrival: Durations
    """From a frame's tick to its reaching the socket, with `kernel_times`."""
    join: Durations
    """From the first connection to being registered."""
    silence: Durations
    """What those missed that were lost and came back."""
    reply: Durations
    """From a text to its answer."""
    batch: Durations
    """From waking up to having handled all that had come: how late a frame may be read."""
    errors: dict[str, int]
    """How often what went wrong."""
