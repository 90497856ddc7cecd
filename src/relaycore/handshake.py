"""The opening handshake of a WebSocket, server side (RFC 6455, section 4.2).

`upgrade_response` judges a request that an HTTP server has parsed already; `parse_upgrade` and
`read_upgrade` are for programs that have none. All of them return the bytes of the `101` answer
without sending them: hand these to `Relay.attach`, which sends them, so that nothing the client
says afterwards can be lost in between.

No extension and no subprotocol is ever agreed to. The functions keep no state and may be called
from any thread.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from relaycore.errors import UpgradeRefused

__all__ = [
    "Upgrade",
    "UpgradeRefused",
    "accept_key",
    "parse_upgrade",
    "read_upgrade",
    "upgrade_response",
]

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")  # base64 of exactly 16 bytes
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_WHOLE_URI: Final = re.compile(r"https?://([^/?#@]+)([/?][^#]*)?", re.IGNORECASE)
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
_END: Final = b"\r\n\r\n"
_MAX_BYTES: Final = 8192

# Two of one of these and one side of a proxy may see another request than the other.
_SINGLE: Final = frozenset(
    {"host", "content-length", "origin", "sec-websocket-key", "sec-websocket-version"}
)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An accepted handshake.

    Attributes:
        path: Request target as it was sent, with its query: `/ws?room=1`. Of a whole URI, which is
            as good (RFC 9112, section 3.2.2), what stands behind its host.
        headers: Names in lower case; values of repeated headers joined with `, `. A host that the
            target names stands in place of that in the headers.
        response: The `101` answer, to be sent before anything else.
    """

    path: str
    headers: dict[str, str]
    response: bytes


