"""`GET /ws`: the socket leaves aiohttp and goes to the relay, which itself sends the 101.

Nothing that the client says can be lost in a buffer here, because it may not speak before the 101.
aiohttp keeps nothing of the connection afterwards: no task, no transport, no protocol.
"""

from __future__ import annotations

import os

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from relaycore.errors import UpgradeRefused
from relaycore.handshake import upgrade_response
from roomserver.edge.addresses import limit_key, user_agent_of
from roomserver.edge.cors import refuse_foreign_page
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.services import SERVICES

log = structlog.stdlib.get_logger("roomserver.http")


class Detached(web.StreamResponse):
    """What the route returns: nothing may be written, for the transport is no longer ours."""

    def __init__(self) -> None:
        super().__init__(status=101)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None

    @property
    def keep_alive(self) -> bool:
        return False

    @property
    def prepared(self) -> bool:
        return True


async def websocket(request: web.Request) -> web.StreamResponse:
    """Checks the upgrade and hands the socket over."""
    services = request.app[SERVICES]
    address = services.addresses.of(request)
    refuse_foreign_page(request)
    if not services.connections.may_connect(limit_key(address)):
        raise Problem.later(
            ProblemCode.TOO_MANY_CONNECTIONS,
            "too many connections from this address that did not register",
            after_s=10.0,
        )
    try:
        response = upgrade_response(
            method=request.method,
            version=(request.version.major, request.version.minor),
            headers=request.headers,
        )
    except UpgradeRefused as refused:
        # Whoever meant a WebSocket may go on with frames, which are no requests.
        raise Problem(
            ProblemCode.UPGRADE_REFUSED,
            str(refused),
            status=refused.status,
            headers=refused.headers,
            close=True,
        ) from None
    transport = request.transport
    if transport is None or transport.is_closing():
        return Detached()
    # TLS ends in front of this (edge/tls.py); what comes here is a socket the relay can read.
    assert transport.get_extra_info("ssl_object") is None
    if transport.get_write_buffer_size() or _has_early_bytes(request):
        raise Problem(
            ProblemCode.UPGRADE_REFUSED,
            "bytes before the answer to the upgrade",
            close=True,
        )
    try:
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
    except OSError as error:
        log.warning("handover_failed", reason=error.strerror)
        raise Problem.later(
            ProblemCode.BUSY, "the server has no room for more connections", after_s=10.0
        ) from None
    # Closes aiohttp's descriptor without a FIN: the connection lives on in the copy.
    transport.abort()
    try:
        services.connections.admit(
            descriptor, response, address, limit_key(address), user_agent_of(request)
        )
    except BaseException:
        os.close(descriptor)
        raise
    return Detached()


def _has_early_bytes(request: web.Request) -> bool:
    # aiohttp has no public name for what came behind the request.
    return bool(getattr(request.protocol, "_message_tail", b""))
