"""Reading requests: bodies with their bounds, bearer tokens."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from roomserver.auth.passwords import (
    LEAST_ACCOUNT_PASSWORD,
    InvalidPasswordError,
    password_bytes,
)
from roomserver.auth.tokens import TokenError
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.services import SERVICES
from roomserver.protocol.client import END
from roomserver.store.records import Account

BODY_TIMEOUT_S = 30.0

UUID = Annotated[
    str, Meta(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}" + END)
]
Password = Annotated[str, Meta(max_length=1024)]  # bcrypt's own limit is told apart, by bytes
NewAccountPassword = Annotated[str, Meta(min_length=LEAST_ACCOUNT_PASSWORD, max_length=1024)]

# The escape of a NUL, unless its backslash is itself escaped: PostgreSQL can't hold the character.
NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

T = TypeVar("T", bound=msgspec.Struct)


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The JSON body. Raises Problem (400, 408, 413, 415)."""
    if request.content_type != "application/json":
        raise Problem(ProblemCode.UNSUPPORTED_MEDIA_TYPE, "the body has to be application/json")
    try:
        if request.content.is_eof():  # as most are that are short: it came with the head
            body = await request.read()
        else:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await request.read()
    except TimeoutError:
        raise Problem(
            ProblemCode.REQUEST_TIMEOUT,
            f"the body took longer than {BODY_TIMEOUT_S:g} s",
            close=True,
        ) from None
    return decode_body(body, kind)


def decode_body(body: bytes, kind: type[T]) -> T:
    """What stands in a body of JSON. Raises Problem (400)."""
    if NUL_ESCAPE.search(body):
        raise Problem(ProblemCode.INVALID_REQUEST, "a text may not contain a NUL character")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Problem(ProblemCode.INVALID_REQUEST, str(error)) from None
    except (ValueError, RecursionError):  # msgspec's own is one, that of bad UTF-8 another
        raise Problem(ProblemCode.INVALID_REQUEST, "the body is not valid JSON") from None


def read_query(request: web.Request, kind: type[T]) -> T:
    """The query string; numbers and truth values are read as JSON writes them. Raises Problem."""
    if any("\0" in value for value in request.query.values()):
        raise Problem(ProblemCode.INVALID_REQUEST, "the query may not contain a NUL character")
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(ProblemCode.INVALID_REQUEST, f"in the query: {error}") from None


def read_id(text: str, refusal: str) -> str:
    """A UUID out of a path. Raises Problem (404) with this detail."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Problem(ProblemCode.NOT_FOUND, refusal) from None


def read_password(password: str) -> bytes:
    """The password as bytes. Raises Problem (400)."""
    try:
        return password_bytes(password)
    except InvalidPasswordError as error:
        raise Problem(ProblemCode.INVALID_REQUEST, str(error)) from None


def bearer_token(request: web.Request) -> str | None:
    """What the request says it may do things by."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def authenticate(request: web.Request, *, in_doubt: bool) -> Account:
    """Whose access token it carries; `in_doubt` as in `Accounts`. Raises Problem (401)."""
    token = bearer_token(request)
    if token is None:
        raise _unauthorized(ProblemCode.UNAUTHORIZED, "an access token is needed")
    try:
        return await request.app[SERVICES].accounts.authenticate(token, in_doubt=in_doubt)
    except TokenError as error:
        code = ProblemCode.TOKEN_EXPIRED if error.expired else ProblemCode.TOKEN_INVALID
        raise _unauthorized(code, str(error)) from None


def _unauthorized(code: ProblemCode, detail: str) -> Problem:
    return Problem(code, detail, headers={"WWW-Authenticate": "Bearer"})
