"""Codes of the wire: close codes, error codes, states and reasons. Stable; never renumbered."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class CloseCode(IntEnum):
    """Why a WebSocket connection was closed (docs/protocol.md, close codes)."""

    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003  # binary from a listener
    BAD_UTF8 = 1007
    TOO_BIG = 1009
    MALFORMED = 4400
    TOKEN_INVALID = 4401
    NOT_ALLOWED = 4403
    ROOM_NOT_FOUND = 4404
    NOT_REGISTERED = 4408
    TAKEN_OVER = 4409
    ROOM_CLOSED = 4410
    TOO_SLOW = 4413
    WRONG_SERVER = 4421
    LIMITED = 4429  # room full, or rate limited


class ErrorCode(StrEnum):
    """`code` of an `error` message."""

    MALFORMED = "malformed"  # not a JSON object with a type
    UNKNOWN_TYPE = "unknown_type"
    INVALID_MESSAGE = "invalid_message"  # a field is missing, of a wrong type or out of bounds
    NOT_REGISTERED = "not_registered"
    ALREADY_REGISTERED = "already_registered"
    NOT_ALLOWED = "not_allowed"  # the role of the token, or of the connection, does not permit it
    TOKEN_INVALID = "token_invalid"  # noqa: S105
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    ROOM_NOT_FOUND = "room_not_found"  # also: the token is for another
    ROOM_CLOSED = "room_closed"
    ROOM_FULL = "room_full"
    ROOM_SUSPENDED = "room_suspended"  # by its owner: no source until it is resumed
    KICKED = "kicked"  # by the owner; may come again
    BANNED = "banned"  # by the owner
    RATE_LIMITED = "rate_limited"  # too many requests of this connection are under way
    TOO_MANY_CONNECTIONS = "too_many_connections"  # with this token, or in all
    PRESET_NOT_FOUND = "preset_not_found"
    TOO_MANY_PRESETS = "too_many_presets"
    DATABASE_AWAY = "database_away"
    INTERNAL = "internal"  # our fault
    SOURCE_EXISTS = "source_exists"
    SOURCE_TAKEN_OVER = "source_taken_over"
    WRONG_SERVER = "wrong_server"  # the room is on another server, whose `url` comes with it

    @property
    def close_code(self) -> CloseCode:
        """The code a connection is closed with when its registration fails for this reason."""
        return _CLOSE_CODES[self]


_CLOSE_CODES = {
    ErrorCode.MALFORMED: CloseCode.MALFORMED,
    ErrorCode.UNKNOWN_TYPE: CloseCode.MALFORMED,
    ErrorCode.INVALID_MESSAGE: CloseCode.MALFORMED,
    ErrorCode.NOT_REGISTERED: CloseCode.MALFORMED,
    ErrorCode.ALREADY_REGISTERED: CloseCode.MALFORMED,
    ErrorCode.NOT_ALLOWED: CloseCode.NOT_ALLOWED,
    ErrorCode.TOKEN_INVALID: CloseCode.TOKEN_INVALID,
    ErrorCode.TOKEN_EXPIRED: CloseCode.TOKEN_INVALID,
    ErrorCode.ROOM_NOT_FOUND: CloseCode.ROOM_NOT_FOUND,
    ErrorCode.ROOM_CLOSED: CloseCode.ROOM_CLOSED,
    ErrorCode.ROOM_FULL: CloseCode.LIMITED,
    ErrorCode.ROOM_SUSPENDED: CloseCode.NOT_ALLOWED,
    ErrorCode.KICKED: CloseCode.NOT_ALLOWED,
    ErrorCode.BANNED: CloseCode.NOT_ALLOWED,
    ErrorCode.RATE_LIMITED: CloseCode.LIMITED,
    ErrorCode.TOO_MANY_CONNECTIONS: CloseCode.LIMITED,
    ErrorCode.PRESET_NOT_FOUND: CloseCode.MALFORMED,
    ErrorCode.TOO_MANY_PRESETS: CloseCode.LIMITED,
    ErrorCode.DATABASE_AWAY: CloseCode.LIMITED,
    ErrorCode.INTERNAL: CloseCode.GOING_AWAY,
    ErrorCode.SOURCE_EXISTS: CloseCode.NOT_ALLOWED,
    ErrorCode.SOURCE_TAKEN_OVER: CloseCode.TAKEN_OVER,
    ErrorCode.WRONG_SERVER: CloseCode.WRONG_SERVER,
}


class RoomState(StrEnum):
    """`waiting → active ⇄ suspended → closed`."""

    WAITING = "waiting"  # made, no source yet, no deadline
    ACTIVE = "active"  # a source is registered
    SUSPENDED = "suspended"  # the source is gone; closed when the grace period is over
    CLOSED = "closed"


class RoomCloseReason(StrEnum):
    """`reason` of `roomClosed`."""

    CLOSED_BY_OWNER = "closed_by_owner"
    CLOSED_BY_ADMIN = "closed_by_admin"
    OWNER_DISABLED = "owner_disabled"  # an administrator disabled the account that made it
    SOURCE_GONE = "source_gone"  # the grace period passed
    EXPIRED = "expired"  # its owner suspended it and did not resume it in time


class Role(StrEnum):
    """What a room token lets its bearer be."""

    BROADCASTER = "broadcaster"
    LISTENER = "listener"
