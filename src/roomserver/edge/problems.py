"""Errors of the REST interface: RFC 9457 problem documents with a stable `code`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Self

import msgspec
import structlog
from aiohttp import web
from msgspec import UNSET, UnsetType

from relaycore.errors import RelayClosedError
from roomserver.edge.addresses import limit_key, user_agent_of
from roomserver.edge.services import SERVICES, Services
from roomserver.rooms.control import RoomClosedError
from roomserver.store.database import DatabaseAwayError
from roomserver.store.outbox import OutboxError
from roomserver.store.records import AuditEvent

CONTENT_TYPE = "application/problem+json"
MAX_LOGGED_PATH = 200

log = structlog.stdlib.get_logger("roomserver.http")


class ProblemCode(StrEnum):
    """`code` of a problem document."""

    ACCOUNT_INVITE_REFUSED = "account_invite_refused"
    BANNED = "banned"
    BODY_TOO_LARGE = "body_too_large"
    BUSY = "busy"
    DATABASE_AWAY = "database_away"
    EMAIL_TAKEN = "email_taken"
    HEAD_TOO_LARGE = "head_too_large"
    INTERNAL = "internal"
    INVALID_CREDENTIALS = "invalid_credentials"
    INVALID_REQUEST = "invalid_request"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"
    NOT_KEPT = "not_kept"
    NOT_READY = "not_ready"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    RATE_LIMITED = "rate_limited"
    REGISTRATION_CLOSED = "registration_closed"
    REQUEST_TIMEOUT = "request_timeout"
    ROOM_CLOSED = "room_closed"
    ROOM_FULL = "room_full"
    ROOM_NOT_FOUND = "room_not_found"
    SHUTTING_DOWN = "shutting_down"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    TOKEN_INVALID = "token_invalid"  # noqa: S105
    TOO_MANY = "too_many"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    UNAUTHORIZED = "unauthorized"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UPGRADE_REFUSED = "upgrade_refused"
    WRONG_SERVER = "wrong_server"
    WRONG_STATE = "wrong_state"


STATUS: Mapping[ProblemCode, int] = {
    ProblemCode.ACCOUNT_INVITE_REFUSED: 403,
    ProblemCode.BANNED: 403,
    ProblemCode.BODY_TOO_LARGE: 413,
    ProblemCode.BUSY: 503,
    ProblemCode.DATABASE_AWAY: 503,
    ProblemCode.EMAIL_TAKEN: 409,
    ProblemCode.HEAD_TOO_LARGE: 431,
    ProblemCode.INTERNAL: 500,
    ProblemCode.INVALID_CREDENTIALS: 401,
    ProblemCode.INVALID_REQUEST: 400,
    ProblemCode.METHOD_NOT_ALLOWED: 405,
    ProblemCode.NOT_ALLOWED: 403,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.NOT_KEPT: 503,
    ProblemCode.NOT_READY: 503,
    ProblemCode.ORIGIN_NOT_ALLOWED: 403,
    ProblemCode.RATE_LIMITED: 429,
    ProblemCode.REGISTRATION_CLOSED: 403,
    ProblemCode.REQUEST_TIMEOUT: 408,
    ProblemCode.ROOM_CLOSED: 410,
    ProblemCode.ROOM_FULL: 429,
    ProblemCode.ROOM_NOT_FOUND: 404,
    ProblemCode.SHUTTING_DOWN: 503,
    ProblemCode.TOKEN_EXPIRED: 401,
    ProblemCode.TOKEN_INVALID: 401,
    ProblemCode.TOO_MANY: 409,
    ProblemCode.TOO_MANY_CONNECTIONS: 429,
    ProblemCode.UNAUTHORIZED: 401,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ProblemCode.UPGRADE_REFUSED: 400,  # or what the handshake says
    ProblemCode.WRONG_SERVER: 421,
    ProblemCode.WRONG_STATE: 409,
}
"""The status of each problem; one code has one."""


class ProblemDocument(msgspec.Struct):
    """The body of an error answer."""

    title: str
    status: int
    code: str
    detail: str
    type: str = "about:blank"
    url: str | UnsetType = UNSET
    """With `wrong_server`: the right one, if it says where it is found."""


# Refusals that the audit log holds, and as what unless the problem says otherwise.
_AUDITED = {
    401: AuditEvent.INVALID_TOKEN,
    403: AuditEvent.REQUEST_REFUSED,
    409: AuditEvent.REQUEST_REFUSED,
    410: AuditEvent.REQUEST_REFUSED,
    421: AuditEvent.REQUEST_REFUSED,
    429: AuditEvent.RATE_LIMIT_EXCEEDED,
    503: AuditEvent.REQUEST_REFUSED,
}


class Problem(Exception):  # noqa: N818 - the name RFC 9457 gives it
    """A request that is refused; the middleware makes the answer of it, and the line of audit."""

    def __init__(
        self,
        code: ProblemCode,
        detail: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
        url: str | None = None,
    ) -> None:
        """With `close` the connection ends behind the answer; `status` is that of the code.

        url: of the right server, for `wrong_server`.
        """
        super().__init__(detail)
        self.status = status or STATUS[code]
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.close = close
        self.url = url
        self.event = _AUDITED.get(self.status)
        self.facts: dict[str, Any] = {}

    def audited(self, event: AuditEvent | None = None, **facts: Any) -> Self:
        """Says more for the audit log: user, room, and whatever else is known."""
        self.event = event or self.event
        self.facts = facts
        return self

    @classmethod
    def later(cls, code: ProblemCode, detail: str, *, after_s: float) -> Problem:
        """A refusal that says when to try again."""
        return cls(code, detail, headers={"Retry-After": str(max(1, math.ceil(after_s)))})

    def response(self) -> web.Response:
        """The answer."""
        response = web.Response(
            status=self.status,
            body=self._document(),
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )
        if self.close:
            response.force_close()
        return response

    def encode(self) -> bytes:
        """The answer as it goes over the wire, for a connection without a request."""
        body = self._document()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            f"Content-Type: {CONTENT_TYPE}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _document(self) -> bytes:
        title = HTTPStatus(self.status).phrase
        url = self.url if self.url is not None else UNSET
        return msgspec.json.encode(
            ProblemDocument(title, self.status, self.code.value, self.detail, url=url)
        )


_OF_STATUS = {
    400: ProblemCode.INVALID_REQUEST,
    404: ProblemCode.NOT_FOUND,
    405: ProblemCode.METHOD_NOT_ALLOWED,
    413: ProblemCode.BODY_TOO_LARGE,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ON_ANSWER = web.RequestKey("on_answer", list[Callable[[web.StreamResponse], object]])
"""What is done to the answer of a request, whichever that becomes."""
ADDRESS = web.RequestKey("address", str)
"""Of the client, found out when its request began: one that has left has none."""


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into a problem document; what we did not foresee is logged and a 500."""
    changes = request[ON_ANSWER] = []
    response = await _answer(request, handler)
    if not response.prepared:
        for change in changes:
            change(response)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    services = request.app[SERVICES]
    address = request[ADDRESS] = services.addresses.of(request)
    try:
        return await handler(request)
    except Problem as problem:
        return _refused(services, request, address, problem)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        code = _OF_STATUS.get(error.status, ProblemCode.INVALID_REQUEST)
        return Problem(code, error.reason, status=error.status, headers=allow).response()
    except ConnectionError:
        raise  # the client went away
    except RelayClosedError:
        return Problem.later(
            ProblemCode.SHUTTING_DOWN, "the server is shutting down", after_s=5.0
        ).response()
    except DatabaseAwayError:
        away = Problem.later(
            ProblemCode.DATABASE_AWAY, "the database is away; try again", after_s=5.0
        )
        return _refused(services, request, address, away)
    except RoomClosedError:
        closed = Problem(ProblemCode.ROOM_CLOSED, "the room was closed")
        return _refused(services, request, address, closed)
    except OutboxError as error:
        log.error("not_kept", method=request.method, path=request.path, reason=str(error))
        return Problem.later(
            ProblemCode.NOT_KEPT, "that could not be written down", after_s=30.0
        ).response()
    except Exception:
        log.exception("request_failed", method=request.method, path=request.path)
        return Problem(ProblemCode.INTERNAL, "something went wrong here").response()


def _refused(
    services: Services, request: web.Request, address: str, problem: Problem
) -> web.Response:
    _audit(services, request, address, problem)
    return problem.response()


def _audit(services: Services, request: web.Request, address: str, problem: Problem) -> None:
    if problem.event is None:
        return
    with contextlib.suppress(RelayClosedError):  # the server is shutting down
        services.rooms.audit(
            problem.event,
            address=address,
            limit_key=limit_key(address),
            user_agent=user_agent_of(request),
            method=request.method,
            path=request.rel_url.raw_path[:MAX_LOGGED_PATH],
            code=problem.code.value,
            **problem.facts,
        )
