"""The WebSocket protocol's rules, over a fake relay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from roomserver.protocol.codes import Role, RoomCloseReason, RoomState
from roomserver.protocol.server import SourceStatus
from roomserver.store.records import LeaveReason, RoomRecord
from support.control_plane import ControlPlane
from support.fake_media import START_S


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    yield plane
    plane.close()


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


@pytest.mark.parametrize(
    ("role", "change", "close_code", "error"),
    [
        (Role.LISTENER, {}, 4403, "not_allowed"),
        (Role.BROADCASTER, {"roomToken": "x.y.z"}, 4401, "token_invalid"),
        (Role.BROADCASTER, {"roomId": "NOROOM"}, 4404, "room_not_found"),
        (Role.BROADCASTER, {"channels": 65}, 4400, "invalid_message"),
        (Role.BROADCASTER, {"channels": 0}, 4400, "invalid_message"),
        (Role.BROADCASTER, {"sampleRate": 47999}, 4400, "invalid_message"),
        (Role.BROADCASTER, {"frameMs": 15}, 4400, "invalid_message"),
        (Role.BROADCASTER, {"encoding": "opus"}, 4400, "invalid_message"),
        (Role.BROADCASTER, {"channelNames": ["a", "b", "c"]}, 4400, "invalid_message"),
    ],
)
async def test_a_source_that_may_not_register_is_told_why_and_closed(
    plane: ControlPlane, role: Role, change: dict[str, object], close_code: int, error: str
) -> None:
    room = await plane.room()
    connection = plane.connect()
    message = {
        "type": "registerSource",
        "roomId": room.id,
        "roomToken": plane.token(room, role),
        "channels": 2,
        "sampleRate": 48000,
        "encoding": "pcm_s16le",
    }
    answer = plane.say(connection, message | change)
    assert (answer["type"], answer["code"]) == ("error", error)
    assert plane.media.closed[connection] == close_code
    assert room.state == "waiting"


async def test_tokens_of_another_room_and_expired_ones_are_refused(plane: ControlPlane) -> None:
    room, other = await plane.room(), await plane.room()
    wrong = plane.add_listener(room, roomToken=plane.token(other, Role.LISTENER))
    assert plane.media.last(wrong)["code"] == "wrong_room"
    assert plane.media.closed[wrong] == 4401

    old = plane.token(room, Role.LISTENER)
    plane.timers.advance(43_201)
    expired = plane.add_listener(room, roomToken=old)
    assert plane.media.last(expired)["code"] == "token_expired"
    assert plane.media.closed[expired] == 4401
    assert {record.event for record in plane.store.audit_log} >= {"invalid_token"}


async def test_a_refused_connection_is_not_listened_to_any_more(plane: ControlPlane) -> None:
    room = await plane.room()
    connection = plane.add_listener(room, roomToken="nonsense")
    before = list(plane.media.sent[connection])
    plane.say(connection, {"type": "ping", "t": 1})
    assert plane.media.sent[connection] == before


async def test_text_that_is_no_message_closes_and_an_unknown_type_does_not(
    plane: ControlPlane,
) -> None:
    connection = plane.connect()
    assert plane.say(connection, {"type": "dance"})["code"] == "unknown_type"
    assert plane.say(connection, {"type": "setMix"})["code"] == "not_registered"
    assert connection not in plane.media.closed
    assert plane.say(connection, "{")["code"] == "malformed"
    assert plane.media.closed[connection] == 4400


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "malformed"),
        ({"type": "registerListener"}, "invalid_message"),
        ({"type": "registerListener", "roomId": "x", "roomToken": "x"}, "token_invalid"),
    ],
)
async def test_a_refused_registration_is_audited_once(
    plane: ControlPlane, message: str | dict[str, object], code: str
) -> None:
    connection = plane.connect()
    plane.say(connection, message)
    assert [record.details["code"] for record in plane.store.audit_log] == [code]


async def test_what_a_role_may_not_do_is_audited(plane: ControlPlane) -> None:
    room = await plane.room()
    listener = plane.add_listener(room)
    before = len(plane.store.audit_log)
    assert plane.say(listener, {"type": "unregisterSource"})["code"] == "not_allowed"
    plane.say(listener, {"type": "dance"})  # a mistake, not a refusal
    (record,) = list(plane.store.audit_log)[before:]
    assert (record.event, record.room) == ("room_access_denied", room.id)
    assert record.details["code"] == "not_allowed"


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


async def test_presets_are_not_supported_and_say_so(plane: ControlPlane) -> None:
    room = await plane.room()
    listener = plane.add_listener(room)
    for message in ({"type": "savePreset", "name": "x"}, {"type": "listPresets"}):
        assert plane.say(listener, message)["code"] == "not_supported"
    assert listener not in plane.media.closed


async def test_roles_do_not_mix(plane: ControlPlane) -> None:
    room = await plane.room()
    source, listener = plane.add_source(room), plane.add_listener(room)
    assert plane.say(source, {"type": "setMix"})["code"] == "not_allowed"
    assert plane.say(listener, {"type": "unregisterSource"})["code"] == "not_allowed"
    again = {"type": "registerListener", "roomId": room.id, "roomToken": "x"}
    assert plane.say(listener, again)["code"] == "already_registered"
    assert not plane.media.closed


async def test_a_pong_says_when_the_ping_was_read(plane: ControlPlane) -> None:
    connection = plane.connect()
    pong = plane.say(connection, {"type": "ping", "t": 1.5})
    assert pong == {
        "type": "pong",
        "t": 1.5,
        "received": int(START_S * 1e6),
        "sent": int(START_S * 1e6),
    }


async def test_a_source_that_is_lost_suspends_the_room_until_it_returns(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    source, listener = plane.add_source(room), plane.add_listener(room)
    plane.timers.advance(5)
    plane.hang_up(source)
    assert room.state == "suspended"
    suspended = plane.media.texts(listener, "roomSuspended")
    assert suspended[0]["suspendedUntil"] == int((START_S + 305) * 1e6)

    plane.timers.advance(299)
    plane.add_source(room, sampleRate=44100, channels=4)
    assert room.state == "active"
    assert plane.media.texts(listener, "roomResumed") == [
        {"type": "roomResumed", "roomId": room.id}
    ]
    assert json.loads(plane.media.announces[-1] + "1}")["stream"] == 2
    plane.timers.advance(1000)
    assert room.state == "active"


async def test_a_room_is_closed_when_the_grace_period_is_over(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.hang_up(plane.add_source(room))
    plane.timers.advance(300)
    assert room.state == "closed"
    assert plane.media.closed_rooms[room.media_id] == {
        "code": 4410,
        "type": "roomClosed",
        "roomId": room.id,
        "reason": "source_gone",
    }
    late = plane.add_listener(room)
    assert plane.media.closed[late] == 4410
    assert plane.timers.pending == 0


async def test_a_permanent_room_waits_again_when_the_grace_period_is_over(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    room.record = replace(room.record, permanent=True)
    plane.hang_up(plane.add_source(room))
    assert room.state == "suspended"
    plane.timers.advance(300)
    assert room.state == "waiting"
    plane.timers.advance(1_000_000)
    plane.add_source(room)
    assert room.state == "active"


async def test_restored_rooms_wait_for_their_source_and_keep_their_deadline(
    plane: ControlPlane,
) -> None:
    active = RoomRecord("a", "AAAAAA", "", b"", "owner", START_S, False, {}, RoomState.ACTIVE)
    suspended = replace(
        active, id="b", code="BBBBBB", state=RoomState.SUSPENDED, suspended_until=START_S + 100
    )
    waiting = replace(active, id="c", code="CCCCCC", state=RoomState.WAITING)
    for record in (active, suspended, waiting):
        await plane.store.create_room(record)
    await plane.rooms.restore()
    assert len(plane.rooms) == 3
    states = [room.state.value for room in plane.rooms]
    assert states == ["suspended", "suspended", "waiting"]
    plane.timers.advance(100)
    assert plane.rooms.find("bbbbbb") is None
    plane.timers.advance(199)
    assert plane.rooms.find("AAAAAA") is not None
    plane.timers.advance(1)
    assert [room.id for room in plane.rooms] == ["c"]


async def test_a_waiting_room_has_no_deadline(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.timers.advance(1_000_000)
    assert room.state == "waiting"


async def test_unregistering_plays_out_before_the_room_is_suspended(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.say(source, {"type": "unregisterSource"})
    assert plane.media.drained == [source]
    assert room.state == "active"
    plane.connections.stream_ended(room.media_id, 1, drained=True)
    assert room.state == "suspended"
    assert len(plane.media.texts(source, "roomSuspended")) == 1
    # The same connection may come back.
    plane.add_source(room, connection=source)
    assert room.state == "active"
    assert room.source is not None
    assert room.source.id == source


async def test_a_source_that_hangs_up_while_it_is_played_out_is_played_out(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.say(source, {"type": "unregisterSource"})
    plane.hang_up(source, LeaveReason.LEFT)
    assert room.state == "active"
    plane.connections.stream_ended(room.media_id, 1, drained=True)
    assert room.state == "suspended"
    assert [stay.reason for stay in plane.store.stays] == ["left"]


async def test_a_source_may_return_while_it_is_played_out(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.say(source, {"type": "unregisterSource"})
    plane.add_source(room, connection=source, channels=8)
    assert plane.media.sources[room.media_id][1].stream == 2
    plane.connections.stream_ended(room.media_id, 1, drained=True)
    assert room.state == "active"
    assert room.source is not None


async def test_the_same_user_takes_the_source_over(plane: ControlPlane) -> None:
    room = await plane.room()
    first, listener = plane.add_source(room), plane.add_listener(room)
    second = plane.add_source(room)
    assert plane.media.closed == {first: 4409}
    assert plane.media.last(first)["code"] == "source_taken_over"
    plane.connections.stream_ended(room.media_id, 1, drained=False)
    plane.hang_up(first)
    assert room.state == "active"
    assert room.source is not None
    assert room.source.id == second
    assert plane.media.texts(listener, "roomSuspended") == []
    assert [stay.reason for stay in plane.store.stays] == ["taken_over"]


async def test_anybody_else_finds_the_source_taken(plane: ControlPlane) -> None:
    room = await plane.room()
    first = plane.add_source(room, user="one")
    for user in ("two", None):
        other = plane.add_source(room, user=user)
        assert plane.media.last(other)["code"] == "source_exists"
        assert plane.media.closed[other] == 4403
    assert first not in plane.media.closed


async def test_room_status_is_sent_on_change_at_most_once_a_second(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.timers.advance(10)
    first = plane.add_listener(room)
    for _ in range(50):
        plane.hang_up(plane.add_listener(room))
    assert len(plane.media.texts(first, "roomStatus")) == 1
    plane.timers.advance(1)
    statuses = plane.media.texts(first, "roomStatus")
    assert len(statuses) == 2
    assert statuses[-1] == {
        "type": "roomStatus",
        "roomId": room.id,
        "state": "waiting",
        "hasBroadcaster": False,
        "buffering": False,
        "listenerCount": 1,
    }
    plane.timers.advance(100)
    assert len(plane.media.texts(first, "roomStatus")) == 2


async def test_the_source_is_told_what_the_relay_sees_of_it(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.add_listener(room)
    status = SourceStatus(60.0, 80.0, 1.0, -3.0, None, (9, 9), (0, 0), (0, 0), (0, 0), (0, 0))
    plane.connections.source_report(room.media_id, 1, status)
    assert plane.media.last(source) == {
        "type": "sourceStatus",
        "fillMs": 60.0,
        "targetMs": 80.0,
        "jitterMs": 1.0,
        "driftPpm": -3.0,
        "captureOffsetUs": None,
        "listenerCount": 1,
        "received": [9, 9],
        "late": [0, 0],
        "duplicate": [0, 0],
        "lost": [0, 0],
        "concealed": [0, 0],
    }


async def test_tokens_are_renewed_over_the_connection_before_they_expire() -> None:
    plane = ControlPlane(room_s=400.0)
    plane.connections.start()
    room = await plane.room()
    token, before = plane.tokens.issue_room(room.id, Role.LISTENER, nickname="Ann")
    listener = plane.add_listener(room, roomToken=token)
    plane.timers.advance(250)
    assert plane.media.texts(listener, "roomToken") == []
    plane.timers.advance(150)
    (renewed,) = plane.media.texts(listener, "roomToken")
    after = plane.tokens.read_room(renewed["roomToken"])
    assert after.expires > before.expires
    assert renewed["expiresAt"] == after.expires * 1_000_000
    assert (after.participant, after.room, after.role) == (
        before.participant,
        before.room,
        before.role,
    )
    plane.timers.advance(3000)
    assert len(plane.media.texts(listener, "roomToken")) >= 8
    plane.close()


@pytest.mark.parametrize(("stepped_s", "renewed_at"), [(250.0, 50.0), (-250.0, 550.0)])
async def test_tokens_are_renewed_by_the_clock_by_which_they_expire(
    stepped_s: float, renewed_at: float
) -> None:
    plane = ControlPlane(room_s=400.0)
    plane.connections.start()
    listener = plane.add_listener(await plane.room())
    plane.stepped_s = stepped_s
    plane.timers.advance(renewed_at - 1)
    assert plane.media.texts(listener, "roomToken") == []
    plane.timers.advance(1)
    assert len(plane.media.texts(listener, "roomToken")) == 1
    plane.close()


async def test_many_tokens_are_renewed_a_hundred_at_a_time() -> None:
    plane = ControlPlane(room_s=400.0)
    plane.connections.start()
    room = await plane.room()
    listeners = [plane.add_listener(room) for _ in range(250)]
    renewed: list[int] = []

    def count() -> None:
        renewed.append(sum(bool(plane.media.texts(c, "roomToken")) for c in listeners))
        if len(renewed) < 4:
            plane.timers.call_later(0, count)

    plane.timers.advance(275)
    plane.hang_up(listeners[0])
    plane.timers.call_later(25, count)  # behind the sweep that is due then
    plane.timers.advance(25)
    assert renewed == [100, 200, 249, 249]
    plane.close()
    assert plane.timers.pending == 0


async def test_connections_that_did_not_register_are_counted_by_address(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    waiting = [plane.connect("192.0.2.7") for _ in range(4)]
    assert not plane.connections.may_connect("192.0.2.7")
    assert plane.connections.may_connect("192.0.2.8")
    token = plane.token(room, Role.LISTENER)
    plane.say(waiting[0], {"type": "registerListener", "roomId": room.id, "roomToken": token})
    assert plane.connections.may_connect("192.0.2.7")
    plane.connect("192.0.2.7")
    assert not plane.connections.may_connect("192.0.2.7")
    plane.hang_up(waiting[1])
    assert plane.connections.may_connect("192.0.2.7")
    plane.hang_up(waiting[0])  # registered: it does not count a second time
    plane.connect("192.0.2.7")
    assert not plane.connections.may_connect("192.0.2.7")


async def test_a_full_room_says_so(plane: ControlPlane) -> None:
    room = await plane.room()
    room.record = replace(room.record, max_listeners=1)
    plane.add_listener(room)
    second = plane.add_listener(room)
    assert plane.media.last(second)["code"] == "room_full"
    assert plane.media.closed[second] == 4429


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


async def test_closing_a_room_tells_everyone_and_frees_its_names(plane: ControlPlane) -> None:
    room = await plane.room(public=True)
    plane.add_source(room)
    assert plane.rooms.public() == [room]
    plane.rooms.close(room, RoomCloseReason.CLOSED_BY_OWNER)
    plane.rooms.close(room, RoomCloseReason.CLOSED_BY_OWNER)
    assert plane.media.closed_rooms[room.media_id]["reason"] == "closed_by_owner"
    assert plane.rooms.find(room.id) is None
    assert plane.rooms.was_closed(room.record.code)
    assert plane.rooms.public() == []


async def test_during_shutdown_rooms_keep_their_state(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    plane.connections.stop()
    plane.rooms.stop()
    plane.hang_up(source, LeaveReason.SHUTDOWN)
    assert room.state == "active"
    assert [stay.reason for stay in plane.store.stays] == ["shutdown"]
    assert plane.timers.pending == 0
