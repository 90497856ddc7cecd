"""The routes as an aiohttp application: for everybody, and those of administrators apart."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from roomserver.edge.cors import share_with_origins
from roomserver.edge.endpoints import Endpoint
from roomserver.edge.handover import PATH, refuse
from roomserver.edge.metering import meter_requests
from roomserver.edge.openapi import describe
from roomserver.edge.pages import add_pages
from roomserver.edge.problems import problems
from roomserver.edge.routes import ENDPOINTS
from roomserver.edge.routes.server import DESCRIPTION, METRICS_OPEN
from roomserver.edge.services import SERVICES, Services

PRIVATE = ("/metrics", "/api/admin/")
# On a private address too, for what watches over the server.
EVERYWHERE = ("/health", "/healthz", "/readyz", "/openapi.json")


def public_application(
    services: Services, *, max_body_bytes: int, with_private: bool
) -> web.Application:
    """What everybody may reach.

    with_private: also what administrators use, because it has no address of its own.
    """
    endpoints = [each for each in ENDPOINTS if with_private or not _is_private(each)]
    app = _application(services, endpoints, max_body_bytes)
    app.router.add_get(PATH, refuse, allow_head=False)
    add_pages(app, services.origins, services.addresses)
    return app


def private_application(services: Services, *, max_body_bytes: int) -> web.Application:
    """What administrators use, for an address that only they can reach: metrics ask for nothing."""
    endpoints = [each for each in ENDPOINTS if _is_private(each) or each.path in EVERYWHERE]
    app = _application(services, endpoints, max_body_bytes)
    app[METRICS_OPEN] = True
    return app


def _is_private(endpoint: Endpoint) -> bool:
    return endpoint.path.startswith(PRIVATE)


def _application(
    services: Services, endpoints: Sequence[Endpoint], max_body_bytes: int
) -> web.Application:
    app = web.Application(
        middlewares=[meter_requests, problems, share_with_origins],
        client_max_size=max_body_bytes,
    )
    app[SERVICES] = services
    app[DESCRIPTION] = msgspec.json.encode(describe(endpoints))
    app[METRICS_OPEN] = False
    for endpoint in endpoints:
        app.router.add_route(endpoint.method, endpoint.path, endpoint.__call__)
    return app
