"""The record of one connection: all that Python holds of a participant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roomserver.auth.tokens import RoomToken
from roomserver.protocol.client import Stats
from roomserver.protocol.codes import Role
from roomserver.protocol.server import SubscriptionState
from roomserver.store.records import LeaveReason, ParticipantRecord, stay_id

if TYPE_CHECKING:
    from roomserver.rooms.room import Room


@dataclass(slots=True, eq=False)
class Connection:
    """A WebSocket that the relay holds. `room` is set while it is registered."""

    id: int
    client_id: str
    address: str
    limit_key: str  # what limits count by: the address or its network
    user_agent: str | None = None
    room: Room | None = None
    role: Role | None = None  # what it registered as
    token: RoomToken | None = None
    nickname: str | None = None
    subscription: SubscriptionState | None = None  # of a listener
    latency_sum_ms: float = 0.0
    latencies: int = 0  # how many are in that sum
    stats: Stats | None = None  # what its player measured last
    stats_us: int = 0  # when, on the server's clock
    joined_us: int = 0
    stays: int = 0  # how many have begun
    # Set when we close it: why. Texts that arrive after that are ignored.
    leaving: LeaveReason | None = None

    def measured(self, stats: Stats, at_us: int) -> None:
        """What the player measured; `at_us` on the server's clock."""
        self.stats, self.stats_us = stats, at_us
        if stats.latency_ms is not None:
            self.latency_sum_ms += stats.latency_ms
            self.latencies += 1

    @property
    def stay_id(self) -> str:
        """Of the stay that began with the registration."""
        return stay_id(self.client_id, self.stays)

    def stay(self) -> ParticipantRecord:
        """The stay that began with the registration. Only for a registered connection."""
        assert self.room is not None
        assert self.role is not None
        assert self.token is not None
        return ParticipantRecord(
            room=self.room.id,
            participant=self.token.participant,
            connection=self.client_id,
            role=self.role,
            user=self.token.user,
            nickname=self.nickname,
            address=self.address,
            joined_at=self.joined_us / 1e6,
            user_agent=self.user_agent,
            latency_ms=self.latency_sum_ms / self.latencies if self.latencies else None,
            number=self.stays,
        )
