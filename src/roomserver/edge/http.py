"""Connections that still speak HTTP: aiohttp's protocol, with bounds on what a client may ask.

A request's head has to be complete in a given time, however steadily it trickles in, and may have a
given length in all (aiohttp bounds each line). Requests reach aiohttp one at a time: what comes
behind one waits until that is answered and its client has taken the answer, which it has to do in
time, too; and so has it to ask again, or the connection ends. A request for a
WebSocket does not reach it at all, unless something speaks against it, nor does one to which an
answer is known at once. What is no HTTP gets a problem document, like every other error.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Final, cast

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

from roomserver.edge.deadlines import Deadlines
from roomserver.edge.problems import Problem, ProblemCode

# A connection on which nobody asks anything any more is closed after this.
IDLE_S = 75.0
# Of an answer its client takes so much, or all the rest, in each such time, or gets no more of it.
ANSWER_S = 30.0
LEAST_TAKEN = 16_384
NEVER_S = 86_400.0
MAX_HEADERS = 64
MAX_LINE = 8190
# As a path, or as a whole URI (RFC 9112, section 3.2.2).
WEBSOCKET: Final = re.compile(rb"GET (?:(?i:https?)://[^/?# ]+)?/ws")
# Of what comes behind a request before it is answered; the rest stays in the kernel until then.
HELD_BYTES: Final = 65_536
NOT_HTTP: Final = "this is not well-formed HTTP/1.1"

_BLANK_LINE: Final = b"\r\n\r\n"
_VERSION_1: Final = re.compile(rb"[^\r]* HTTP/1\.[0-9]\r\n")
_METHOD: Final = re.compile(rb"[A-Z]{1,32}(?: |\Z)|\Z")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n")
_LENGTH_NAME: Final = b"\r\ncontent-length"
_CODING: Final = b"transfer-encoding"
# To aiohttp all behind its head is of another protocol, or, if there is none, another request.
_TUNNEL: Final = b"connect "

log = structlog.stdlib.get_logger("roomserver.http")

Opener = Callable[["HttpConnection", bytes], Problem | None]
"""Takes the socket of a connection whose client asks, with this head, for a WebSocket.

What comes behind the head stands behind it. Says what speaks against it; None: it is taken.
"""
Answerer = Callable[["HttpConnection", bytes, bytes], bytes | None]
"""The answer to a request, given its head and all of its body, for a connection that stays open.

