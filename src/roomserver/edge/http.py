"""Connections that still speak HTTP: aiohttp's protocol, with bounds on what a client may ask.

A request's head has to be complete in a given time, however steadily it trickles in, and may have a
given length in all (aiohttp bounds each line, and between requests the time without one). What is
no HTTP gets a problem document, like every other error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

from roomserver.edge.problems import Handler, Problem, ProblemCode

# A connection on which nobody asks anything any more is closed after this.
IDLE_S = 75.0
MAX_HEADERS = 64

_BLANK_LINE = b"\r\n\r\n"

log = structlog.stdlib.get_logger("roomserver.http")


class HttpConnection(web.RequestHandler):
    """One connection; made by `connection_factory`, and told by `mind_requests` how far it is.

    The clock runs from the connection's start, or from the first byte of a later request, until its
    handler begins. Everything runs in the event loop's thread.
    """

    __slots__ = (
        "_begun",
        "_expired",
        "_head_bytes",
        "_in_head",
        "_last",
        "_max_head",
        "_timeout_s",
    )

    def __init__(self, server: web.Server, *, timeout_s: float, max_head_bytes: int) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=IDLE_S,
            max_headers=MAX_HEADERS,
        )
        self._timeout_s = timeout_s
        self._max_head = max_head_bytes
        self._expired: asyncio.TimerHandle | None = None
        self._await_head()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head and not self._takes(data):
            self._refuse(ProblemCode.HEAD_TOO_LARGE, "the head of the request is too long")
            return
        super().data_received(data)

    def begin_request(self) -> None:
        """A handler begins: the head was complete."""
        self._in_head = False
        self._stop_clock()

    def end_request(self) -> None:
        """It is done, and what comes next is the head of another request."""
        self._await_head()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed; nobody's words are repeated in it or logged.

        A client that went away in the middle of its request hears nothing and is no error of ours.
        """
        if not isinstance(exc, HttpProcessingError | ConnectionError):
            return super().handle_error(request, status, exc, message)
        problem = Problem(
            ProblemCode.INVALID_REQUEST, "this is not well-formed HTTP/1.1", close=True
        )
        return problem.response()

    def _await_head(self) -> None:
        self._in_head = True
        self._begun = False  # blank lines may come first
        self._head_bytes = 0
        self._last = b""

    def _takes(self, data: bytes) -> bool:
        """Follows the head to its end; false when it is too long."""
        if self._expired is None:
            self._start_clock()
        looked_at = self._last + data
        if not self._begun:
            looked_at = looked_at.lstrip(b"\r\n")
            self._begun = bool(looked_at)
        end = looked_at.find(_BLANK_LINE)
        if end < 0:
            self._head_bytes += len(data)
            self._last = looked_at[1 - len(_BLANK_LINE) :]
        else:
            self._head_bytes += len(data) - (len(looked_at) - end - len(_BLANK_LINE))
            self._in_head = False
        return self._head_bytes <= self._max_head

    def _start_clock(self) -> None:
        self._expired = asyncio.get_running_loop().call_later(self._timeout_s, self._too_slow)

    def _stop_clock(self) -> None:
        if self._expired is not None:
            self._expired.cancel()
            self._expired = None

    def _too_slow(self) -> None:
        self._expired = None
        if self._head_bytes:
            self._refuse(ProblemCode.REQUEST_TIMEOUT, "the request took too long")
        else:
            self.force_close()  # it asked nothing: there is nothing to answer

    def _refuse(self, code: ProblemCode, detail: str) -> None:
        """Answers in aiohttp's stead, which has no request yet, and closes."""
        log.debug("request_cut_off", code=code.value)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(Problem(code, detail, close=True).encode())
        self._stop_clock()
        self.force_close()


def connection_factory(
    server: web.Server, *, timeout_s: float, max_head_bytes: int
) -> Callable[[], HttpConnection]:
    """What makes the protocol of each connection that is accepted."""
    return lambda: HttpConnection(server, timeout_s=timeout_s, max_head_bytes=max_head_bytes)


@web.middleware
async def mind_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tells the connection when a request's handler begins and ends: the outermost middleware."""
    connection = cast(HttpConnection, request.protocol)
    connection.begin_request()
    response = await handler(request)
    if not request.content.is_eof():
        response.force_close()  # the rest of the body is no head of another request
    if response.keep_alive is not False:
        connection.end_request()
    return response
