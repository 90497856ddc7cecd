"""What the routes work with; made by the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from roomserver.auth.accounts import Accounts
from roomserver.auth.passwords import RoomPasswords
from roomserver.auth.tokens import Tokens
from roomserver.edge.addresses import ClientAddresses
from roomserver.edge.failures import FailureLimiter
from roomserver.rooms.connections import Connections
from roomserver.rooms.registry import Rooms


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts behind the routes."""

    accounts: Accounts
    room_passwords: RoomPasswords
    tokens: Tokens
    rooms: Rooms
    connections: Connections
    addresses: ClientAddresses
    login_failures: FailureLimiter
    join_failures: FailureLimiter
    allowed_origins: frozenset[str]


SERVICES = web.AppKey("services", Services)
