"""The routes of the REST interface, a module for each of its parts."""

from roomserver.edge.endpoints import Endpoint
from roomserver.edge.routes import (
    accounts,
    audience,
    directory,
    invites,
    listening,
    moderation,
    reports,
    room_changes,
    rooms,
    server,
    users,
)

ENDPOINTS: tuple[Endpoint, ...] = (
    *server.api,
    *accounts.api,
    *listening.api,
    *rooms.api,
    *room_changes.api,
    *directory.api,
    *audience.api,
    *moderation.api,
    *invites.api,
    *reports.api,
    *users.api,
)
"""All of them."""