None: aiohttp finds out.
"""


class HttpConnection(web.RequestHandler):
    """One connection; made by `connection_factory`.

    A clock runs from the connection's start, or from the first byte of a later request, until its
    head is complete; another one while something of an answer waits for the client to take it; and
    a third in between. Everything runs in the event loop's thread.
    """

    __slots__ = (
        "_answerer",
        "_answers",
        "_clock",
        "_head_bytes",
        "_heads",
        "_held",
        "_idle",
        "_in_head",
        "_is_idle",
        "_left",
        "_max_head",
        "_opener",
        "_output",
        "_server",
        "_serves",
        "_waiting",
        "_waits_for_client",
        "refusal",
    )

    def __init__(
        self,
        server: web.Server,
        *,
        heads: Deadlines,
        idle: Deadlines,
        answers: Deadlines,
        max_head_bytes: int,
        opener: Opener | None,
        answerer: Answerer | None,
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=NEVER_S,  # it does not know of every request
            tcp_keepalive=False,  # who says nothing for so long is closed
            max_headers=MAX_HEADERS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )
        self._server = server
        self._heads = heads
        self._idle = idle
        self._answers = answers
        self._max_head = max_head_bytes
        self._opener = opener
        self._answerer = answerer
        self._serves = False  # aiohttp knows of the connection
        self._is_idle = False  # between two requests
        self._clock: Deadlines | None = None  # which of the three runs
        self._output: asyncio.Transport | None = None  # also when aiohttp has let go of it
        self._waiting = 0  # bytes of answers, when their clock was started
        self._waits_for_client = False  # with an answer that is written, but not taken
        self._await_head()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # aiohttp's own way makes a task and a timer, for a socket that may leave it at once.
        self.transport = self._output = cast(asyncio.Transport, transport)
        self._output.set_write_buffer_limits(high=0)  # to be told whenever something waits there
        self._server.connection_made(self, self.transport)  # which closes it at the end
        self._start_clock(self._heads)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """As aiohttp's, which waits for answers under way; but not as long for those not taken."""
        half = asyncio.get_running_loop().call_later((timeout or 0.0) / 2, self._cut_off)
        try:
            await super().shutdown(timeout)
        finally:
            half.cancel()
            self._cut_off()

    def pause_writing(self) -> None:
        """Something of an answer waits for the client."""
        super().pause_writing()
        self._watch_output()

    def resume_writing(self) -> None:
        """The client has taken all there was."""
        super().resume_writing()
        self._stop_clock()
        if self._waits_for_client:
            self._waits_for_client = False
            self._answered()

    async def start(self) -> None:
        """As aiohttp's, which answers requests; when it is done, nobody does any more."""
        try:
            await super().start()
        finally:
            self.force_close()

    def data_received(self, data: bytes) -> None:
        if not data:  # no client's: aiohttp's own, that a parser which it paused may go on
            super().data_received(data)
        elif self._in_head:
            self._read_head(data)
        else:
            self._read_body(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer, then looks at what came behind the request."""
        if self._left or not request.content.is_eof():
            resp.force_close()  # the rest of the body is no head of another request
        finished = await super().finish_response(request, resp, start_time)
        if resp.keep_alive:
            self._answered()
        return finished

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
        return Problem(ProblemCode.INVALID_REQUEST, NOT_HTTP, close=True).response()

    def _await_head(self) -> None:
        self._in_head = True
        self._held = b""  # of it, or of what comes behind the request, and not passed on
        self._head_bytes = 0
        self._left = 0  # of the body
        self.refusal: Problem | None = None
        """Why the request for a WebSocket under way is none that is taken."""

    def _answered(self) -> None:
        if self.writing_paused:
            self._waits_for_client = True
        elif self._held:
            # By turns with other connections, and however many stand behind one another.
            asyncio.get_running_loop().call_soon(self._go_on)
        elif self.transport is not None:
            self._await_head()
            self._is_idle = True
            self._start_clock(self._idle)

    def _go_on(self) -> None:
        """The next request has begun to come while the one before was answered."""
        if self.transport is not None and not self.transport.is_closing():
            held = self._held
            self._await_head()
            self.transport.resume_reading()
            self.data_received(held)

    def _read_head(self, data: bytes) -> None:
        if self._is_idle:
            self._is_idle = False
            self._stop_clock()
        self._head_bytes += len(data)
        head = self._held = (self._held + data).lstrip(b"\r\n")  # blank lines may come first
        end = head.find(_BLANK_LINE)
        whole = end >= 0
        end = end + len(_BLANK_LINE) if whole else len(head)
        if self._head_bytes - (len(head) - end) > self._max_head:
            self._refuse(ProblemCode.HEAD_TOO_LARGE, "the head of the request is too long")
        elif whole:
            self._begin(head[:end], head[end:])
        elif not _may_be_http(head):
            # Not for aiohttp, which knows methods of other protocols and would wait for the rest.
            self._refuse(ProblemCode.INVALID_REQUEST, NOT_HTTP)
        elif self._clock is None:
            self._start_clock(self._heads)

    def _begin(self, head: bytes, behind: bytes) -> None:
        self._in_head = False
        self._stop_clock()
        if not _VERSION_1.match(head):
            # Not for aiohttp, which breaks down over some of these, and then answers nobody.
            self._refuse(ProblemCode.INVALID_REQUEST, NOT_HTTP)
            return
        if self._opener is not None and WEBSOCKET.match(head):
            self.refusal = self._opener(self, head + behind)
            if self.refusal is None:
                return
        self._held = b""
        length = _length_of_body(head)
        if len(behind) >= length and self._answer(head, behind[:length]):
            self._hold(behind[length:])
            self._answered()
            return
        self._left = length
        self._pass_on(head)
        if behind:
            self._read_body(behind)

    def _answer(self, head: bytes, body: bytes) -> bool:
        """Whether that could be done here and now."""
        if self._answerer is None or self.transport is None:
            return False
        answer = self._answerer(self, head, body)
        if answer is None:
            return False
        self.transport.write(answer)
        return True

    def _read_body(self, data: bytes) -> None:
        body, behind = data[: self._left], data[self._left :]
        if body:
            self._left -= len(body)
            self._pass_on(body)
        self._hold(behind)

    def _hold(self, behind: bytes) -> None:
        """Keeps what comes behind a request until that is answered, and lets not much more come."""
        self._held += behind
        if len(self._held) >= HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def _pass_on(self, data: bytes) -> None:
        """To aiohttp."""
        if not self._serves and self.transport is not None:
            self._serves = True
            super().connection_made(self.transport)
        super().data_received(data)

    def _start_clock(self, clock: Deadlines) -> None:
        self._stop_clock()
        self._clock = clock
        clock.start(self)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.stop(self)
            self._clock = None

    def too_slow(self) -> None:
        """The clock has run out."""
        clock, self._clock = self._clock, None
        if clock is self._answers:
            self._look_at_output()
        elif self._head_bytes:
            self._refuse(ProblemCode.REQUEST_TIMEOUT, "the request took too long")
        else:
            self.force_close()  # it asked nothing: there is nothing to answer

    def _refuse(self, code: ProblemCode, detail: str) -> None:
        """Answers in aiohttp's stead, which has no request yet, and closes."""
        log.debug("request_cut_off", code=code.value)
        self._stop_clock()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(Problem(code, detail, close=True).encode())
        self.force_close()

    def _watch_output(self) -> None:
        if self._output is not None:
            self._waiting = self._output.get_write_buffer_size()
            self._start_clock(self._answers)

    def _look_at_output(self) -> None:
        """Some time after something has begun to wait for the client."""
        waits = 0 if self._output is None else self._output.get_write_buffer_size()
        if 0 <= self._waiting - waits < LEAST_TAKEN:  # it grows when aiohttp had more to add
            self._cut_off()
        else:
            self._watch_output()

    def _cut_off(self) -> None:
        """Ends the connection, if its client has not taken all there was; a close would wait."""
        if self._output is not None and self._output.get_write_buffer_size():
            log.debug("answer_not_taken")
            self._output.abort()


def connection_factory(
    server: web.Server,
    *,
    timeout_s: float,
    max_head_bytes: int,
    opener: Opener | None = None,
    answerer: Answerer | None = None,
) -> Callable[[], HttpConnection]:
    """What makes the protocol of each connection that is accepted."""
    heads, idle, answers = Deadlines(timeout_s), Deadlines(IDLE_S), Deadlines(ANSWER_S)
    return lambda: HttpConnection(
        server,
        heads=heads,
        idle=idle,
        answers=answers,
        max_head_bytes=max_head_bytes,
        opener=opener,
        answerer=answerer,
    )


def _may_be_http(head: bytes) -> bool:
    """Whether more of it may make a request."""
    return _METHOD.match(head) is not None and head.count(b"\n") == head.count(b"\r\n")


def _length_of_body(head: bytes) -> int:
    """In bytes; more than will ever come, if the head does not plainly say it.

    Such a request is the last of its connection: only aiohttp knows where it ends. Where aiohttp
    reads another length, the request fails: it gets no byte but these.
    """
    lower = head.lower()
    length = _LENGTH.search(lower)
    if _CODING in lower or lower.startswith(_TUNNEL) or (length is None and _LENGTH_NAME in lower):
        return sys.maxsize
    return int(length[1]) if length is not None else 0
