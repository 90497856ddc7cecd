"""Pages of other origins: browsers learn who may ask, and who may read the answers."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from roomserver.edge.addresses import Asker
from roomserver.edge.problems import ON_ANSWER, Handler, Problem, ProblemCode
from roomserver.edge.services import SERVICES, Services

METHODS = "GET, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = "Authorization, Content-Type"
PREFLIGHT_S = 600


def refuse_foreign_page(services: Services, request: Asker) -> None:
    """Raises Problem (403) when a page that may not use this server asks."""
    if not services.origins.admits(request):
        raise Problem(ProblemCode.ORIGIN_NOT_ALLOWED, "pages of that origin may not do this")


@web.middleware
async def share_with_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """CORS: answers the question that browsers ask first, and lets pages read answers."""
    services = request.app[SERVICES]
    if headers := sharing_headers(services, request):
        request[ON_ANSWER].append(lambda response: _share(response, headers))
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        refuse_foreign_page(services, request)
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": METHODS,
                "Access-Control-Allow-Headers": REQUEST_HEADERS,
                "Access-Control-Max-Age": str(PREFLIGHT_S),
            },
        )
    return await handler(request)


def sharing_headers(services: Services, request: Asker) -> Mapping[str, str]:
    """What has to stand in the answer so that pages may read it, if any of other origins may."""
    if not services.origins.share:
        return {}
    # Also in an answer to no page at all: a cache must not give it to one.
    return {**services.origins.headers(request), "Vary": "Origin"}


def _share(response: web.StreamResponse, headers: Mapping[str, str]) -> None:
    vary = response.headers.getall("Vary", [])
    response.headers.update(headers)
    response.headers["Vary"] = ", ".join([*vary, headers["Vary"]])
