"""What the routes work with; made by the composition root."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from roomserver.auth.accounts import Accounts
from roomserver.auth.passwords import RoomPasswords
from roomserver.auth.tokens import Tokens
from roomserver.edge.addresses import ClientAddresses
from roomserver.edge.limits import Limits
from roomserver.edge.origins import Origins
from roomserver.metrics import Metrics
from roomserver.rooms.connections import Connections
from roomserver.rooms.control import RoomControl
from roomserver.rooms.invites import Invites
from roomserver.rooms.moderation import Moderation
from roomserver.rooms.owners import DisabledOwners
from roomserver.rooms.registry import Rooms
from roomserver.store.directory import RoomDirectory
from roomserver.store.reports import Reports


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts behind the routes."""

    accounts: Accounts
    registration: Literal["open", "invite", "closed"]
    owners: DisabledOwners
    room_passwords: RoomPasswords
    tokens: Tokens
    rooms: Rooms
    room_control: RoomControl
    moderation: Moderation
    invites: Invites
    public_url: str  # empty: as each request names it
    room_directory: RoomDirectory
    reports: Reports
    connections: Connections
    addresses: ClientAddresses
    limits: Limits
    origins: Origins
    metrics: Metrics
    metrics_token: str | None = field(repr=False)
    """By which metrics may be read where they are not open."""


SERVICES = web.AppKey("services", Services)
