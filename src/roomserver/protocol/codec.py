"""JSON of the text messages, both ways."""

from __future__ import annotations

import msgspec

from roomserver.protocol.client import ClientMessage
from roomserver.protocol.codes import ErrorCode
from roomserver.protocol.server import ServerMessage


class MessageError(Exception):
    """A text message that cannot be taken; `code` and the text go into the `error` answer.

    `kind` is its type, as far as that was to be seen.
    """

    def __init__(self, code: ErrorCode, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind


class _Envelope(msgspec.Struct):
    type: str


_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_envelope = msgspec.json.Decoder(_Envelope)
_encoder = msgspec.json.Encoder()
_TYPES = frozenset(str(member.__struct_config__.tag) for member in ClientMessage.__args__)


def decode(text: str) -> ClientMessage:
    """The message in `text`. Raises MessageError with the code that fits."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _explain(text, error) from None
    except (msgspec.DecodeError, RecursionError):
        raise MessageError(ErrorCode.MALFORMED, "the text is not valid JSON") from None


def _explain(text: str, error: msgspec.ValidationError) -> MessageError:
    try:
        kind = _envelope.decode(text).type
    except (msgspec.DecodeError, RecursionError):
        return MessageError(ErrorCode.MALFORMED, "not a JSON object with a 'type'")
    if kind not in _TYPES:
        # The text comes from outside and goes back to its sender alone; still, keep it short.
        return MessageError(ErrorCode.UNKNOWN_TYPE, f"unknown message type {kind[:40]!r}")
    return MessageError(ErrorCode.INVALID_MESSAGE, str(error), kind)


def encode(message: ServerMessage) -> str:
    """The message as JSON text."""
    return _encoder.encode(message).decode()


def encode_cut(message: ServerMessage, field: str) -> str:
    """The message cut where the number of its last field belongs.

    The relay appends the digits and the closing brace at the moment that the number is known:
    `{"type":"pong","t":1,"received":2,"sent":`.
    """
    return f'{encode(message)[:-1]},"{field}":'
