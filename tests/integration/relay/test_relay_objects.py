"""Native objects that a relay leaves behind, in a build that counts them (`make sanitize`)."""

from __future__ import annotations

import gc
import os

from relaycore import Relay
from relaycore._core import live_objects
from support.peer import Peer
from support.relay_room import FRAME, Source, bind_listener, bind_source, frames_until_end, noise

COUNTED = os.environ.get("RELAYCORE_COUNT_OBJECTS") == "1"


def alive() -> dict[str, int]:
    gc.collect()
    return {kind: made - freed for kind, (made, freed) in live_objects().items()}


def test_objects_are_counted_only_where_they_are_asked_for() -> None:
    assert bool(live_objects()) is COUNTED


def test_a_relay_that_has_ended_leaves_no_native_object() -> None:
    before = alive()
    relay = Relay(threads=2)
    room = relay.open_room()
    listener = bind_listener(relay, room)
    source = Source(bind_source(relay, room), noise(2, 1.0))
    source.start()
    frames_until_end(listener, 10 * FRAME)
    during = alive()
    source.stop()
    Peer.close_all()
    relay.close()
    del relay, listener, source
    assert alive() == before
    if COUNTED:
        assert during["Connection"] == 2 + before["Connection"]
        assert during["Block"] > before["Block"]
