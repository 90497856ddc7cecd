"""A room: its state machine, its source, its listeners, and what they are told.

`waiting -> active <-> suspended -> closed`. Everything runs in the event loop's thread and returns
at once; the store is told of every change and never waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog
from msgspec import UNSET

from roomserver.protocol import server as messages
from roomserver.protocol.client import RegisterSource
from roomserver.protocol.codec import encode, encode_cut
from roomserver.protocol.codes import CloseCode, ErrorCode, RoomCloseReason, RoomState
from roomserver.rooms.bans import Bans
from roomserver.rooms.connection import Connection
from roomserver.rooms.dismissal import dismiss
from roomserver.rooms.ports import MediaVerbs, SourceFormat, Timer, Timers
from roomserver.store.interfaces import RoomStore
from roomserver.store.records import LeaveReason, RoomRecord

STATUS_INTERVAL_S = 1.0
ELSEWHERE = "the room is on another server"
MAX_STREAM = 0xFFFF  # a u16 on the wire

log = structlog.stdlib.get_logger("roomserver.rooms")


class Room:
    """One open room. Made by the registry; `closed` is called once, when it is over."""

    def __init__(
        self,
        record: RoomRecord,
        *,
        media: MediaVerbs,
        store: RoomStore,
        timers: Timers,
        grace_s: float,
        max_listeners: int,
        closed: Callable[[Room], None],
    ) -> None:
        """grace_s, max_listeners: the server's own, in s and 0 for no limit."""
        self.record = record
        self.media_id = media.open_room()
        self.source: Connection | None = None
        self.format: SourceFormat | None = None  # of the stream that plays or buffers
        self.live_timestamp: int | None = None  # where its timeline starts; None: not yet live
        self.buffering = False
        self.draining = False  # the source said unregisterSource, the rest is played out
        self.report: messages.SourceStatus | None = None  # the latest of the present stream
        self.listeners: set[Connection] = set()
        self.gone = False  # to another server
        self._bans = Bans(record.bans)
        self._media = media
        self._store = store
        self._timers = timers
        self._server_grace_s = grace_s
        self._server_max_listeners = max_listeners
        self._closed = closed
        self._announced_names: tuple[str, ...] = ()  # in the present stream's `streamStarted`
        self._streams = 0
        self._packets_taken = 0  # of the sources before the present one
        self._grace: Timer | None = None
        self._status_timer: Timer | None = None
        self._status_sent_at = float("-inf")
        if record.state is RoomState.ACTIVE:  # restored: its source is not back yet
            self._suspend(None)
        elif record.state is RoomState.SUSPENDED:
            self._start_grace()

    @property
    def id(self) -> str:
        """The room's UUID."""
        return self.record.id

    @property
    def state(self) -> RoomState:
        """Where in its life the room is."""
        return self.record.state

    @property
    def grace_s(self) -> float:
        """How long it waits for a source that is gone, in s."""
        return self._server_grace_s if self.record.grace_s is None else self.record.grace_s

    @property
    def bans(self) -> Bans:
        """Who may not come in."""
        if self._bans.records is not self.record.bans:
            self._bans = Bans(self.record.bans)
        return self._bans

    @property
    def is_live(self) -> bool:
        """Whether there is something to hear at this moment."""
        return self.live_timestamp is not None and not self.buffering

    @property
    def now(self) -> float:
        """The server's clock in Unix seconds."""
        return self._media.clock_us() / 1e6

    @property
    def has_broadcaster(self) -> bool:
        """Whether a source is registered."""
        return self.source is not None

    # The source

    def set_source(self, connection: Connection, wish: RegisterSource) -> None:
        """Makes the connection the source; a stream that still plays is cut off."""
        self._streams = self._streams % MAX_STREAM + 1
        names = wish.channel_names or self._kept_names(wish.channels)
        self._announced_names = names
        self.format = SourceFormat(
            stream=self._streams,
            channels=wish.channels,
            sample_rate=wish.sample_rate,
            encoding=wish.encoding,
            frame_ms=wish.frame_ms,
            buffer_ms=wish.buffer_ms,
            channel_names=names,
        )
        self.source = connection
        self.live_timestamp = None
        self.buffering = True
        self.draining = False
        reply = messages.SourceRegistered(
            room_id=self.id,
            stream=self._streams,
            channels=wish.channels,
            sample_rate=wish.sample_rate,
            frame_ms=wish.frame_ms,
            buffer_ms=wish.buffer_ms,
            listener_count=len(self.listeners),
        )
        self._media.bind_source(
            connection.id,
            self.media_id,
            self.format,
            announce=encode_cut(self._stream_started(self.format), "timestamp"),
            reply=encode(reply),
        )
        resumed = self.state is RoomState.SUSPENDED
        self._stop_grace()
        kept = wish.channel_names or self.record.channel_names
        if self.state is not RoomState.ACTIVE or kept != self.record.channel_names:
            self._change(state=RoomState.ACTIVE, suspended_until=None, channel_names=kept)
        if resumed:
            self._media.send_room(self.media_id, encode(messages.RoomResumed(room_id=self.id)))
        self.status_changed()

    def drain_source(self) -> None:
        """The source is done: what is buffered is played out, then the room is suspended."""
        assert self.source is not None
        self.draining = True
        self._media.unbind_source(self.source.id)

    def source_lost(self) -> None:
        """The source's connection is gone without a word, or its stream has been played out."""
        source = self._forget_source()
        if self.state is RoomState.ACTIVE:
            self._suspend(source)

    def stream_live(self, stream: int, timestamp: int) -> None:
        """The stream went live, for the first time or again."""
        if self.format is None or self.format.stream != stream:
            return  # of a stream that is over
        if self.live_timestamp is None:
            self.live_timestamp = timestamp
            if self.format.channel_names != self._announced_names:
                self._tell_names()  # renamed since it registered
        self.buffering = False
        self.status_changed()

    def stream_buffering(self, stream: int) -> None:
        """Nothing came for a while."""
        if self.format is not None and self.format.stream == stream:
            self.buffering = True
            self.status_changed()

    def source_report(self, stream: int, status: messages.SourceStatus) -> None:
        """Tells the source what the relay sees of it."""
        if self.source is None or self.format is None or self.format.stream != stream:
            return
        status.listener_count = len(self.listeners)
        self.report = status
        self._media.send(self.source.id, encode(status))

    @property
    def source_packets(self) -> int:
        """Packets that came from the present source; nearly as of now."""
        return max(0, self._media.room_packets(self.media_id) - self._packets_taken)

    def take_packets(self) -> int:
        """The same, for the last time: the next source's begin at 0."""
        packets = self.source_packets
        self._packets_taken += packets
        return packets

    # Listeners

    @property
    def is_full(self) -> bool:
        """Whether another listener is one too many."""
        return 0 < self.max_listeners <= len(self.listeners)

    @property
    def max_listeners(self) -> int:
        """How many it admits, 0 for no limit: as its owner says, within what the server does."""
        ours, servers = self.record.max_listeners, self._server_max_listeners
        return min(ours, servers) if ours and servers else ours or servers

    def add_listener(
        self,
        connection: Connection,
        *,
        interval_ms: int,
        burst_ms: int,
        from_timestamp: int | None,
    ) -> None:
        """The connection hears the room from now on; it brings its subscription.

        `interval_ms` is its interval in whole frames of the present stream.
        """
        subscription = connection.subscription
        assert subscription is not None
        self.listeners.add(connection)
        reply = messages.ListenerRegistered(
            room_id=self.id,
            room_name=self.record.name,
            client_id=connection.client_id,
            state=self.state,
            has_broadcaster=self.has_broadcaster,
            listener_count=len(self.listeners),
            mode=subscription.mode,
            channels=subscription.channels,
            encoding=subscription.encoding,
            interval_ms=interval_ms,
            levels=subscription.levels,
            mix=subscription.mix,
        )
        known_stream = 0
        # Before the stream is live its start is not known: the relay announces it when it is.
        if self.format is not None and self.live_timestamp is not None:
            known_stream = self.format.stream
            reply.stream = known_stream
            reply.channel_count = self.format.channels
            reply.channel_names = self.format.channel_names
            reply.sample_rate = self.format.sample_rate
            reply.frame_ms = self.format.frame_ms
            reply.buffer_ms = self.format.buffer_ms
            reply.timestamp = self.live_timestamp
        self._media.bind_listener(
            connection.id,
            self.media_id,
            subscription,
            reply=encode(reply),
            known_stream=known_stream,
            burst_ms=burst_ms,
            from_timestamp=from_timestamp,
        )
        self.status_changed()

    def remove_listener(self, connection: Connection) -> None:
        """The connection is gone."""
        self.listeners.discard(connection)
        self.status_changed()

    def drop_listeners(self) -> int:
        """Closes all: the tokens they came by are worthless. How many there were."""
        gone, self.listeners = self.listeners, set()
        for listener in gone:
            dismiss(
                self._media,
                listener,
                LeaveReason.REVOKED,
                ErrorCode.TOKEN_INVALID,
                "the room's password was changed",
            )
        self.status_changed()
        return len(gone)

    # State

    def adopt(self, record: RoomRecord) -> None:
        """The room is now as its owner wants it, which is kept already: all that follows."""
        before, self.record = self.record, record
        if record.state is RoomState.CLOSED:
            self._end()
            return
        if record.name != before.name or record.channel_names != before.channel_names:
            if self.format is not None:
                names = self._kept_names(self.format.channels)
                self.format = replace(self.format, channel_names=names)
            self._tell_names()
        if record.suspended_until != before.suspended_until:
            self._stop_grace()
            self._begin_suspension(self._forget_source())

    def renew(self, record: RoomRecord) -> None:
        """Another server changed it: what its owner wants is taken over, what goes on here is not.

        A room that was closed there is closed here.
        """
        if record.state is not RoomState.CLOSED:
            ours, told = self.record, record.state
            record = replace(
                record,
                state=ours.state,
                suspended_until=ours.suspended_until,
                held=ours.held,
            )
            self.adopt(record)
            if record.token_version != ours.token_version:
                self.drop_listeners()
            self._dismiss_banned()
            if told is not self.state:
                self._change()
        else:
            self.adopt(record)

    def _dismiss_banned(self) -> None:
        owner = self.record.created_by
        for connection in list(self.listeners):
            token = connection.token
            if (
                token is not None
                and connection.leaving is None
                and self.bans.refuse(token, connection.limit_key, owner=owner)
            ):
                dismiss(
                    self._media,
                    connection,
                    LeaveReason.BANNED,
                    ErrorCode.BANNED,
                    "you were banned from the room",
                )

    def keep(self, version: int) -> None:
        """What it is is told again, over this version: something else was told that is not so."""
        self.record = replace(self.record, version=max(version, self.record.version))
        self._change()

    def let_go(self, url: str | None) -> None:
        """It is at another server now; everyone is told where, and closed. Nothing is kept."""
        self.gone = True
        self.stop_timers()
        error = messages.Error(ErrorCode.WRONG_SERVER, ELSEWHERE, url if url is not None else UNSET)
        text = encode(error)
        self._media.close_room(self.media_id, text=text, code=CloseCode.WRONG_SERVER)

    def close(self, reason: RoomCloseReason) -> None:
        """Closes the room for good: everyone is told and closed."""
        if self.state is RoomState.CLOSED:
            return
        self._change(
            state=RoomState.CLOSED,
            suspended_until=None,
            held=False,
            closed_at=self.now,
            close_reason=reason,
        )
        self._end()

    def status_changed(self) -> None:
        """Tells everyone, at most once a second; the latest state wins."""
        if self._status_timer is not None or self.state is RoomState.CLOSED or self.gone:
            return
        due_in = self._status_sent_at + STATUS_INTERVAL_S - self._timers.time()
        if due_in <= 0:
            self._send_status()
        else:
            self._status_timer = self._timers.call_later(due_in, self._send_status)

    def stop_timers(self) -> None:
        """The server shuts down: the room stays as it is."""
        self._stop_grace()
        if self._status_timer is not None:
            self._status_timer.cancel()
            self._status_timer = None

    def _send_status(self) -> None:
        self._status_timer = None
        self._status_sent_at = self._timers.time()
        text = encode(
            messages.RoomStatus(
                room_id=self.id,
                state=self.state,
                has_broadcaster=self.has_broadcaster,
                buffering=self.buffering,
                listener_count=len(self.listeners),
            )
        )
        self._media.send_room(self.media_id, text)
        if self.source is not None:
            self._media.send(self.source.id, text)

    def _end(self) -> None:
        """What follows when the room is closed: everyone is told and closed."""
        self.stop_timers()
        reason = self.record.close_reason
        assert reason is not None
        text = encode(messages.RoomClosed(room_id=self.id, reason=reason))
        self._media.close_room(self.media_id, text=text, code=CloseCode.ROOM_CLOSED)
        self._closed(self)

    def _forget_source(self) -> Connection | None:
        """There is no source from now on; the one that was."""
        source, self.source = self.source, None
        self.format = None
        self.report = None
        self.live_timestamp = None
        self.buffering = False
        self.draining = False
        return source

    def _kept_names(self, channels: int) -> tuple[str, ...]:
        return (self.record.channel_names or ())[:channels]

    def _tell_names(self) -> None:
        names = self.format.channel_names if self.format else self.record.channel_names or ()
        text = encode(messages.RoomChanged(self.id, self.record.name, names))
        self._media.send_room(self.media_id, text)
        if self.source is not None:
            self._media.send(self.source.id, text)

    def _suspend(self, source: Connection | None) -> None:
        self._change(state=RoomState.SUSPENDED, suspended_until=self.now + self.grace_s)
        self._begin_suspension(source)

    def _begin_suspension(self, source: Connection | None) -> None:
        """Tells of it and orders its end; of a room that is held the source is closed."""
        until = self.record.suspended_until
        assert until is not None
        text = encode(
            messages.RoomSuspended(room_id=self.id, suspended_until=round(until * 1_000_000))
        )
        self._media.send_room(self.media_id, text)
        if source is not None:  # one that unregistered learns that all of it was played
            self._media.send(source.id, text)
            if self.record.held:
                dismiss(
                    self._media,
                    source,
                    LeaveReason.SUSPENDED,
                    ErrorCode.ROOM_SUSPENDED,
                    "the room was suspended",
                )
        self.status_changed()
        self._start_grace()

    def _start_grace(self) -> None:
        until = self.record.suspended_until
        assert until is not None
        left_s = max(until - self.now, 0.0)
        self._grace = self._timers.call_later(left_s, self._grace_over)

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _grace_over(self) -> None:
        self._grace = None
        if self.record.permanent:
            self._change(state=RoomState.WAITING, suspended_until=None, held=False)
            self.status_changed()
        else:
            held = self.record.held
            self.close(RoomCloseReason.EXPIRED if held else RoomCloseReason.SOURCE_GONE)

    def _change(self, **changes: Any) -> None:
        """Another version of the record; the store is told."""
        before = self.state
        self.record = replace(self.record, version=self.record.version + 1, **changes)
        self._store.room_changed(self.record)
        log.info("room_state", room=self.id, code=self.record.code, before=before, state=self.state)

    def _stream_started(self, source: SourceFormat) -> messages.StreamStarted:
        return messages.StreamStarted(
            stream=source.stream,
            channel_count=source.channels,
            channel_names=source.channel_names,
            sample_rate=source.sample_rate,
            frame_ms=source.frame_ms,
            buffer_ms=source.buffer_ms,
            timestamp=UNSET,
        )
