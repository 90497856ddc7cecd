"""What can go wrong for a client, in words meant for the person at the terminal.

ClientError                 anything that ends or interrupts a client
├── UnreachableError        no connection, or the connection went away: worth another try
├── RefusedError            the server said no, by HTTP status, ``error`` message or close code
└── WireError               bytes that are not the protocol
WavError (wav.py)           a file that is not a WAV file this program reads
"""

from __future__ import annotations

from typing import Final

#: Close codes after which the same request may well succeed later; 1006 is "no close frame".
TEMPORARY_CLOSE_CODES: Final = frozenset(
    {1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4413, 4429}
)

_CLOSE_TEXTS: Final = {
    1001: "the server is shutting down",
    1003: "the server does not take binary messages from us",
    1006: "the connection broke",
    1007: "the server says our text is not UTF-8",
    1009: "the server says our message is too big",
    4400: "the server calls our message malformed",
    4401: "the room token is invalid, expired or revoked",
    4403: "not allowed, kicked or banned",
    4404: "there is no such room",
    4408: "the server heard nothing from us for too long",
    4409: "the source was taken over by another connection of its owner",
    4410: "the room is closed",
    4413: "we were too slow for too long",
    4421: "the room is on another server",
    4429: "the room is full, or we sent too much",
}


class ClientError(Exception):
    """Base of all client errors; its text is fit for showing as it is."""

    @property
    def temporary(self) -> bool:
        """Whether trying again later can help."""
        return False


class UnreachableError(ClientError):
    """The server could not be reached, did not answer in time, or the connection broke."""

    @property
    def temporary(self) -> bool:
        """Always true: networks come back."""
        return True


class WireError(ClientError):
    """A message that the protocol does not allow."""


class RefusedError(ClientError):
    """The server refused.

    Args:
        message: For people.
        code: The stable snake_case code of an ``error`` message or REST answer, if there was one.
        status: The HTTP status, if it came over HTTP.
        close_code: The WebSocket close code, if it came so.
        url: Where to go instead (``wrong_server``).
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        close_code: int | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.close_code = close_code
        self.url = url

    @property
    def temporary(self) -> bool:
        """Whether trying again later can help (going away, busy, rate limited, a break)."""
        if self.status is not None:
            return self.status == 429 or self.status >= 500
        return self.close_code in TEMPORARY_CLOSE_CODES or self.code == "room_suspended"

    @property
    def needs_new_token(self) -> bool:
        """Whether the room token was refused and a fresh one may be accepted."""
        return self.close_code == 4401 or self.status == 401


def describe_close(close_code: int) -> str:
    """Say in words what a close code of the protocol means."""
    return _CLOSE_TEXTS.get(close_code, f"the server closed the connection (code {close_code})")
