"""Every request that is answered is counted, by route and status."""

from __future__ import annotations

import time

from aiohttp import web

from roomserver.edge.problems import Handler
from roomserver.edge.services import SERVICES

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Instead of what a client made up, which has no end.
OTHER = "other"


@web.middleware
async def meter_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts; stands outside of what makes answers of errors."""
    began = time.monotonic()
    response = await handler(request)
    resource = request.match_info.route.resource
    request.app[SERVICES].metrics.requests.answered(
        request.method if request.method in METHODS else OTHER,
        resource.canonical if resource is not None else OTHER,
        response.status,
        time.monotonic() - began,
    )
    return response
