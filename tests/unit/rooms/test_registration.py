"""Registering as source or listener, and what a connection is told then."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from relaycore import RelayClosedError
from roomserver.protocol.codes import Role
from roomserver.store.records import LeaveReason
from support.control_plane import ControlPlane
from support.fake_media import START_S


async def test_a_connection_is_greeted_with_the_configuration(plane: ControlPlane) -> None:
    connection = plane.connect()
    assert plane.media.sent[connection] == [
        {
            "type": "config",
            "protocol": 1,
            "clientId": plane.media.sent[connection][0]["clientId"],
            "serverTime": int(START_S * 1e6),
            "encodings": ["pcm_s16le", "pcm_f32le"],
            "maxChannels": 64,
        }
    ]


@pytest.fixture
def descriptor() -> int:
    """Of anything; closed by who takes it."""
    return os.open(os.devnull, os.O_RDONLY)


def closing(*_: object, **__: object) -> None:
    raise RelayClosedError("the relay is closed")


async def test_a_socket_that_the_relay_does_not_take_is_closed(
    plane: ControlPlane, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane.media, "attach", closing)
    with pytest.raises(RelayClosedError):
        plane.connections.admit(descriptor, b"", "192.0.2.1", "192.0.2.1")
    assert len(plane.connections) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def test_a_source_is_registered_and_the_room_becomes_active(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room, channelNames=["Kick", "Snare"], bufferMs=80)
    assert plane.media.texts(source, "sourceRegistered") == [
        {
            "type": "sourceRegistered",
            "roomId": room.id,
            "stream": 1,
            "channels": 2,
            "sampleRate": 48000,
            "frameMs": 20,
            "bufferMs": 80.0,
            "listenerCount": 0,
        }
    ]
    assert room.state == "active"
    announce = plane.media.announces[0]
    assert announce.endswith(',"timestamp":')
    assert json.loads(announce + "17}") == {
        "type": "streamStarted",
        "stream": 1,
        "channelCount": 2,
        "channelNames": ["Kick", "Snare"],
        "sampleRate": 48000,
        "frameMs": 20,
        "bufferMs": 80.0,
        "timestamp": 17,
    }


async def test_a_room_is_named_by_id_or_code_in_any_case(plane: ControlPlane) -> None:
    room = await plane.room()
    for name in (room.id, room.id.upper(), room.record.code, room.record.code.lower()):
        listener = plane.add_listener(room, roomId=name)
        assert plane.media.texts(listener, "listenerRegistered")[0]["roomId"] == room.id


async def test_a_listener_is_told_the_format_only_when_the_stream_is_live(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    plane.add_source(room)
    early = plane.add_listener(room)
    answer = plane.media.texts(early, "listenerRegistered")[0]
    assert answer["state"] == "active"
    assert answer["hasBroadcaster"] is True
    assert "stream" not in answer
    assert plane.media.joins[early]["known_stream"] == 0

    plane.connections.stream_live(room.media_id, 1, 12345)
    late = plane.add_listener(room, burstMs=500)
    answer = plane.media.texts(late, "listenerRegistered")[0]
    assert (answer["stream"], answer["timestamp"]) == (1, 12345)
    assert (answer["channelCount"], answer["sampleRate"], answer["frameMs"]) == (2, 48000, 20)
    assert answer["listenerCount"] == 2
    assert plane.media.joins[late] == {
        "known_stream": 1,
        "burst_ms": 500,
        "from_timestamp": None,
    }


async def test_the_start_of_a_stream_stays_what_it_was_after_buffering(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.add_source(room)
    plane.connections.stream_live(room.media_id, 1, 1000)
    plane.connections.stream_buffering(room.media_id, 1)
    assert room.buffering
    plane.connections.stream_live(room.media_id, 1, 9000)
    assert not room.buffering
    listener = plane.add_listener(room)
    assert plane.media.texts(listener, "listenerRegistered")[0]["timestamp"] == 1000


async def test_a_reconnecting_listener_goes_on_from_a_timestamp(plane: ControlPlane) -> None:
    room = await plane.room()
    listener = plane.add_listener(room, **{"from": 2**52})
    assert plane.media.joins[listener]["from_timestamp"] == 2**52


async def test_a_pong_says_when_the_ping_was_read(plane: ControlPlane) -> None:
    connection = plane.connect()
    pong = plane.say(connection, {"type": "ping", "t": 1.5})
    assert pong == {
        "type": "pong",
        "t": 1.5,
        "received": int(START_S * 1e6),
        "sent": int(START_S * 1e6),
    }


async def test_a_player_that_says_its_latency_reports_its_lag(plane: ControlPlane) -> None:
    room = await plane.room()
    source, listener = plane.add_source(room), plane.add_listener(room)
    for message in (
        {"latencyMs": 1250.5, "bufferMs": 200, "jitterMs": 3, "lost": 1},
        {"latencyMs": 90},
        {"latencyMs": -86_400_000, "bufferMs": 86_400_000},
        {"bufferMs": 200},
        {"latencyMs": 1e300},
    ):
        plane.say(listener, {"type": "stats", **message})
    assert plane.media.lags == [(listener, 1050.5), (listener, 90), (listener, -172_800_000)]
    assert plane.media.last(listener)["code"] == "invalid_message"
    assert plane.say(source, {"type": "stats", "latencyMs": 900})["code"] == "not_allowed"
    assert len(plane.media.lags) == 3


async def test_a_full_room_says_so(plane: ControlPlane) -> None:
    room = await plane.room()
    room.record = replace(room.record, max_listeners=1)
    plane.add_listener(room)
    second = plane.add_listener(room)
    assert plane.media.last(second)["code"] == "room_full"
    assert plane.media.closed[second] == 4429


async def test_of_listeners_that_come_at_once_as_many_get_in_as_there_may_be() -> None:
    plane = ControlPlane(max_connections=2)
    room = await plane.room()
    waiting = [plane.connect() for _ in range(4)]
    for connection in waiting:
        token = plane.token(room, Role.LISTENER)
        wish = {"type": "registerListener", "roomId": room.id, "roomToken": token}
        plane.say(connection, wish)
    assert {listener.id for listener in room.listeners} == set(waiting[:2])
    for connection in waiting[2:]:
        assert plane.media.last(connection)["code"] == "too_many_connections"
    assert plane.media.last(plane.add_source(room))["type"] == "sourceRegistered"
    plane.hang_up(waiting[0])
    # The source is one of two now.
    assert plane.media.last(plane.add_listener(room))["code"] == "too_many_connections"
    plane.hang_up(waiting[1])
    plane.add_listener(room)
    assert len(room.listeners) == 1
    plane.close()


async def test_a_token_is_for_so_many_connections() -> None:
    plane = ControlPlane(max_per_participant=2)
    room = await plane.room()
    token = plane.token(room, Role.LISTENER)
    first, _ = [plane.add_listener(room, roomToken=token) for _ in range(2)]
    third = plane.add_listener(room, roomToken=token)
    assert plane.media.last(third)["code"] == "too_many_connections"
    assert plane.media.closed[third] == 4429
    assert len(room.listeners) == 2
    other = plane.add_listener(room)
    assert plane.media.last(other)["type"] == "listenerRegistered"
    plane.hang_up(third)  # which was none of them
    assert plane.media.closed[plane.add_listener(room, roomToken=token)] == 4429
    plane.hang_up(first)
    again = plane.add_listener(room, roomToken=token)
    assert plane.media.last(again)["type"] == "listenerRegistered"
    plane.close()


async def test_who_broadcast_and_now_listens_counts_as_long_as_they_listen() -> None:
    plane = ControlPlane(max_per_participant=1)
    room = await plane.room()
    source = plane.add_source(room)
    plane.hang_up(source)
    plane.timers.advance(1)
    token = plane.token(room, Role.BROADCASTER, user="owner")
    for _ in range(3):
        listener = plane.add_listener(room, roomToken=token)
        assert plane.media.last(listener)["type"] == "listenerRegistered"
        assert plane.media.closed[plane.add_listener(room, roomToken=token)] == 4429
        plane.hang_up(listener)
    plane.close()


async def test_a_stay_is_written_down_whole(plane: ControlPlane) -> None:
    room = await plane.room()
    listener = plane.add_listener(room, nickname="Ann")
    plane.say(listener, {"type": "stats", "bufferMs": 90, "latencyMs": 120.5, "lost": 3})
    plane.timers.advance(12.5)
    plane.hang_up(listener, LeaveReason.TOO_SLOW)
    (stay,) = plane.store.stays
    assert (stay.room, stay.nickname, stay.role) == (room.id, "Ann", "listener")
    assert stay.duration_s == pytest.approx(12.5)
    assert stay.reason == "too_slow"
    assert (stay.frames_sent, stay.frames_dropped, stay.latency_ms) == (10, 2, 120.5)
