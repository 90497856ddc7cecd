"""What the owner does with those in a room: kick, ban, and a hand on their mix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from roomserver.protocol.client import MixFields
from roomserver.protocol.codes import ErrorCode, Role
from roomserver.protocol.server import MixState
from roomserver.rooms.bans import Bans
from roomserver.rooms.connection import Connection
from roomserver.rooms.control import RoomControl
from roomserver.rooms.dismissal import dismiss
from roomserver.rooms.mixes import mix_changed, put_in_force
from roomserver.rooms.ports import MediaVerbs
from roomserver.rooms.room import Room
from roomserver.rooms.subscriptions import merge_mix
from roomserver.store.records import BanRecord, LeaveReason, RoomRecord

MAX_BANS = 200  # of a room, in force at a time: each change of the room carries them
KICKED = "you were removed from the room"
BANNED = "you were banned from the room"
# A fader that is dragged is told once: so long after that its mix was set is no news.
MIX_TOLD_S = 60.0
MOST_TOLD = 1000


class TooManyBansError(Exception):
    """The room has as many bans as it may."""


@dataclass(frozen=True, slots=True)
class Whom:
    """Who is meant: any of these that is given is enough."""

    connection: str | None = None  # a client's id
    participant: str | None = None
    user: str | None = None


class Moderation:
    """Runs in the event loop's thread; a ban is kept first, and then takes effect at once."""

    def __init__(self, *, media: MediaVerbs, control: RoomControl) -> None:
        self._media = media
        self._control = control
        self._told: dict[str, float] = {}  # participant -> when their mix was set, last told

    def present(self, room: Room, whom: Whom) -> list[Connection]:
        """The connections in the room that are meant, the one that came last at the end."""
        there = [connection for connection in _connections(room) if _is_meant(connection, whom)]
        return sorted(there, key=lambda connection: connection.joined_us)

    def kick(self, room: Room, whom: Whom, reason: str | None) -> list[Connection]:
        """Closes their connections; they may come again. Those that were closed."""
        kicked = self.present(room, whom)
        for connection in kicked:
            dismiss(self._media, connection, LeaveReason.KICKED, ErrorCode.KICKED, reason or KICKED)
        return kicked

    def hit_by(self, room: Room, ban: BanRecord) -> list[Connection]:
        """The connections that the ban would close."""
        bans = Bans([ban])
        owner = room.record.created_by
        return [
            connection
            for connection in _connections(room)
            if connection.token is not None
            and connection.leaving is None
            and bans.refuse(connection.token, connection.limit_key, owner=owner)
        ]

    async def ban(self, room: Room, ban: BanRecord) -> list[Connection]:
        """Bans somebody: refused from now on, and closed. Those that were.

        Raises TooManyBansError, RoomClosedError, and OutboxError when it could not be kept.
        """

        def banned(record: RoomRecord) -> RoomRecord:
            if len(record.bans) >= MAX_BANS:
                raise TooManyBansError
            return replace(record, bans=(*record.bans, ban))

        await self._control.change(room, banned)
        hit = self.hit_by(room, ban)
        for connection in hit:
            dismiss(
                self._media, connection, LeaveReason.BANNED, ErrorCode.BANNED, ban.reason or BANNED
            )
        return hit

    async def lift(self, room: Room, ban_id: str) -> bool:
        """Ends a ban; False when the room has none with this id.

        Raises RoomClosedError, and OutboxError when it could not be kept.
        """

        def lifted(record: RoomRecord) -> RoomRecord:
            return replace(record, bans=tuple(ban for ban in record.bans if ban.id != ban_id))

        if all(ban.id != ban_id for ban in room.record.bans):
            return False
        await self._control.change(room, lifted)
        return True

    def mix_of(self, room: Room, participant: str) -> MixState | None:
        """The mix of a participant who listens, of their latest connection."""
        listening = self._listening(room, participant)
        if not listening:
            return None
        subscription = listening[-1].subscription
        assert subscription is not None
        return subscription.mix

    def set_mix(self, room: Room, participant: str, change: MixFields) -> MixState | None:
        """Changes a participant's mix from the next frame on, as `setMix` does; None if away."""
        for connection in self._listening(room, participant):
            assert connection.subscription is not None
            mix = merge_mix(connection.subscription.mix, change)
            put_in_force(self._media, connection, mix, reply=mix_changed(mix))
        return self.mix_of(room, participant)

    def is_news(self, room: Room, participant: str) -> bool:
        """Whether it is to be told that the participant's mix was set."""
        if self._told.get(participant, -MIX_TOLD_S) + MIX_TOLD_S > room.now:
            return False
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[participant] = room.now
        return True

    def _listening(self, room: Room, participant: str) -> list[Connection]:
        there = self.present(room, Whom(participant=participant))
        return [connection for connection in there if connection.role is Role.LISTENER]


def _connections(room: Room) -> Iterator[Connection]:
    if room.source is not None:
        yield room.source
    yield from room.listeners


def _is_meant(connection: Connection, whom: Whom) -> bool:
    token = connection.token
    if token is None or connection.leaving is not None:
        return False
    return (
        (whom.connection is not None and whom.connection == connection.client_id)
        or (whom.participant is not None and whom.participant == token.participant)
        or (whom.user is not None and whom.user == token.user)
    )
