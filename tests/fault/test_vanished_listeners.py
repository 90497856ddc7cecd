"""Listeners that are there no more, of which nobody is told."""

from __future__ import annotations

import socket

from relaycore import Relay
from relaycore.events import CloseReason, ConnectionClosed
from support.cable import Cable
from support.peer import Events, Peer
from support.relay_room import ALL, FRAME_S, MUTED_S, bind_listener, on_air, until_muted


def far_listener(relay: Relay, room: int, cable: Cable) -> Peer:
    """At the other end of the cable."""
    with socket.create_server((cable.host, 0)) as listener:
        client = cable.connect(listener.getsockname()[1])
        server, _ = listener.accept()
    client.settimeout(10)
    peer = Peer(client, relay.attach(server))
    relay.bind_listener(peer.connection, room, ALL)
    return peer


def test_who_lagged_and_then_vanished_is_ended() -> None:
    """It has taken all that it was sent, and more is not sent to who lags: no packet of ours is on
    its way that could stay without an answer."""
    with (
        Cable() as cable,
        Relay(threads=1, max_lag_ms=200, ping_interval_ms=200, evict_after_s=3.0) as relay,
        on_air(relay) as room,
    ):
        events = Events(relay)
        vanished = far_listener(relay, room, cable)
        frozen = bind_listener(relay, room)
        for peer in (vanished, frozen):
            until_muted(peer)
        cable.cut()
        closed = events.wait(ConnectionClosed, timeout=10)
        assert (closed.connection, closed.reason) == (vanished.connection, CloseReason.PEER_LOST)
        assert closed.frames_sent > 0
        # What it missed since it lagged was dropped.
        assert closed.frames_dropped * FRAME_S >= 2 * MUTED_S
        counters = relay.counters()
        assert counters.rooms[room].frames_dropped == closed.frames_dropped
        assert counters.threads[0].listeners == 1, "a machine that answers is there"
