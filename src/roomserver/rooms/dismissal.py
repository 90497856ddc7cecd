"""Closing somebody's connection by a rule of ours: why is told, and kept."""

from __future__ import annotations

from msgspec import UNSET

from roomserver.protocol import server
from roomserver.protocol.codec import encode
from roomserver.protocol.codes import ErrorCode
from roomserver.rooms.connection import Connection
from roomserver.rooms.ports import MediaVerbs
from roomserver.store.records import LeaveReason


def dismiss(
    media: MediaVerbs,
    connection: Connection,
    reason: LeaveReason,
    code: ErrorCode,
    message: str,
    *,
    url: str | None = None,
) -> None:
    """Closes a connection behind an `error` that says why; what it says from now on is ignored.

    url: of the right server, for `wrong_server`.
    """
    connection.leaving = reason
    text = encode(server.Error(code, message, url if url is not None else UNSET))
    media.close_connection(connection.id, code.close_code, code.value, text=text)
