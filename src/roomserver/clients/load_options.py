"""What a load test is to do, and in which rooms."""

from __future__ import annotations

from dataclasses import dataclass

from roomserver.clients.connection import RoomAccess
from roomserver.clients.wire import Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What the load is.

    Attributes:
        listeners: How many.
        seconds: How long everybody listens once all are in.
        ramp: Joins begun per second; 0: as many as `in_flight` allows.
        in_flight: Listeners that are on their way in at a time.
        channels, sample_rate, frame_ms, source_encoding, buffer_ms: Of the sources, if there are.
        mode, encoding, interval_ms: Of the listeners' subscriptions.
        own_mixes: Every listener has a mix of its own.
        mix_changes: Changes of mixes per second, over all listeners.
        slow: Share of listeners that read `slow_bandwidth` bytes per second at most.
        stalled: Share of listeners that read nothing once they have joined.
        storm_s: So long after all are in, listeners are cut off at once.
        storm: Their share.
        share_token: All listeners of a room use one token. The server has to let them: its
            max_connections_per_participant is 0.
        bind: Local addresses to connect from; empty: enough of the loopback's, else any.
        threads: Of the load client, for listeners.
        pid: The server's process, if it is on this machine.
    """

    listeners: int
    seconds: float = 10.0
    ramp: float = 0.0
    in_flight: int = 64
    channels: int = 2
    sample_rate: int = 48000
    frame_ms: int = 20
    source_encoding: Encoding = Encoding.S16LE
    buffer_ms: float | None = None
    mode: str = "multichannel"
    encoding: Encoding = Encoding.S16LE
    interval_ms: int = 0
    own_mixes: bool = False
    mix_changes: float = 0.0
    slow: float = 0.0
    slow_bandwidth: int = 0
    stalled: float = 0.0
    storm_s: float | None = None
    storm: float = 1.0
    share_token: bool = False
    bind: tuple[str, ...] = ()
    threads: int = 1
    pid: int | None = None

    @property
    def groups(self) -> tuple[int, int, int]:
        """Listeners that simply listen, slow ones and stalled ones."""
        slow, stalled = (round(share * self.listeners) for share in (self.slow, self.stalled))
        return self.listeners - slow - stalled, slow, stalled


@dataclass(frozen=True, slots=True)
class LoadRoom:
    """A room that is listened to.

    Attributes:
        name: Its code or id.
        password: None: it is open.
        source: Token of its broadcaster, if the load makes the source.
    """

    name: str
    password: str | None
    source: RoomAccess | None = None
