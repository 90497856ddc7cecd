"""Errors of relaycore that are not misuse.

Malformed arguments raise `ValueError` or `TypeError`; operating system errors stay `OSError`.
Everything else derives from one class:

    RelayError
    ├── RelayClosedError        a verb was called on a relay after close()
    ├── RelayUnavailableError   this platform has no relay; rings, jitter buffer, kernels work
    └── UpgradeRefused          a WebSocket handshake that must be answered with an HTTP error
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

__all__ = ["RelayClosedError", "RelayError", "RelayUnavailableError", "UpgradeRefused"]


class RelayError(Exception):
    """Base of every error that relaycore defines."""


class RelayClosedError(RelayError):
    """The relay was closed; it takes no more commands."""


class RelayUnavailableError(RelayError):
    """The relay needs Linux (epoll) and this is another system."""


class UpgradeRefused(RelayError):  # noqa: N818 - an outcome the protocol names, not a fault of ours
    """A request that does not become a WebSocket.

    Attributes:
        status: HTTP status to answer with, 400 to 499.
        reason: One English sentence about what was wrong; safe to show to the client.
        headers: Headers the answer must carry, such as `Sec-WebSocket-Version` with 426.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers: dict[str, str] = dict(headers or {})

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"

    def __reduce__(self) -> tuple[type[UpgradeRefused], tuple[int, str, dict[str, str]]]:
        return type(self), (self.status, self.reason, self.headers)

    @property
    def response(self) -> bytes:
        """The whole HTTP answer, after which the connection is to be closed."""
        body = f"{self.reason}\n".encode()
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
            "Connection": "close",
        } | self.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        phrase = HTTPStatus(self.status).phrase
        return f"HTTP/1.1 {self.status} {phrase}\r\n{head}\r\n".encode("latin-1") + body
