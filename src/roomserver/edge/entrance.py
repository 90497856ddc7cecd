"""`POST /auth/room/join` where the answer is known at once: listeners get in without aiohttp.

A hall comes within seconds, and aiohttp takes longer to read a request and to send the answer than
all that is done in between. What is not the plain case it reads as ever, and its route finds out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import msgspec
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict

from roomserver.edge.addresses import EarlyRequest, limit_key
from roomserver.edge.cors import sharing_headers
from roomserver.edge.endpoints import ANSWER_HEADERS
from roomserver.edge.http import MAX_HEADERS, MAX_LINE, HttpConnection
from roomserver.edge.problems import Problem
from roomserver.edge.requests import decode_body
from roomserver.edge.routes.listening import JoinRequest, join_at_once
from roomserver.edge.services import Services

PATH: Final = "/auth/room/join"
OK: Final = 200

_REQUEST_LINE: Final = f"POST {PATH} HTTP/1.1\r\n".encode()
# As of RFC 9112, without what it only tolerates; what is not ASCII is not plain.
_HEADERS: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*\r\n")
# What asks for more than an answer on a connection that stays open, or changes what is sent.
_NOT_PLAIN: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "expect",
        "proxy-connection",
        "sec-websocket-key1",
        "transfer-encoding",
        "upgrade",
    }
)
_JSON: Final = frozenset({"application/json", "application/json; charset=utf-8"})


class Entrance:
    """Lets listeners in. The event loop's own."""

    def __init__(self, services: Services, *, max_body_bytes: int) -> None:
        self._services = services
        self._max_body = max_body_bytes

    def answer(self, connection: HttpConnection, head: bytes, body: bytes) -> bytes | None:
        """An `Answerer`."""
        began = time.monotonic()
        headers = plain_headers(head, body)
        if headers is None or len(body) > self._max_body:
            return None
        services = self._services
        request = EarlyRequest(connection.transport, connection, CIMultiDict(headers))
        address = limit_key(services.addresses.of(request))
        try:
            joined = join_at_once(services, address, decode_body(body, JoinRequest))
        except Problem:
            return None
        if joined is None:
            return None
        answer = _encode(
            [
                *ANSWER_HEADERS.items(),
                ("Content-Type", "application/json"),
                *(field for usage in joined.usages for field in usage.headers.items()),
                *sharing_headers(services, request).items(),
            ],
            msgspec.json.encode(joined.answer),
        )
        services.metrics.requests.answered("POST", PATH, OK, time.monotonic() - began)
        return answer


def plain_headers(head: bytes, body: bytes) -> dict[str, str] | None:
    """Those of a plain request to come in, names in lower case; None: aiohttp is to look at it."""
    if (
        not head.startswith(_REQUEST_LINE)
        or len(head) > MAX_LINE
        or not _HEADERS.fullmatch(head, len(_REQUEST_LINE))
    ):
        return None
    lines = head.decode("ascii").split("\r\n")[1:-2]
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    each_once = len(lines) == len(headers) <= MAX_HEADERS
    if headers.get("connection", "").lower() == "keep-alive":  # it does anyway
        del headers["connection"]
    is_plain = (
        each_once
        and "host" in headers
        and headers.get("content-length") == str(len(body))
        and headers.get("content-type") in _JSON
        and _NOT_PLAIN.isdisjoint(headers)
    )
    return headers if is_plain else None


def _encode(headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """The answer as it goes over the wire: what aiohttp would make of it."""
    lines = [
        "HTTP/1.1 200 OK",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(body)}",
        f"Date: {_date(int(time.time()))}",
        f"Server: {SERVER_SOFTWARE}",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
