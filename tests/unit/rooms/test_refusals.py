"""What is refused, how it is answered, and what the audit log holds of it."""

from __future__ import annotations

import pytest

from roomserver.protocol.codes import Role
from roomserver.rooms.refusals import BURST, MAX_ADDRESSES, REFUSALS, RefusalLimit
from roomserver.store.records import AuditRecord, LeaveReason
from support.control_plane import ControlPlane


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
    assert plane.media.last(wrong)["code"] == "room_not_found"
    assert plane.media.closed[wrong] == 4404

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


async def test_roles_do_not_mix(plane: ControlPlane) -> None:
    room = await plane.room()
    source, listener = plane.add_source(room), plane.add_listener(room)
    assert plane.say(source, {"type": "setMix"})["code"] == "not_allowed"
    assert plane.say(listener, {"type": "unregisterSource"})["code"] == "not_allowed"
    again = {"type": "registerListener", "roomId": room.id, "roomToken": "x"}
    assert plane.say(listener, again)["code"] == "already_registered"
    assert not plane.media.closed


async def test_connections_that_did_not_register_are_counted_by_address(
    plane: ControlPlane,
) -> None:
    room = await plane.room()
    waiting = [plane.connect("192.0.2.7") for _ in range(4)]
    assert not plane.connections.places.may_connect("192.0.2.7")
    assert plane.connections.places.may_connect("192.0.2.8")
    token = plane.token(room, Role.LISTENER)
    plane.say(waiting[0], {"type": "registerListener", "roomId": room.id, "roomToken": token})
    assert plane.connections.places.may_connect("192.0.2.7")
    plane.connect("192.0.2.7")
    assert not plane.connections.places.may_connect("192.0.2.7")
    plane.hang_up(waiting[1])
    assert plane.connections.places.may_connect("192.0.2.7")
    plane.hang_up(waiting[0])  # registered: it does not count a second time
    plane.connect("192.0.2.7")
    assert not plane.connections.places.may_connect("192.0.2.7")


def refusals(plane: ControlPlane) -> list[AuditRecord]:
    """The lines of audit about refusals."""
    return [record for record in plane.store.audit_log if record.event in REFUSALS]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (LeaveReason.PROTOCOL_ERROR, 1002),
        (LeaveReason.RATE_LIMITED, 4429),
        (LeaveReason.REFUSED, 4408),
    ],
)
async def test_what_the_relay_closes_before_it_registered_is_audited(
    plane: ControlPlane, reason: LeaveReason, code: int
) -> None:
    plane.hang_up(plane.connect(), reason, code, "this is why")
    (record,) = refusals(plane)
    assert (record.event, record.address) == ("request_refused", "192.0.2.1")
    assert record.details["reason"] == reason
    assert record.details["code"] == code
    assert record.details["detail"] == "this is why"


async def test_clients_that_leave_by_themselves_are_not_refused(plane: ControlPlane) -> None:
    room = await plane.room()
    for reason in (LeaveReason.LEFT, LeaveReason.LOST, LeaveReason.SHUTDOWN):
        plane.hang_up(plane.connect(), reason)
    plane.hang_up(plane.add_listener(room), LeaveReason.PROTOCOL_ERROR)  # its stay says that
    assert refusals(plane) == []


@pytest.mark.parametrize("way", ["not_allowed", "token_invalid", "by_the_relay"])
async def test_an_address_cannot_flood_the_audit_log(plane: ControlPlane, way: str) -> None:
    room = await plane.room()
    listener = plane.add_listener(room)

    def be_refused() -> None:
        if way == "not_allowed":
            assert plane.say(listener, {"type": "unregisterSource"})["code"] == "not_allowed"
        elif way == "token_invalid":
            plane.hang_up(plane.add_listener(room, roomToken="nonsense"))
        else:
            plane.hang_up(plane.connect(), LeaveReason.PROTOCOL_ERROR, 1002)

    for _ in range(3 * BURST):
        be_refused()
    assert len(refusals(plane)) == BURST
    plane.timers.advance(1.0)
    be_refused()
    be_refused()
    assert len(refusals(plane)) == BURST + 1
    assert refusals(plane)[-1].details["suppressed"] == 2 * BURST

    plane.hang_up(plane.connect("192.0.2.2"), LeaveReason.PROTOCOL_ERROR)
    assert refusals(plane)[-1].address == "192.0.2.2", "others are audited as before"
    assert "suppressed" not in refusals(plane)[-1].details


async def test_joining_and_leaving_is_audited_however_often(plane: ControlPlane) -> None:
    room = await plane.room()
    for _ in range(2 * BURST):
        plane.hang_up(plane.add_listener(room))
    left = [record for record in plane.store.audit_log if record.event == "room_left"]
    assert len(left) == 2 * BURST


def test_only_so_many_addresses_are_remembered() -> None:
    limit = RefusalLimit()
    for _ in range(BURST + 1):
        limit.admit("first", 0)
        limit.admit("second", 0)
    assert limit.admit("first", 0) is None
    for number in range(MAX_ADDRESSES - 1):
        limit.admit(str(number), 0)
    assert limit.admit("first", 0) is None, "heard of more lately than the other"
    assert limit.admit("second", 0) == 0
