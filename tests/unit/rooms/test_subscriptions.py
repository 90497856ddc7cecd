"""Changes of a listener's subscription and mix."""

from __future__ import annotations

from support.control_plane import ControlPlane


async def test_an_invalid_change_is_answered_and_leaves_everything_as_it_was(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    listener = plane.add_listener(room)
    before = plane.media.subscriptions[listener]
    for change in (
        {"type": "setMix", "faders": [4.01]},
        {"type": "setMix", "pans": [-1.5]},
        {"type": "setMix", "master": -0.1},
        {"type": "subscribe", "channels": [64]},
        {"type": "subscribe", "channels": []},
        {"type": "subscribe", "intervalMs": 501},
        {"type": "subscribe", "mode": "surround"},
        {"type": "subscribe", "mix": {"mutes": [1]}},
    ):
        assert plane.say(listener, change)["code"] == "invalid_message", change
    assert plane.media.subscriptions[listener] == before
    assert listener not in plane.media.closed


async def test_a_subscription_change_keeps_what_it_does_not_name(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.add_source(room, frameMs=40)
    listener = plane.add_listener(room, channels=[5, 0, 5], levels=True)
    answer = plane.media.texts(listener, "listenerRegistered")[0]
    assert answer["channels"] == [0, 5]

    answer = plane.say(listener, {"type": "subscribe", "encoding": "pcm_f32le", "intervalMs": 90})
    assert answer == {
        "type": "subscribed",
        "mode": "multichannel",
        "channels": [0, 5],
        "encoding": "pcm_f32le",
        "intervalMs": 120,
        "levels": True,
        "mix": {"faders": [], "pans": [], "mutes": [], "solos": [], "master": 1.0},
    }
    answer = plane.say(listener, {"type": "setMix", "faders": [0.5, 2], "master": 0.25})
    assert answer["type"] == "mixChanged"
    answer = plane.say(listener, {"type": "setMix", "pans": [-1]})
    assert answer == {
        "type": "mixChanged",
        "faders": [0.5, 2.0],
        "pans": [-1.0],
        "mutes": [],
        "solos": [],
        "master": 0.25,
    }
    answer = plane.say(listener, {"type": "subscribe", "mode": "mix", "mix": {"master": 1}})
    assert answer["mix"]["faders"] == [0.5, 2.0]
    assert answer["mix"]["master"] == 1.0
    answer = plane.say(listener, {"type": "subscribe", "channels": None})
    assert answer["channels"] is None


async def test_an_interval_is_rounded_to_the_frames_of_the_present_source(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    plane.add_source(room, frameMs=60)
    listener = plane.add_listener(room, intervalMs=50)
    assert plane.media.texts(listener, "listenerRegistered")[0]["intervalMs"] == 60
    assert plane.media.subscriptions[listener].interval_ms == 50, "the relay rounds by itself"

    plane.add_source(room, frameMs=10)
    assert plane.say(listener, {"type": "subscribe", "levels": True})["intervalMs"] == 50
    assert plane.media.subscriptions[listener].interval_ms == 50
