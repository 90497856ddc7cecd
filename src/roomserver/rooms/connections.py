"""Every connection the relay holds: registration, and what clients say afterwards.

Implements `MediaEvents`. All of it runs in the event loop's thread and returns at once, because
the relay counts a text as processed when the next batch of events is taken.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence

import structlog
from msgspec import structs

from roomserver.auth.tokens import RoomToken, TokenError, Tokens
from roomserver.ids import new_id
from roomserver.protocol import client, server
from roomserver.protocol.codec import MessageError, decode, encode, encode_cut
from roomserver.protocol.codes import CloseCode, ErrorCode, Role, RoomState
from roomserver.rooms.connection import Connection
from roomserver.rooms.counting import StayCounts
from roomserver.rooms.dismissal import dismiss
from roomserver.rooms.mixes import mix_changed, put_in_force
from roomserver.rooms.places import Places
from roomserver.rooms.ports import Closed, ListenerCount, MediaVerbs, Timer, Timers
from roomserver.rooms.presets import Presets
from roomserver.rooms.registry import Rooms
from roomserver.rooms.room import ELSEWHERE, Room
from roomserver.rooms.subscriptions import DEFAULT, merge, merge_mix, round_interval
from roomserver.store.database import DatabaseAwayError
from roomserver.store.interfaces import LookupsBusyError, RoomStore
from roomserver.store.records import AuditEvent, LeaveReason

MAX_RENEWAL_LEAD_S = 1800.0
RENEWALS_AT_ONCE = 100  # a signature takes time, and the loop has other things to do

# Why the relay by itself closes connections that did not register.
_RULES_OF_THE_RELAY = frozenset(
    {LeaveReason.PROTOCOL_ERROR, LeaveReason.RATE_LIMITED, LeaveReason.REFUSED}
)

log = structlog.stdlib.get_logger("roomserver.connections")


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error of ours
    """A registration or request that the rules do not permit."""

    def __init__(self, code: ErrorCode, message: str, *, missing: str | None = None) -> None:
        """missing: the room of a good token, which is not here: another server may have it."""
        super().__init__(message)
        self.code = code
        self.missing = missing


class Connections:
    """The connections of this server, by the ids that the relay gives them."""

    def __init__(
        self,
        *,
        media: MediaVerbs,
        rooms: Rooms,
        store: RoomStore,
        tokens: Tokens,
        presets: Presets,
        timers: Timers,
        places: Places,
        max_interval_ms: int,
        counters_interval_s: float = 30.0,
    ) -> None:
        self._media = media
        self._rooms = rooms
        self._store = store
        self._tokens = tokens
        self._presets = presets
        self._timers = timers
        self._max_interval_ms = max_interval_ms
        self.places = places
        self._by_id: dict[int, Connection] = {}
        self._counts = StayCounts(
            media=media,
            rooms=rooms,
            find=self._by_id.get,
            store=store,
            timers=timers,
            interval_s=counters_interval_s,
        )
        self.ended: Counter[LeaveReason] = Counter()
        """How many connections have ended, and why."""
        # Renew with a quarter of the life left, half an hour at most, and look often enough.
        self._renewal_lead_s = min(MAX_RENEWAL_LEAD_S, tokens.room_s / 4)
        self._renewal: Timer | None = None
        self._stopping = False
        self._lookups: set[asyncio.Task[None]] = set()  # of rooms that are not here

    def __len__(self) -> int:
        return len(self._by_id)

    def start(self) -> None:
        """Begins to renew tokens, and to tell how far stays have come."""
        self._counts.start()
        self._renewal = self._timers.call_later(self._renewal_lead_s / 4, self._renew_tokens)

    def stop(self) -> None:
        """The relay is about to close: from now on only how connections ended is written down."""
        self._stopping = True
        self._counts.stop()
        for lookup in self._lookups:
            lookup.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    def admit(
        self,
        descriptor: int,
        response: bytes,
        address: str,
        limit_key: str,
        user_agent: str | None = None,
    ) -> None:
        """Hands a socket to the relay, which answers the upgrade with `response`, and `config`.

        The descriptor is nobody else's from here on: when the relay does not take it, it is closed,
        and this raises what the relay did (RelayClosedError at the end).

        `limit_key` is what limits count by: an address, or a network of addresses.
        """
        client_id = new_id()
        try:
            config = server.Config(client_id=client_id, server_time=self._media.clock_us())
            connection_id = self._media.attach(descriptor, response, greeting=encode(config))
        except BaseException:
            os.close(descriptor)
            raise
        connection = Connection(
            id=connection_id,
            client_id=client_id,
            address=address,
            limit_key=limit_key,
            # A hall of listeners has a few browsers between them.
            user_agent=sys.intern(user_agent) if user_agent is not None else None,
        )
        self._by_id[connection.id] = connection
        self.places.connected(limit_key)

    # Events of the relay

    def text_received(self, connection: int, text: str, received_us: int) -> None:
        """A client says something."""
        sender = self._by_id.get(connection)
        if sender is None or sender.leaving is not None or self._stopping:
            return
        if sender.room is not None and (sender.room.gone or sender.room.state is RoomState.CLOSED):
            return
        try:
            message = decode(text)
        except MessageError as error:
            registering = sender.room is None and error.kind in (
                "registerSource",
                "registerListener",
            )
            if registering or error.code is ErrorCode.MALFORMED:
                self._refuse(sender, error.code, str(error))
            else:
                self._answer_error(sender, error.code, str(error))
            return
        self._handle(sender, message, received_us)

    def connection_closed(self, connection: int, closed: Closed) -> None:
        """A connection is over, whoever ended it."""
        gone = self._by_id.pop(connection, None)
        if gone is None:
            return
        reason = gone.leaving or closed.reason
        self._presets.forget(connection)
        self.ended[reason] += 1
        self.places.left(gone)
        log.debug(
            "connection_closed",
            client=gone.client_id,
            address=gone.address,
            reason=reason,
            code=closed.code,
            detail=closed.detail,
        )
        if gone.token is None and gone.leaving is None and closed.reason in _RULES_OF_THE_RELAY:
            self._rooms.audit(
                AuditEvent.REQUEST_REFUSED,
                address=gone.address,
                limit_key=gone.limit_key,
                user_agent=gone.user_agent,
                client=gone.client_id,
                reason=reason,
                code=closed.code,
                detail=closed.detail,
            )
        if gone.room is None:
            return
        room = gone.room
        self._end_stay(gone, reason, closed)
        if self._stopping:
            return
        if gone.role is Role.LISTENER:
            room.remove_listener(gone)
        elif room.source is gone and not room.draining:
            room.source_lost()

    def stream_live(self, room: int, stream: int, timestamp: int) -> None:
        """A stream plays."""
        if found := self._room(room):
            found.stream_live(stream, timestamp)

    def stream_buffering(self, room: int, stream: int) -> None:
        """A stream has nothing to play."""
        if found := self._room(room):
            found.stream_buffering(stream)

    def stream_ended(self, room: int, stream: int, *, drained: bool) -> None:
        """A stream is over: played out, or its connection is gone."""
        found = self._room(room)
        if found is None or found.format is None or found.format.stream != stream:
            return
        source = found.source
        found.source_lost()
        if drained and source is not None and source.id in self._by_id:
            self._end_stay(source, LeaveReason.LEFT, None)
            self._free(source)

    def listeners_counted(self, counts: Sequence[ListenerCount]) -> None:
        """Totals of listeners."""
        self._counts.counted(counts)

    def source_report(self, room: int, stream: int, status: server.SourceStatus) -> None:
        """Figures of a source."""
        if found := self._room(room):
            found.source_report(stream, status)

    def _room(self, media_id: int) -> Room | None:
        return None if self._stopping else self._rooms.of_media(media_id)

    # Messages of clients

    def _handle(self, sender: Connection, message: client.ClientMessage, received_us: int) -> None:
        try:
            match message:
                case client.Ping():
                    pong = server.Pong(t=message.t, received=received_us)
                    self._media.send_stamped(sender.id, encode_cut(pong, "sent"))
                case client.RegisterSource():
                    self._register_source(sender, message)
                case client.RegisterListener():
                    self._register_listener(sender, message)
                case client.UnregisterSource():
                    self._need(sender, Role.BROADCASTER)
                    self._unregister_source(sender)
                case client.Subscribe():
                    self._need(sender, Role.LISTENER)
                    self._subscribe(sender, message)
                case client.SetMix():
                    self._need(sender, Role.LISTENER)
                    self._set_mix(sender, message)
                case client.Stats():
                    self._need(sender, Role.LISTENER)
                    sender.measured(message, received_us)
                    if message.latency_ms is not None:
                        lag_ms = message.latency_ms - (message.buffer_ms or 0)
                        self._media.report_lag(sender.id, lag_ms)
                case _:
                    self._need(sender, Role.LISTENER)
                    if (code := self._presets.handle(sender, message)) is not None:
                        raise Refusal(code, "too many requests of yours are under way")
        except Refusal as refusal:
            registration = client.RegisterSource | client.RegisterListener
            if not isinstance(message, registration) or sender.room is not None:
                if refusal.code is ErrorCode.NOT_ALLOWED:
                    self._audit_refusal(sender, refusal.code, sender.room)
                self._answer_error(sender, refusal.code, str(refusal))
            elif refusal.missing is not None and self._rooms.shared:
                self._look_elsewhere(sender, message, refusal.missing, received_us)
            else:
                self._refuse(sender, refusal.code, str(refusal), room=message.room_id)

    def _look_elsewhere(
        self,
        sender: Connection,
        message: client.RegisterSource | client.RegisterListener,
        room: str,
        received_us: int,
    ) -> None:
        """Asks, for a bearer of a token, which server has its room; the answer is the end, or not.

        What the client says until then is ignored: it has to wait for the answer anyway.
        """
        sender.leaving = LeaveReason.REFUSED
        task = asyncio.ensure_future(self._send_elsewhere(sender, message, room, received_us))
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def _send_elsewhere(
        self,
        sender: Connection,
        message: client.RegisterSource | client.RegisterListener,
        room: str,
        received_us: int,
    ) -> None:
        try:
            await self._answer_elsewhere(sender, message, room, received_us)
        except Exception:
            log.exception("room_not_looked_up", client=sender.client_id)
            if sender.id in self._by_id and not self._stopping:
                self._refuse(sender, ErrorCode.INTERNAL, "something went wrong here")

    async def _answer_elsewhere(
        self,
        sender: Connection,
        message: client.RegisterSource | client.RegisterListener,
        room: str,
        received_us: int,
    ) -> None:
        elsewhere, unknown = None, False
        try:
            elsewhere = await self._rooms.locate(room, guess=False)
        except (LookupsBusyError, DatabaseAwayError):
            unknown = True
        if sender.id not in self._by_id or self._stopping:
            return
        found = self._rooms.find(message.room_id)
        if elsewhere is not None:
            self._refuse(sender, ErrorCode.WRONG_SERVER, ELSEWHERE, url=elsewhere.url)
        elif found is not None and found.id == room:  # nobody had it, so it is ours now
            sender.leaving = None
            self._handle(sender, message, received_us)
        elif unknown:
            text = "the room is not here, and where it is can't be said; try again"
            self._refuse(sender, ErrorCode.DATABASE_AWAY, text)
        else:
            self._refuse(sender, ErrorCode.ROOM_NOT_FOUND, "there is no such room")

    def _need(self, sender: Connection, role: Role) -> None:
        if sender.room is None:
            raise Refusal(ErrorCode.NOT_REGISTERED, "register first")
        if sender.role is not role:
            raise Refusal(ErrorCode.NOT_ALLOWED, f"only a {role} may do that")

    def _register_source(self, sender: Connection, wish: client.RegisterSource) -> None:
        room = sender.room
        if room is not None and room.source is sender and room.draining:
            # It comes back before the rest was played out, perhaps with another format.
            self._end_stay(sender, LeaveReason.LEFT, None)
            self._free(sender)
            room.source = None
        self._check_unregistered(sender)
        room, token = self._admit_to_room(sender, wish.room_id, wish.room_token)
        if token.role is not Role.BROADCASTER:
            raise Refusal(ErrorCode.NOT_ALLOWED, "this token is for listening only")
        if wish.channel_names is not None and len(wish.channel_names) > wish.channels:
            raise Refusal(ErrorCode.INVALID_MESSAGE, "there are more channelNames than channels")
        if room.record.held:
            raise Refusal(ErrorCode.ROOM_SUSPENDED, "its owner suspended the room")
        if room.source is not None:
            self._take_over(room.source, token)
        self._register(sender, room, token, Role.BROADCASTER)
        room.set_source(sender, wish)

    def _take_over(self, holder: Connection, token: RoomToken) -> None:
        """Frees the room of its source, if that belongs to the same user."""
        held = holder.token
        assert held is not None
        assert holder.room is not None
        same_user = token.user is not None and token.user == held.user
        if not same_user and token.participant != held.participant:
            raise Refusal(ErrorCode.SOURCE_EXISTS, "the room has a source already")
        if holder.room.draining:
            if holder.id in self._by_id:
                self._end_stay(holder, LeaveReason.LEFT, None)
                self._free(holder)
            return
        dismiss(
            self._media,
            holder,
            LeaveReason.TAKEN_OVER,
            ErrorCode.SOURCE_TAKEN_OVER,
            "you broadcast from elsewhere now",
        )

    def _unregister_source(self, sender: Connection) -> None:
        assert sender.room is not None
        if not sender.room.draining:
            sender.room.drain_source()

    def _register_listener(self, sender: Connection, wish: client.RegisterListener) -> None:
        self._check_unregistered(sender)
        room, token = self._admit_to_room(sender, wish.room_id, wish.room_token)
        if room.is_full:
            raise Refusal(ErrorCode.ROOM_FULL, "the room is full")
        if why := self.places.why_not_listen(sender, token):
            raise Refusal(ErrorCode.TOO_MANY_CONNECTIONS, why)
        sender.subscription = self._merge(DEFAULT, wish)
        sender.nickname = wish.nickname or token.nickname
        self._register(sender, room, token, Role.LISTENER)
        room.add_listener(
            sender,
            interval_ms=self._interval_in_force(room, sender.subscription),
            burst_ms=wish.burst_ms,
            from_timestamp=wish.from_timestamp,
        )

    def _subscribe(self, sender: Connection, change: client.Subscribe) -> None:
        assert sender.room is not None
        assert sender.subscription is not None
        now = sender.subscription = self._merge(sender.subscription, change)
        reply = server.Subscribed(
            mode=now.mode,
            channels=now.channels,
            encoding=now.encoding,
            interval_ms=self._interval_in_force(sender.room, now),
            levels=now.levels,
            mix=now.mix,
        )
        self._media.subscribe(sender.id, now, reply=encode(reply))

    def _set_mix(self, sender: Connection, change: client.SetMix) -> None:
        assert sender.subscription is not None
        mix = merge_mix(sender.subscription.mix, change)
        put_in_force(self._media, sender, mix, reply=mix_changed(mix))

    # Shared steps

    def _check_unregistered(self, sender: Connection) -> None:
        if sender.room is not None:
            raise Refusal(ErrorCode.ALREADY_REGISTERED, "this connection is registered already")

    def _admit_to_room(
        self, sender: Connection, name: str, token_text: str
    ) -> tuple[Room, RoomToken]:
        try:
            token = self._tokens.read_room(token_text)
        except TokenError as error:
            code = ErrorCode.TOKEN_EXPIRED if error.expired else ErrorCode.TOKEN_INVALID
            raise Refusal(code, str(error)) from None
        room = self._rooms.find(name)
        if room is None or room.id != token.room:
            # Whether the name is one of another room is nobody's business: like one of none.
            closed = self._rooms.closed(name)
            if closed is not None and closed.id == token.room:
                raise Refusal(ErrorCode.ROOM_CLOSED, "the room was closed")
            raise Refusal(ErrorCode.ROOM_NOT_FOUND, "there is no such room", missing=token.room)
        if token.version != room.record.token_version:
            raise Refusal(ErrorCode.TOKEN_INVALID, "the token was revoked")
        if room.bans.refuse(token, sender.limit_key, owner=room.record.created_by):
            raise Refusal(ErrorCode.BANNED, "you are banned from the room")
        return room, token

    def _merge(
        self, now: server.SubscriptionState, change: client.SubscriptionFields
    ) -> server.SubscriptionState:
        merged = merge(now, change)
        if merged.interval_ms > self._max_interval_ms:
            raise Refusal(
                ErrorCode.INVALID_MESSAGE, f"intervalMs may be at most {self._max_interval_ms}"
            )
        return now if merged == now else merged  # thousands who ask for nothing special share one

    def _interval_in_force(self, room: Room, subscription: server.SubscriptionState) -> int:
        """What a listener is told: the record keeps what was asked, for a source to come."""
        frame_ms = room.format.frame_ms if room.format is not None else None
        return round_interval(subscription.interval_ms, frame_ms, self._max_interval_ms)

    def _register(self, sender: Connection, room: Room, token: RoomToken, role: Role) -> None:
        self.places.registers(sender, token, role)
        sender.room = room
        sender.role = role
        sender.token = token
        sender.joined_us = self._media.clock_us()
        sender.stays += 1
        sender.latency_sum_ms, sender.latencies, sender.stats = 0.0, 0, None
        self._store.participant_joined(sender.stay())
        self._rooms.audit(
            AuditEvent.ROOM_JOINED,
            address=sender.address,
            user_agent=sender.user_agent,
            user=token.user,
            room=room.id,
            role=role,
            client=sender.client_id,
        )

    def _free(self, connection: Connection) -> None:
        """The connection stays open and may register again."""
        connection.room = None
        connection.role = None
        connection.subscription = None

    def _end_stay(self, connection: Connection, reason: LeaveReason, closed: Closed | None) -> None:
        stay = connection.stay()
        left_us = self._media.clock_us()
        sent = closed.frames_sent if closed is not None else 0
        if connection.role is Role.BROADCASTER and connection.room is not None:
            sent = connection.room.take_packets()
        stay = structs.replace(
            stay,
            left_at=left_us / 1e6,
            duration_s=(left_us - connection.joined_us) / 1e6,
            reason=reason,
            frames_sent=sent,
            frames_dropped=closed.frames_dropped if closed is not None else 0,
        )
        self._store.participant_left(stay)
        self._rooms.audit(
            AuditEvent.ROOM_LEFT,
            address=connection.address,
            user_agent=connection.user_agent,
            user=stay.user,
            room=stay.room,
            role=stay.role,
            client=connection.client_id,
            reason=reason,
            code=closed.code if closed is not None else None,
        )

    def _answer_error(self, sender: Connection, code: ErrorCode, message: str) -> None:
        self._media.send(sender.id, encode(server.Error(code, message)))

    def _refuse(
        self,
        sender: Connection,
        code: ErrorCode,
        message: str,
        *,
        room: str | None = None,
        url: str | None = None,
    ) -> None:
        """Closes a connection for what it said; `room` is the one it named."""
        self._audit_refusal(sender, code, self._rooms.find(room) if room else sender.room)
        dismiss(self._media, sender, LeaveReason.REFUSED, code, message, url=url)

    def _audit_refusal(self, sender: Connection, code: ErrorCode, room: Room | None) -> None:
        token_refused = code.close_code is CloseCode.TOKEN_INVALID
        self._rooms.audit(
            AuditEvent.INVALID_TOKEN if token_refused else AuditEvent.ROOM_ACCESS_DENIED,
            address=sender.address,
            limit_key=sender.limit_key,
            user_agent=sender.user_agent,
            user=sender.token.user if sender.token is not None else None,
            room=room.id if room is not None else None,
            client=sender.client_id,
            code=code,
        )

    def _renew_tokens(self) -> None:
        """Sends a new token over every connection whose own is about to expire.

        One sweep for all: a timer for each of many thousand listeners would cost more.
        """
        self._renew_slice([c for c in self._by_id.values() if self._needs_token(c)])

    def _renew_slice(self, due: list[Connection]) -> None:
        """Renews the last few of `due` and leaves the others for the loop's next round."""
        for _ in range(min(RENEWALS_AT_ONCE, len(due))):
            connection = due.pop()
            token = connection.token
            if (
                token is None
                or connection.id not in self._by_id
                or not self._needs_token(connection)
            ):
                continue  # gone or registered anew since the sweep began
            text, connection.token = self._tokens.renew_room(token)
            renewed = server.RoomToken(text, connection.token.expires * 1_000_000)
            self._media.send(connection.id, encode(renewed))
        if due:
            self._renewal = self._timers.call_later(0, lambda: self._renew_slice(due))
        else:
            self._renewal = self._timers.call_later(self._renewal_lead_s / 4, self._renew_tokens)

    def _needs_token(self, connection: Connection) -> bool:
        if connection.room is None or connection.token is None or connection.leaving is not None:
            return False
        return self._tokens.expires_within(connection.token, self._renewal_lead_s)
