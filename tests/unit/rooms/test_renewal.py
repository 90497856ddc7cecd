"""A room that another server of the same database changed while both had it."""

from __future__ import annotations

from dataclasses import replace

from roomserver.protocol.codes import Role, RoomCloseReason, RoomState
from roomserver.store.records import BanRecord
from support.control_plane import ControlPlane


async def test_whoever_was_banned_there_is_out_here_and_nobody_else(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room)
    token = plane.tokens.issue_room(room.id, Role.LISTENER, participant="p")[0]
    banned = plane.add_listener(room, roomToken=token)
    other = plane.add_listener(room)
    ban = BanRecord("ban", "p", None, None, None, None, 1.0)
    plane.rooms.renew(replace(room.record, bans=(ban,), version=7))
    assert plane.media.closed == {banned: 4403}
    assert plane.media.last(banned)["code"] == "banned"
    assert plane.add_listener(room, roomToken=token) in plane.media.closed
    assert source not in plane.media.closed
    assert other not in plane.media.closed
    # Lifted there, lifted here.
    plane.rooms.renew(replace(room.record, bans=(), version=8))
    assert plane.add_listener(room, roomToken=token) not in plane.media.closed


async def test_tokens_revoked_there_are_worthless_here(plane: ControlPlane) -> None:
    room = await plane.room()
    token = plane.token(room, Role.LISTENER)
    listener = plane.add_listener(room, roomToken=token)
    plane.rooms.renew(replace(room.record, password_hash=b"another", token_version=2, version=7))
    assert plane.media.closed == {listener: 4401}
    late = plane.add_listener(room, roomToken=token)
    assert plane.media.closed[late] == 4401
    assert room.record.password_hash == b"another"


async def test_what_goes_on_here_has_the_last_word_about_itself(plane: ControlPlane) -> None:
    room = await plane.room(name="Hall")
    plane.add_source(room)
    listener = plane.add_listener(room)
    there = replace(
        room.record,
        name="Yard",
        state=RoomState.SUSPENDED,
        suspended_until=plane.now() + 60,
        held=True,
        version=7,
    )
    plane.rooms.renew(there)
    assert (room.state, room.record.held, room.record.name) == (RoomState.ACTIVE, False, "Yard")
    assert room.has_broadcaster
    (kept,) = await plane.store.open_rooms()
    assert (kept.state, kept.name) == (RoomState.ACTIVE, "Yard")
    assert kept.version > 7, "else the database would keep the other state"
    assert listener not in plane.media.closed


async def test_a_room_closed_there_is_closed_here(plane: ControlPlane) -> None:
    room = await plane.room()
    plane.add_listener(room)
    closed = replace(
        room.record,
        state=RoomState.CLOSED,
        closed_at=plane.now(),
        close_reason=RoomCloseReason.CLOSED_BY_OWNER,
        version=7,
    )
    plane.rooms.renew(closed)
    told = plane.media.closed_rooms[room.media_id]
    assert (told["code"], told["reason"]) == (4410, "closed_by_owner")
    assert plane.rooms.find(room.id) is None
