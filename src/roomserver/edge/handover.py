"""`GET /ws`: the socket leaves HTTP and goes to the relay, which itself sends the 101.

The request never reaches aiohttp, which takes longer to read it than all of this does. Nothing
that the client says can be lost in a buffer here, because it may not speak before the 101.
Afterwards Python keeps nothing of the connection: no task, no transport, no protocol.

What speaks against a request goes the way of every other refusal: aiohttp gets the request, and
`refuse` its route.
"""

from __future__ import annotations

import os
import time
from typing import NoReturn, cast

import structlog
from aiohttp import web
from multidict import CIMultiDict

from relaycore.errors import RelayClosedError, UpgradeRefused
from relaycore.handshake import Upgrade, parse_upgrade
from roomserver.edge.addresses import Asker, EarlyRequest, limit_key, user_agent_of
from roomserver.edge.cors import refuse_foreign_page
from roomserver.edge.http import MAX_HEADERS, MAX_LINE, HttpConnection
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.services import SERVICES, Services

PATH = "/ws"
SWITCHING_PROTOCOLS = 101
OLD_DRAFT = "sec-websocket-key1"  # to whose handshake eight bytes of body belong

log = structlog.stdlib.get_logger("roomserver.http")


class HandOver:
    """Takes sockets out of HTTP and gives them to the relay. The event loop's own."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def open(self, connection: HttpConnection, request: bytes) -> Problem | None:
        """An `Opener`."""
        began = time.monotonic()
        try:
            upgrade = parse_upgrade(request)
            if (
                upgrade.path.partition("?")[0] != PATH
                or OLD_DRAFT in upgrade.headers
                or _is_too_much(request)
            ):
                return Problem(ProblemCode.INVALID_REQUEST, "as aiohttp will say, in other words")
            self._hand_over(connection, upgrade)
        except UpgradeRefused as refused:
            # Whoever meant a WebSocket may go on with frames, which are no requests.
            return Problem(
                ProblemCode.UPGRADE_REFUSED,
                str(refused),
                status=refused.status,
                headers=refused.headers,
                close=True,
            )
        except Problem as problem:
            return problem
        self._services.metrics.requests.answered(
            "GET", PATH, SWITCHING_PROTOCOLS, time.monotonic() - began
        )
        return None

    def _hand_over(self, connection: HttpConnection, upgrade: Upgrade) -> None:
        """Raises Problem when the connection stays where it is."""
        transport = connection.transport
        assert transport is not None
        # TLS ends in front of this (edge/tls.py); what comes here is a socket the relay can read.
        assert transport.get_extra_info("ssl_object") is None
        headers = CIMultiDict(upgrade.headers)
        for name, value in upgrade.headers.items():
            if not value.isascii():  # aiohttp takes it for UTF-8, so that limits and log do, too
                headers[name] = value.encode("latin-1").decode(errors="surrogateescape")
        asker = EarlyRequest(transport, connection, headers)
        address = admitted_address(self._services, asker)
        assert not transport.get_write_buffer_size()  # the answer before this was taken
        try:
            descriptor = os.dup(transport.get_extra_info("socket").fileno())
        except OSError as error:
            log.warning("handover_failed", reason=error.strerror)
            raise _no_room() from None
        try:
            self._services.connections.admit(
                descriptor, upgrade.response, address, limit_key(address), user_agent_of(asker)
            )
        except RelayClosedError:
            raise Problem.later(
                ProblemCode.SHUTTING_DOWN, "the server is shutting down", after_s=5.0
            ) from None
        # Closes the other descriptor without a FIN: the connection lives on in the copy.
        transport.abort()


def admitted_address(services: Services, asker: Asker) -> str:
    """The address of a client that may open a WebSocket. Raises Problem (403, 429, 503)."""
    address = services.addresses.of(asker)
    refuse_foreign_page(services, asker)
    if not services.connections.places.may_connect(limit_key(address)):
        raise Problem.later(
            ProblemCode.TOO_MANY_CONNECTIONS,
            "too many connections from this address that did not register",
            after_s=10.0,
        )
    if services.connections.places.are_full:
        raise _no_room()
    return address


async def refuse(request: web.Request) -> NoReturn:
    """The route of requests for a WebSocket that were not taken: says why."""
    admitted_address(request.app[SERVICES], request)
    refusal = cast(HttpConnection, request.protocol).refusal
    raise refusal or Problem(ProblemCode.UPGRADE_REFUSED, "this is no way to ask", close=True)


def _no_room() -> Problem:
    return Problem.later(
        ProblemCode.BUSY, "the server has no room for more connections", after_s=10.0
    )


def _is_too_much(request: bytes) -> bool:
    """Whether it goes over the limits that aiohttp has for every request."""
    if request.count(b"\r\n") > MAX_HEADERS + 2:
        return True
    return len(request) > MAX_LINE and max(map(len, request.split(b"\r\n"))) > MAX_LINE