def accept_key(key: str) -> str:
    """The `Sec-WebSocket-Accept` value that answers a `Sec-WebSocket-Key`, which is ASCII."""
    digest = hashlib.sha1((key + _GUID).encode("ascii"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def upgrade_response(*, method: str, version: tuple[int, int], headers: Mapping[str, str]) -> bytes:
    """Judge a handshake and return the bytes of the `101` answer.

    Args:
        method: HTTP method, in upper case.
        version: HTTP version, such as `(1, 1)`.
        headers: Names in any case. A multi-valued mapping whose `items()` yields a repeated
            header once per occurrence, as those of aiohttp and multidict do, is judged strictly.

    Raises:
        UpgradeRefused: 405 for another method than GET, 426 for another WebSocket version than 13
            or no request for a WebSocket at all, 400 for anything else that is not as it must be.
    """
    return _answer(method, version, _joined(headers.items()))


def _answer(method: str, version: tuple[int, int], fields: Mapping[str, str]) -> bytes:
    if method != "GET":
        raise UpgradeRefused(405, "a WebSocket is opened with GET", {"Allow": "GET"})
    if version[0] != 1 or version[1] < 1:
        raise UpgradeRefused(400, "a WebSocket is opened over HTTP/1.1")
    if "host" not in fields:
        raise UpgradeRefused(400, "the Host header is missing")
    # A body would be taken for WebSocket frames.
    if "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
        raise UpgradeRefused(400, "a handshake has no body")
    if "websocket" not in _tokens(fields.get("upgrade", "")):
        raise UpgradeRefused(
            426,
            "only WebSocket connections are served here",
            {"Upgrade": "websocket", "Connection": "Upgrade, close"},
        )
    if "upgrade" not in _tokens(fields.get("connection", "")):
        raise UpgradeRefused(400, "the Connection header does not say Upgrade")
    if fields.get("sec-websocket-version") != "13":
        raise UpgradeRefused(
            426, "only WebSocket version 13 is supported", {"Sec-WebSocket-Version": "13"}
        )
    key = fields.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        raise UpgradeRefused(400, "Sec-WebSocket-Key is not the base64 form of 16 bytes")
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n"
        "\r\n"
    ).encode("ascii")


def parse_upgrade(request: bytes) -> Upgrade:
    """Parse and judge a whole request: from its first byte to the empty line, and nothing more.

    Raises:
        UpgradeRefused: As `upgrade_response`, and 400 for a request that is not well-formed
            HTTP/1.1, is not complete, or has bytes after the empty line, since a client may not
            speak before it has the `101`.
    """
    head, end, early = request.partition(_END)
    if not end:
        raise UpgradeRefused(400, "the request is not complete")
    if early:
        raise UpgradeRefused(400, "the client spoke before the handshake was answered")
    first, *lines = head.split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(first)
    if request_line is None:
        raise UpgradeRefused(400, "malformed request line")
    method, target, major, minor = (part.decode("ascii") for part in request_line.groups())
    fields = _joined(map(_header, lines))
    response = _answer(method, (int(major), int(minor)), fields)
    if target.startswith("/"):
        return Upgrade(target, fields, response)
    uri = _WHOLE_URI.fullmatch(target)
    if uri is None:
        raise UpgradeRefused(400, "the request target is neither a path nor an http URI")
    host, rest = uri.groups(default="/")
    path = rest if rest.startswith("/") else f"/{rest}"
    return Upgrade(path, fields | {"host": host}, response)


def read_upgrade(
    sock: socket.socket, *, timeout: float = 10.0, max_bytes: int = _MAX_BYTES
) -> Upgrade:
    """Read one handshake from a connected stream socket, blocking.

    A refused client is sent the HTTP answer before this raises, so the caller only closes the
    socket. The socket's own timeout is as before when this returns or raises.

    Args:
        sock: Connected stream socket, owned by the caller throughout.
        timeout: Seconds for the whole request, however slowly it trickles in.
        max_bytes: Most bytes of the request.

    Raises:
        UpgradeRefused: As `parse_upgrade`; 408 when the time is up, 431 for a request that is too
            long, 400 when the client closed its side before the request was complete.
        OSError: From the socket.
        ValueError: For a timeout or size that is not positive.
    """
    if not timeout > 0 or max_bytes < 1:
        raise ValueError("timeout and max_bytes must be positive")
    before = sock.gettimeout()
    deadline = time.monotonic() + timeout
    try:
        try:
            return parse_upgrade(_read_head(sock, deadline, max_bytes))
        except UpgradeRefused as refused:
            # A client that is gone already or takes nothing does not change why it was refused.
            with contextlib.suppress(OSError):
                sock.settimeout(1.0)
                sock.sendall(refused.response)
            raise
    finally:
        sock.settimeout(before)


def _read_head(sock: socket.socket, deadline: float, max_bytes: int) -> bytes:
    head = bytearray()
    while _END not in head:
        if len(head) >= max_bytes:
            raise UpgradeRefused(431, f"the request is longer than {max_bytes} bytes")
        left = deadline - time.monotonic()
        if left <= 0:
            raise UpgradeRefused(408, "the request took too long")
        sock.settimeout(left)
        try:
            piece = sock.recv(max_bytes - len(head))
        except TimeoutError:
            raise UpgradeRefused(408, "the request took too long") from None
        if not piece:
            raise UpgradeRefused(400, "the connection was closed before the request was complete")
        head += piece
    return bytes(head)


def _header(line: bytes) -> tuple[str, str]:
    header = _HEADER.fullmatch(line)
    if header is None:
        raise UpgradeRefused(400, "malformed header line")
    name, value = header.groups()
    return name.decode("ascii"), value.decode("latin-1")


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, the values of a repeated header as one list."""
    fields: dict[str, str] = {}
    repeated: set[str] = set()
    for given_name, given_value in headers:
        name, value = given_name.lower(), given_value.strip(" \t")
        if name in fields:
            repeated.add(name)
            value = f"{fields[name]}, {value}"
        fields[name] = value
    if twice := repeated & _SINGLE:
        raise UpgradeRefused(400, f"more than one {min(twice)} header")
    return fields


def _tokens(value: str) -> list[str]:
    return [token.strip(" \t").lower() for token in value.split(",")]
