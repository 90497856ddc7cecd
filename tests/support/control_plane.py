"""Rooms and connections over a fake relay: the control plane without sockets."""

from __future__ import annotations

import json
from typing import Any

from roomserver.auth.passwords import PasswordPool, RoomPasswords
from roomserver.auth.tokens import Keys, Tokens
from roomserver.protocol.codes import Role
from roomserver.rooms.connections import Connections
from roomserver.rooms.control import RoomControl
from roomserver.rooms.moderation import Moderation
from roomserver.rooms.places import Places
from roomserver.rooms.ports import Closed
from roomserver.rooms.presets import Presets
from roomserver.rooms.registry import Rooms
from roomserver.rooms.room import Room
from roomserver.store.memory import MemoryRoomStore
from roomserver.store.presets import MemoryPresetStore
from roomserver.store.records import LeaveReason
from support.fake_media import START_S, FakeMedia, FakeTimers

SECRET = b"0123456789abcdef0123456789abcdef"


class ControlPlane:
    """One of everything, with time that passes when told to."""

    def __init__(
        self,
        *,
        room_s: float = 43_200.0,
        grace_s: float = 300.0,
        max_connections: int = 0,
        max_per_participant: int = 0,
    ) -> None:
        self.timers = FakeTimers()
        self.stepped_s = 0.0  # how far the system's clock is ahead of the relay's, which is not set
        self.media = FakeMedia(self.timers)
        self.store = MemoryRoomStore(now=self.now)
        self.pool = PasswordPool("test", rounds=4, threads=1, queue=8)
        self.passwords = RoomPasswords(self.pool)
        self.tokens = Tokens(Keys(SECRET), access_s=900, room_s=room_s, now=self.now)
        self.rooms = Rooms(
            media=self.media,
            store=self.store,
            passwords=self.passwords,
            timers=self.timers,
            grace_s=grace_s,
        )
        self.control = RoomControl(
            rooms=self.rooms,
            store=self.store,
            media=self.media,
            tokens=self.tokens,
            passwords=self.passwords,
        )
        self.moderation = Moderation(media=self.media, control=self.control)
        self.connections = Connections(
            media=self.media,
            rooms=self.rooms,
            store=self.store,
            tokens=self.tokens,
            presets=Presets(MemoryPresetStore(), self.media),
            timers=self.timers,
            places=Places(
                max_connections=max_connections,
                max_unregistered=4,
                max_per_participant=max_per_participant,
            ),
            max_interval_ms=500,
        )

    def now(self) -> float:
        return START_S + self.timers.now + self.stepped_s

    def close(self) -> None:
        self.connections.stop()
        self.rooms.stop()
        self.pool.close()

    async def room(self, owner: str = "owner", **wishes: Any) -> Room:
        """A new room."""
        room, _ = await self.rooms.create(owner=owner, **{"password": b"password", **wishes})
        return room

    def connect(self, address: str = "192.0.2.1") -> int:
        """A new connection; its id."""
        before = set(self.media.sent)
        self.connections.admit(3, b"", address, address)
        (connection,) = set(self.media.sent) - before
        return connection

    def say(self, connection: int, message: dict[str, Any] | str) -> dict[str, Any]:
        """A text of a client; the newest text it got back."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.connections.text_received(connection, text, self.media.clock_us())
        return self.media.last(connection)

    def token(self, room: Room, role: Role, **claims: Any) -> str:
        """A room token."""
        return self.tokens.issue_room(room.id, role, **claims)[0]

    def add_source(
        self, room: Room, *, user: str | None = "owner", connection: int | None = None, **wish: Any
    ) -> int:
        """Registers a source; its connection."""
        connection = self.connect() if connection is None else connection
        self.say(
            connection,
            {
                "type": "registerSource",
                "roomId": room.id,
                "roomToken": self.token(room, Role.BROADCASTER, user=user),
                "channels": 2,
                "sampleRate": 48000,
                "encoding": "pcm_s16le",
                **wish,
            },
        )
        return connection

    def add_listener(self, room: Room, **wish: Any) -> int:
        """Registers a listener, with a token of its own unless told; its connection."""
        connection = self.connect()
        self.say(
            connection,
            {
                "type": "registerListener",
                "roomId": room.id,
                "roomToken": self.token(room, Role.LISTENER),
                **wish,
            },
        )
        return connection

    def hang_up(
        self,
        connection: int,
        reason: LeaveReason = LeaveReason.LOST,
        code: int = 1006,
        detail: str = "",
    ) -> None:
        """The connection is over."""
        self.connections.connection_closed(
            connection, Closed(reason, code, detail, 10, 2, 1000, 100, 1.5)
        )
