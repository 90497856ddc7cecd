"""The relay, as the rooms see it: verbs out, events in. The only importer of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import structlog

from relaycore import Relay, RelayClosedError, Subscription
from relaycore.counters import RelayCounters
from relaycore.events import (
    CloseReason,
    ConnectionClosed,
    Event,
    RoomReport,
    SourceReport,
    StreamBuffering,
    StreamEnded,
    StreamLive,
    TextReceived,
    ThreadStalled,
)
from roomserver.config import Settings
from roomserver.protocol.server import SourceStatus, SubscriptionState
from roomserver.rooms.ports import Closed, ListenerCount, MediaEvents, SourceFormat
from roomserver.store.records import LeaveReason

BATCH = 256
# After so long in one go the rest waits for the loop's next round: HTTP wants its turn too.
SLICE_S = 0.005
# How much of the loop's time counting packets may take: a thousand rooms, of which one snapshot
# takes some milliseconds, may lose their sources at once.
COUNTING_SHARE = 0.05
REMEMBERED_ROOMS = 1000

log = structlog.stdlib.get_logger("roomserver.media")

_LEAVE_REASONS = {
    CloseReason.PEER_CLOSED: LeaveReason.LEFT,
    CloseReason.PEER_LOST: LeaveReason.LOST,
    CloseReason.PROTOCOL_ERROR: LeaveReason.PROTOCOL_ERROR,
    CloseReason.TOO_BIG: LeaveReason.PROTOCOL_ERROR,
    CloseReason.RATE_LIMITED: LeaveReason.RATE_LIMITED,
    CloseReason.NOT_REGISTERED: LeaveReason.REFUSED,
    CloseReason.TOO_SLOW: LeaveReason.TOO_SLOW,
    CloseReason.SOURCE_SILENT: LeaveReason.SILENT,
    CloseReason.CLOSED: LeaveReason.REFUSED,
    CloseReason.ROOM_CLOSED: LeaveReason.ROOM_CLOSED,
    CloseReason.SHUTDOWN: LeaveReason.SHUTDOWN,
}


class Media:
    """Implements `MediaVerbs` over a relay of its own, and feeds a `MediaEvents`."""

    def __init__(self, settings: Settings) -> None:
        self._running: Relay | None = Relay(
            threads=settings.threads,
            realtime=settings.realtime,
            max_lag_ms=settings.max_lag_ms,
            evict_after_s=settings.evict_after_s,
            register_timeout_s=settings.register_timeout_s,
            max_text_bytes=settings.max_text_bytes,
            max_binary_bytes=settings.max_binary_bytes,
            max_packets_per_s=settings.max_packets_per_s,
            ping_interval_ms=settings.ping_interval_ms,
            source_timeout_s=settings.source_timeout_s,
            silence_timeout_s=settings.silence_timeout_s,
            watchdog_ms=settings.watchdog_ms,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: MediaEvents | None = None
        self._stalled: set[int] = set()
        self._packets: dict[int, int] = {}  # by room, good until `_count_again_at`
        self._count_again_at = -math.inf
        self._closed_rooms: deque[int] = deque()  # whose packets are remembered for a while

    def start(self, events: MediaEvents) -> None:
        """Begins to deliver events, in the running event loop."""
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._relay.fileno(), self._take_events)

    async def stop(self, timeout_s: float) -> None:
        """Everyone gets 1001; returns when the relay's threads have ended.

        The loop goes on meanwhile: what leaves over TLS passes through it.
        """
        self._count_packets()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="relay-close") as thread:
            await loop.run_in_executor(thread, lambda: self._relay.close(timeout=timeout_s))
        if self._loop is not None:
            self._loop.remove_reader(self._relay.fileno())
            self._take_events(math.inf)  # how the last connections ended
            self._loop = None
        # Its descriptors go with it, and not when whoever still knows us is collected.
        self._running = None

    @property
    def _relay(self) -> Relay:
        if self._running is None:
            raise RelayClosedError("the relay is closed")
        return self._running

    @property
    def stalled(self) -> frozenset[int]:
        """The relay's threads that the watchdog has found late and that are late still."""
        return frozenset(self._stalled)

    def counters(self) -> RelayCounters:
        """A snapshot of the relay's figures. Raises RelayClosedError."""
        return self._relay.counters()

    def attach(self, descriptor: int, response: bytes, *, greeting: str) -> int:
        return self._relay.attach(descriptor, response, greeting=greeting)

    def open_room(self) -> int:
        return self._relay.open_room()

    def close_room(self, room: int, *, text: str, code: int) -> None:
        self.room_packets(room)
        self._relay.close_room(room, text=text, code=code)
        self._closed_rooms.append(room)
        if len(self._closed_rooms) > REMEMBERED_ROOMS:
            self._packets.pop(self._closed_rooms.popleft(), None)

    def bind_source(
        self, connection: int, room: int, source: SourceFormat, *, announce: str, reply: str
    ) -> None:
        self._relay.bind_source(
            connection,
            room,
            stream=source.stream,
            channels=source.channels,
            sample_rate=source.sample_rate,
            encoding=source.encoding,
            frame_ms=source.frame_ms,
            buffer_ms=source.buffer_ms,
            announce=announce,
            reply=reply,
        )

    def unbind_source(self, connection: int) -> None:
        self._relay.unbind_source(connection)

    def bind_listener(
        self,
        connection: int,
        room: int,
        subscription: SubscriptionState,
        *,
        reply: str,
        known_stream: int,
        burst_ms: int,
        from_timestamp: int | None,
    ) -> None:
        self._relay.bind_listener(
            connection,
            room,
            _native(subscription),
            reply=reply,
            known_stream=known_stream,
            burst_ms=burst_ms,
            from_timestamp=from_timestamp,
        )

    def subscribe(self, connection: int, subscription: SubscriptionState, *, reply: str) -> None:
        self._relay.subscribe(connection, _native(subscription), reply=reply)

    def send(self, connection: int, text: str) -> None:
        self._relay.send(connection, text)

    def send_stamped(self, connection: int, text: str) -> None:
        self._relay.send(connection, text, stamp=True)

    def send_room(self, room: int, text: str) -> None:
        self._relay.send_room(room, text)

    def report_lag(self, connection: int, lag_ms: float) -> None:
        self._relay.report_lag(connection, lag_ms)

    def close_connection(
        self, connection: int, code: int, detail: str = "", *, text: str | None = None
    ) -> None:
        self._relay.close_connection(connection, code, detail, text=text)

    def inspect(self, room: int) -> None:
        self._relay.inspect(room)

    def room_packets(self, room: int) -> int:
        if time.monotonic() > self._count_again_at:
            self._count_packets()
        return self._packets.get(room, 0)

    def clock_us(self) -> int:
        return self._relay.clock_us()

    def _count_packets(self) -> None:
        """A snapshot for all rooms: that of each alone would cost as much."""
        with contextlib.suppress(RelayClosedError):  # then the last one stands
            began = time.monotonic()
            for room, figures in self._relay.counters().rooms.items():
                self._packets[room] = figures.packets
            ended = time.monotonic()
            self._count_again_at = ended + (ended - began) / COUNTING_SHARE

    def _take_events(self, slice_s: float = SLICE_S) -> None:
        loop = self._loop
        if loop is None:
            return  # stopped since this was ordered
        until = loop.time() + slice_s
        # The poll that finds nothing also acknowledges the texts of the one before.
        while events := self._relay.poll(BATCH):
            for event in events:
                try:
                    self._deliver(event)
                except Exception:
                    # One bad message must not take the others' events with it.
                    log.exception("event_failed", kind=type(event).__name__)
            if loop.time() > until:
                loop.call_soon(self._take_events)
                return

    def _deliver(self, event: Event) -> None:
        events = self._events
        assert events is not None
        match event:
            case TextReceived():
                events.text_received(event.connection, event.data, event.received_us)
            case ConnectionClosed():
                events.connection_closed(
                    event.connection,
                    Closed(
                        reason=_LEAVE_REASONS[event.reason],
                        code=event.code,
                        detail=event.detail,
                        frames_sent=event.frames_sent,
                        frames_dropped=event.frames_dropped,
                        bytes_sent=event.bytes_sent,
                        bytes_received=event.bytes_received,
                        lag_ms=event.lag_ms,
                    ),
                )
            case StreamLive():
                events.stream_live(event.room, event.stream, event.timestamp)
            case StreamBuffering():
                events.stream_buffering(event.room, event.stream)
            case StreamEnded():
                events.stream_ended(event.room, event.stream, drained=event.drained)
            case SourceReport():
                events.source_report(event.room, event.stream, _source_status(event))
            case RoomReport():
                events.listeners_counted(
                    [
                        ListenerCount(one.connection, one.frames_sent, one.frames_dropped)
                        for one in event.listeners
                    ]
                )
            case ThreadStalled(over=False):
                self._stalled.add(event.thread)
                log.warning("relay_thread_stalled", thread=event.thread, late_ms=event.late_ms)
            case ThreadStalled():
                self._stalled.discard(event.thread)
                log.warning("relay_thread_recovered", thread=event.thread, stalled_ms=event.late_ms)
            case _:  # reports that nobody here asked for
                log.warning("event_unexpected", kind=type(event).__name__)


@lru_cache(maxsize=256)  # most listeners ask for the same
def _native(subscription: SubscriptionState) -> Subscription:
    mix = subscription.mix
    return Subscription(
        mode=subscription.mode,
        channels=subscription.channels,
        encoding=subscription.encoding,
        interval_ms=subscription.interval_ms,
        levels=subscription.levels,
        faders=mix.faders,
        pans=mix.pans,
        mutes=mix.mutes,
        solos=mix.solos,
        master=mix.master,
    )


def _source_status(report: SourceReport) -> SourceStatus:
    return SourceStatus(
        fill_ms=report.fill_ms,
        target_ms=report.target_ms,
        jitter_ms=report.jitter_ms,
        drift_ppm=report.drift_ppm,
        capture_offset_us=report.capture_offset_us,
        received=report.received,
        late=report.late,
        duplicate=report.duplicate,
        lost=report.lost,
        concealed=report.concealed,
    )
