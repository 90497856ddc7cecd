"""How the server itself is."""

from __future__ import annotations

import hmac
from typing import Literal

from aiohttp import web
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST

import relaycore
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import authenticate, bearer_token

RETRY_READY_S = 5.0


class Health(Struct, rename="camel"):
    """Answer of `GET /health`."""

    status: str
    version: str
    rooms: int
    connections: int


class ServerAnswer(Struct, rename="camel"):
    """Answer of `GET /api/server`."""

    version: str
    registration: Literal["open", "invite", "closed"]
    max_room_listeners: int | None  # None: no limit


class Alive(Struct, rename="camel"):
    """Answer of `GET /healthz` and `GET /readyz`."""

    status: str


DESCRIPTION = web.AppKey("description", bytes)
"""What `/openapi.json` answers, made once."""
METRICS_OPEN = web.AppKey("metrics_open", bool)
"""Whether the application's address is one that only those reach who may see metrics."""

api = Api()


@api.get("/health")
async def health(call: Call) -> Health:
    """Whether the server is alive, and how much it does."""
    services = call.services
    return Health("ok", relaycore.__version__, len(services.rooms), len(services.connections))


@api.get("/api/server")
async def about(call: Call) -> ServerAnswer:
    """What a client has to know before anybody logs in."""
    services = call.services
    return ServerAnswer(
        relaycore.__version__, services.registration, services.rooms.max_listeners or None
    )


@api.get("/healthz")
async def healthz(call: Call) -> Alive:
    """Whether the server is alive: restart it when this fails."""
    return Alive("alive")


@api.get("/readyz", problems=[ProblemCode.NOT_READY])
async def readyz(call: Call) -> Alive:
    """Whether new clients are welcome: send them elsewhere while this fails."""
    reasons = await call.services.metrics.not_ready()
    if reasons:
        problem = Problem.later(ProblemCode.NOT_READY, ", ".join(reasons), after_s=RETRY_READY_S)
        problem.event = None  # asked every few seconds: nothing for the audit log
        raise problem
    return Alive("ready")


@api.get(
    "/metrics",
    problems=[
        ProblemCode.UNAUTHORIZED,
        ProblemCode.TOKEN_INVALID,
        ProblemCode.TOKEN_EXPIRED,
        ProblemCode.NOT_ALLOWED,
        ProblemCode.DATABASE_AWAY,
    ],
)
async def metrics(call: Call) -> web.Response:
    """Figures for Prometheus, for those who may see them."""
    if not call.request.app[METRICS_OPEN]:
        await _check_scraper(call)
    body = await call.services.metrics.text()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


@api.get("/openapi.json")
async def description(call: Call) -> web.Response:
    """The description of this interface (OpenAPI 3.1)."""
    body = call.request.app[DESCRIPTION]
    return web.Response(body=body, content_type="application/json")


async def _check_scraper(call: Call) -> None:
    """The configured token, or an administrator's access token. Raises Problem (401, 403)."""
    wanted = call.services.metrics_token
    presented = bearer_token(call.request)
    if (
        wanted is not None
        and presented is not None
        and hmac.compare_digest(presented.encode(errors="replace"), wanted.encode())
    ):
        return
    if (await authenticate(call.request, in_doubt=False)).role != "admin":
        raise Problem(ProblemCode.NOT_ALLOWED, "this is for administrators")
