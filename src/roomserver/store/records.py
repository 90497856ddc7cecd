"""Rows: immutable values that the stores take and give. Times are Unix seconds.

Those of which every listener makes some are msgspec's, which takes a fraction of the time for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self
from uuid import UUID, uuid5

from msgspec import Meta, Struct

from roomserver.protocol.codes import Role, RoomCloseReason, RoomState

KEEP_INVITES_S = 30 * 86_400.0  # so long after they expired
# Of accounts that have no password: looks like bcrypt, and nothing hashes to it.
UNUSABLE_HASH = b"$2b$12$" + b"." * 53


def anonymous_email(account_id: str) -> str:
    """The address of an account that is nobody's any more; nothing can be delivered there."""
    return f"{account_id}@anonymous.invalid"


class Place(NamedTuple):
    """Where in a list, newest first, something stands: what is older comes after it."""

    at_us: Annotated[int, Meta(ge=0, le=2**53)]  # Unix us
    id: UUID

    @classmethod
    def of(cls, at: float, id: str) -> Self:  # noqa: A002
        """Of a record with this time and id."""
        return cls(round(at * 1e6), UUID(id))

    @property
    def time(self) -> datetime:
        """As the database has it."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.at_us)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may make rooms."""

    id: str
    email: str
    password_hash: bytes = field(repr=False)
    role: Literal["user", "admin"]
    created_at: float
    disabled_at: float | None = None
    session_version: int = 1  # access tokens of an earlier one are refused


@dataclass(frozen=True, slots=True)
class AccountInvite:
    """Leave to make one account, given by an administrator; of its token only the hash is kept."""

    id: str
    hash: bytes = field(repr=False)
    email: str | None  # None: for whoever has it
    role: Literal["user", "admin"]
    created_by: str
    created_at: float
    expires_at: float
    used_at: float | None = None
    used_by: str | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token to keep: only its hash, and the family it descends in."""

    hash: bytes = field(repr=False)
    family: str
    user: str
    issued_at: float
    expires_at: float


class Rotation(StrEnum):
    """What became of a refresh token that was presented."""

    ROTATED = "rotated"
    UNKNOWN = "unknown"  # never issued, expired, or its family was revoked before
    REUSED = "reused"  # used before, and not by the grace rule: its family is revoked now


@dataclass(frozen=True, slots=True)
class BanRecord:
    """Who may not come into a room: any of these that is given is enough."""

    id: str
    participant: str | None
    user: str | None
    address: str | None  # one address, or the /64 of an IPv6 one
    reason: str | None
    created_by: str | None
    created_at: float

    @property
    def place(self) -> Place:
        """Where it stands in a list."""
        return Place.of(self.created_at, self.id)


@dataclass(frozen=True, slots=True)
class InviteRecord:
    """Leave to come into a room without its password; of its secret only the hash is kept."""

    id: str
    room: str
    hash: bytes = field(repr=False)
    created_by: str
    created_at: float
    expires_at: float
    max_uses: int | None = None  # None: any number
    uses: int = 0
    revoked_at: float | None = None

    @property
    def place(self) -> Place:
        """Where it stands in a list."""
        return Place.of(self.created_at, self.id)


@dataclass(frozen=True, slots=True)
class RoomRecord:
    """A room as it is kept. `version` grows with every change."""

    id: str
    code: str
    name: str
    password_hash: bytes | None = field(repr=False)  # None: open to everyone
    created_by: str | None
    created_at: float
    public: bool
    metadata: dict[str, Any]
    state: RoomState = RoomState.WAITING
    permanent: bool = False
    suspended_until: float | None = None
    closed_at: float | None = None
    close_reason: RoomCloseReason | None = None
    max_listeners: int = 0  # 0: as many as the server admits
    channel_names: tuple[str, ...] | None = None  # of its last source, or as the owner set them
    grace_s: float | None = None  # None: the server's own setting
    held: bool = False  # suspended by its owner: no source until it is resumed
    token_version: int = 1  # room tokens of an earlier one are refused
    bans: tuple[BanRecord, ...] = ()  # in force, oldest first
    version: int = 1

    @property
    def place(self) -> Place:
        """Where it stands in a list."""
        return Place(round(self.created_at * 1_000_000), UUID(self.id))


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An open room that another server has."""

    id: str
    url: str | None  # where clients find that server, if it says so
    password_hash: bytes | None = field(repr=False)
    created_by: str | None


