"""Putting a mix in force: a listener's own change, a preset, or the owner's hand."""

from __future__ import annotations

import msgspec

from roomserver.protocol import server
from roomserver.protocol.codec import encode
from roomserver.rooms.connection import Connection
from roomserver.rooms.ports import MediaVerbs


def mix_changed(mix: server.MixState) -> server.MixChanged:
    """What a listener is told of it."""
    return server.MixChanged(**msgspec.structs.asdict(mix))


def put_in_force(
    media: MediaVerbs, listener: Connection, mix: server.MixState, *, reply: server.ServerMessage
) -> None:
    """`reply` and the mix reach the listener at one frame boundary."""
    assert listener.subscription is not None
    listener.subscription = msgspec.structs.replace(listener.subscription, mix=mix)
    media.subscribe(listener.id, listener.subscription, reply=encode(reply))
