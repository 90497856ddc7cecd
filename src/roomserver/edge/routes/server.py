"""How the server itself is."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

import relaycore
from roomserver.edge.endpoints import Api, Call


class Health(Struct, rename="camel"):
    """Answer of `GET /health`."""

    status: str
    version: str
    rooms: int
    connections: int


DESCRIPTION = web.AppKey("description", bytes)
"""What `/openapi.json` answers, made once."""

api = Api()


@api.get("/health")
async def health(call: Call) -> Health:
    """Whether the server is alive, and how much it does."""
    services = call.services
    return Health("ok", relaycore.__version__, len(services.rooms), len(services.connections))


@api.get("/openapi.json")
async def description(call: Call) -> web.Response:
    """The description of this interface (OpenAPI 3.1)."""
    body = call.request.app[DESCRIPTION]
    return web.Response(body=body, content_type="application/json")