class LeaveReason(StrEnum):
    """Why a participant's connection ended: a closed list."""

    LEFT = "left"  # closed by the client
    LOST = "lost"  # the connection broke
    PROTOCOL_ERROR = "protocol_error"
    RATE_LIMITED = "rate_limited"
    TOO_SLOW = "too_slow"
    SILENT = "silent"
    TAKEN_OVER = "taken_over"
    SUSPENDED = "suspended"  # a source whose room its owner suspended
    KICKED = "kicked"
    BANNED = "banned"
    REVOKED = "revoked"  # its token was revoked
    REFUSED = "refused"  # closed by a rule
    ROOM_CLOSED = "room_closed"
    SHUTDOWN = "shutdown"
    # In the database alone: nobody could tell the end, since the server died, or had to drop it.
    SERVER_LOST = "server_lost"


def stay_id(connection: str, number: int) -> str:
    """Which stay of a connection; the id of its first is its own."""
    return connection if number == 1 else str(uuid5(UUID(connection), str(number)))


class ParticipantRecord(Struct, frozen=True):
    """One stay of a participant in a room; written whole when it ends.

    `frames_sent`: to a listener; of a broadcaster, the packets that came from it.
    `latency_ms`: the mean of what the player measured.
    """

    room: str
    participant: str
    connection: str
    role: Role
    user: str | None
    nickname: str | None
    address: str
    joined_at: float
    user_agent: str | None = None
    left_at: float | None = None
    duration_s: float | None = None  # by the monotonic clock
    reason: LeaveReason | None = None
    frames_sent: int = 0
    frames_dropped: int = 0
    latency_ms: float | None = None
    number: int = 1  # of the connection's stays: it may register again after it unregistered

    @property
    def id(self) -> str:
        """Which stay this is."""
        return stay_id(self.connection, self.number)


@dataclass(frozen=True, slots=True)
class StatisticsRecord:
    """A room's whole life, broadcasters left out."""

    participants: int  # different ones, however often they came
    sessions: int
    listen_seconds: float
    average_session_seconds: float
    peak_listeners: int


@dataclass(frozen=True, slots=True)
class DayRecord:
    """A room on one day (UTC)."""

    date: date
    peak_listeners: int
    total_listen_minutes: float
    total_listeners: int
    avg_latency_ms: float | None
    total_packets_sent: int
    total_packets_received: int
    final: bool = False  # will not change any more


class AuditEvent(StrEnum):
    """What the audit log holds."""

    LOGIN_SUCCESS = "login_success"
    LOGIN_FAILURE = "login_failure"
    ROOM_CREATED = "room_created"
    ROOM_JOINED = "room_joined"
    ROOM_LEFT = "room_left"
    ROOM_CLOSED = "room_closed"
    ROOM_UPDATED = "room_updated"
    ROOM_SUSPENDED = "room_suspended"
    ROOM_RESUMED = "room_resumed"
    ROOM_PASSWORD_CHANGED = "room_password_changed"  # noqa: S105
    PARTICIPANT_KICKED = "participant_kicked"
    PARTICIPANT_BANNED = "participant_banned"
    BAN_LIFTED = "ban_lifted"
    MIX_SET = "mix_set"  # a listener's, by the owner
    INVITE_CREATED = "invite_created"
    INVITE_REVOKED = "invite_revoked"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    ROOM_ACCESS_DENIED = "room_access_denied"
    REQUEST_REFUSED = "request_refused"
    TOKEN_REFRESH = "token_refresh"  # noqa: S105
    TOKEN_THEFT = "token_theft"  # noqa: S105
    LOGOUT = "logout"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    ACCOUNT_CREATED = "account_created"
    ACCOUNT_DISABLED = "account_disabled"
    ACCOUNT_ENABLED = "account_enabled"
    ACCOUNT_ROLE_CHANGED = "account_role_changed"
    ACCOUNT_INVITED = "account_invited"
    ACCOUNT_INVITE_REVOKED = "account_invite_revoked"
    ACCOUNT_ANONYMISED = "account_anonymised"


class AuditRecord(Struct, frozen=True):
    """One line of the audit log. Never holds a password or a token."""

    event: AuditEvent
    at: float
    address: str | None = None
    user: str | None = None
    room: str | None = None
    user_agent: str | None = None
    details: dict[str, Any] = {}  # its own: msgspec copies it
