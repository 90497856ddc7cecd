"""What an owner does with those in a room, and presets: over a fake relay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomserver.protocol.client import MixFields
from roomserver.protocol.codes import Role
from roomserver.rooms.moderation import MAX_BANS, TooManyBansError, Whom
from roomserver.rooms.room import Room
from roomserver.store.presets import MOST, MemoryPresetStore
from roomserver.store.records import BanRecord, LeaveReason
from support.control_plane import ControlPlane

OWNER = "owner"
REGISTERED = ("listenerRegistered", "roomStatus")  # behind which that may stand


def new_ban(number: int = 1, **whom: str) -> BanRecord:
    fields: dict[str, Any] = {"participant": None, "user": None, "address": None, **whom}
    return BanRecord(id=f"ban {number}", reason=None, created_by=OWNER, created_at=1.0, **fields)


def register(
    plane: ControlPlane, room: Room, token: str, *, address: str = "192.0.2.1"
) -> tuple[int, dict[str, Any]]:
    """A connection that registers as a listener with this token, and what it is answered."""
    connection = plane.connect(address)
    wish = {"type": "registerListener", "roomId": room.id, "roomToken": token}
    return connection, plane.say(connection, wish)


async def test_who_is_kicked_is_told_and_closed_and_may_come_again(plane: ControlPlane) -> None:
    room = await plane.room()
    token = plane.token(room, Role.LISTENER, participant="p")
    (first, _), (second, _) = register(plane, room, token), register(plane, room, token)
    other = plane.add_listener(room)
    kicked = plane.moderation.kick(room, Whom(participant="p"), "too loud")
    assert {connection.id for connection in kicked} == {first, second}
    for connection in (first, second):
        assert plane.media.closed[connection] == 4403
        error = plane.media.last(connection)
        assert (error["type"], error["code"], error["message"]) == ("error", "kicked", "too loud")
    assert other not in plane.media.closed
    assert not plane.moderation.kick(room, Whom(participant="p"), None), "they are leaving"
    plane.hang_up(first, LeaveReason.REFUSED, 4403)
    assert plane.store.stays[-1].reason is LeaveReason.KICKED
    assert register(plane, room, token)[1]["type"] in REGISTERED


async def test_one_connection_is_kicked_by_its_client_id(plane: ControlPlane) -> None:
    room = await plane.room()
    one, other = plane.add_listener(room), plane.add_listener(room)
    client_id = plane.media.texts(one, "config")[0]["clientId"]
    assert len(plane.moderation.kick(room, Whom(connection=client_id), None)) == 1
    assert one in plane.media.closed
    assert other not in plane.media.closed


async def test_a_ban_closes_and_refuses_at_once_until_it_is_lifted(plane: ControlPlane) -> None:
    room = await plane.room()
    token = plane.token(room, Role.LISTENER, participant="p")
    connection, _ = register(plane, room, token)
    hit = await plane.moderation.ban(room, new_ban(participant="p"))
    assert [hit.id for hit in hit] == [connection]
    assert plane.media.closed[connection] == 4403
    assert plane.media.last(connection)["code"] == "banned"
    refused, answer = register(plane, room, token)
    assert (answer["code"], plane.media.closed[refused]) == ("banned", 4403)
    assert await plane.moderation.lift(room, "ban 1")
    assert not await plane.moderation.lift(room, "ban 1")
    assert register(plane, room, token)[1]["type"] in REGISTERED


async def test_a_user_is_banned_whatever_participant_they_are(plane: ControlPlane) -> None:
    room = await plane.room()
    await plane.moderation.ban(room, new_ban(user="somebody"))
    token = plane.token(room, Role.LISTENER, user="somebody")
    assert register(plane, room, token)[1]["code"] == "banned"


async def test_a_ban_of_the_halls_address_does_not_silence_the_stage(plane: ControlPlane) -> None:
    room = await plane.room()
    source = plane.add_source(room, user=OWNER)
    listener = plane.add_listener(room)
    ban = new_ban(address="192.0.2.1")
    assert [connection.id for connection in plane.moderation.hit_by(room, ban)] == [listener]
    await plane.moderation.ban(room, ban)
    assert listener in plane.media.closed
    assert source not in plane.media.closed
    token = plane.token(room, Role.LISTENER)
    assert register(plane, room, token)[1]["code"] == "banned"
    elsewhere = register(plane, room, token, address="198.51.100.7")[1]
    assert elsewhere["type"] in REGISTERED
    assert plane.media.closed.get(plane.add_source(room, user=OWNER)) is None


async def test_bans_of_a_room_are_bounded_and_kept_with_it(plane: ControlPlane) -> None:
    room = await plane.room()
    for number in range(MAX_BANS):
        await plane.moderation.ban(room, new_ban(number, participant=str(number)))
    with pytest.raises(TooManyBansError):
        await plane.moderation.ban(room, new_ban(MAX_BANS, participant="one more"))
    (kept,) = await plane.store.open_rooms()
    assert [ban.participant for ban in kept.bans] == [str(number) for number in range(MAX_BANS)]


async def test_the_owner_sets_a_listeners_mix(plane: ControlPlane) -> None:
    room = await plane.room()
    token = plane.token(room, Role.LISTENER, participant="p")
    connection, _ = register(plane, room, token)
    plane.say(connection, {"type": "setMix", "pans": [-1, 1]})
    mix = plane.moderation.set_mix(room, "p", MixFields(faders=(0.5, 0.25)))
    assert mix is not None
    assert (mix.faders, mix.pans) == ((0.5, 0.25), (-1, 1))
    assert plane.media.subscriptions[connection].mix == mix
    told = plane.media.last(connection)
    assert (told["type"], told["faders"], told["pans"]) == ("mixChanged", [0.5, 0.25], [-1, 1])
    assert plane.moderation.mix_of(room, "p") == mix
    assert plane.moderation.set_mix(room, "nobody", MixFields(master=0.0)) is None


class Presets:
    """A listener that asks for presets and waits for the answer."""

    def __init__(self, plane: ControlPlane, room: Room, **claims: str) -> None:
        self.plane = plane
        token = plane.token(room, Role.LISTENER, **claims)
        self.connection, _ = register(plane, room, token)

    async def ask(self, kind: str, **fields: object) -> dict[str, Any]:
        texts = self.plane.media.sent[self.connection]
        before = len(texts)
        self.plane.say(self.connection, {"type": kind, **fields})
        async with asyncio.timeout(5):
            while len(texts) == before:  # noqa: ASYNC110 - the fake relay sends no event
                await asyncio.sleep(0)
        return texts[-1]


async def test_presets_are_saved_listed_loaded_and_deleted(plane: ControlPlane) -> None:
    room = await plane.room()
    listener = Presets(plane, room)
    mix = {"faders": [0.7, 2.0], "pans": [-0.3], "mutes": [False, True], "solos": [], "master": 0.9}
    await listener.ask("setMix", **mix)
    assert await listener.ask("savePreset", name="mine") == {"type": "presetSaved", "name": "mine"}
    await listener.ask("setMix", faders=[1.0], pans=[], mutes=[], master=1.0)
    await listener.ask("savePreset", name="flat")
    assert (await listener.ask("listPresets"))["names"] == ["flat", "mine"]
    loaded = await listener.ask("loadPreset", name="mine")
    assert loaded == {"type": "preset", "name": "mine", "mix": mix}
    assert plane.media.subscriptions[listener.connection].mix.faders == (0.7, 2.0)
    assert (await listener.ask("deletePreset", name="mine"))["type"] == "presetDeleted"
    for kind in ("deletePreset", "loadPreset"):
        assert (await listener.ask(kind, name="mine"))["code"] == "preset_not_found"
    assert (await listener.ask("savePreset", name=""))["code"] == "invalid_message"


async def test_presets_belong_to_the_user_or_else_the_participant(plane: ControlPlane) -> None:
    room = await plane.room()
    for claims in ({"user": "u", "participant": "one"}, {"participant": "p"}):
        await Presets(plane, room, **claims).ask("savePreset", name="mine")
    users: list[dict[str, str]] = [
        {"user": "u", "participant": "two"},
        {"participant": "p"},
        {"participant": "q"},
    ]
    listeners = [Presets(plane, room, **claims) for claims in users]
    names = [(await listener.ask("listPresets"))["names"] for listener in listeners]
    assert names == [["mine"], ["mine"], []]


async def test_presets_are_bounded_in_number_and_requests_in_haste(plane: ControlPlane) -> None:
    listener = Presets(plane, await plane.room())
    for number in range(MOST):
        await listener.ask("savePreset", name=str(number))
    assert (await listener.ask("savePreset", name="more"))["code"] == "too_many_presets"
    assert (await listener.ask("savePreset", name="7"))["type"] == "presetSaved", "it is in place"
    for _ in range(20):
        plane.say(listener.connection, {"type": "listPresets"})
    assert plane.media.last(listener.connection)["code"] == "rate_limited"


async def test_a_preset_is_the_mix_that_was_in_force_when_it_was_saved(plane: ControlPlane) -> None:
    listener = Presets(plane, await plane.room())
    plane.say(listener.connection, {"type": "setMix", "master": 0.5})
    plane.say(listener.connection, {"type": "savePreset", "name": "mine"})
    plane.say(listener.connection, {"type": "setMix", "master": 2.0})
    await listener.ask("listPresets")
    assert (await listener.ask("loadPreset", name="mine"))["mix"]["master"] == 0.5


async def test_a_store_that_fails_costs_one_request(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ValueError

    listener = Presets(plane, await plane.room())
    with monkeypatch.context() as patch:
        patch.setattr(MemoryPresetStore, "names", fail)
        assert (await listener.ask("listPresets"))["code"] == "internal"
    assert (await listener.ask("listPresets"))["names"] == []


async def test_a_broadcaster_has_no_presets(plane: ControlPlane) -> None:
    source = plane.add_source(await plane.room())
    assert plane.say(source, {"type": "listPresets"})["code"] == "not_allowed"


async def test_who_is_banned_from_one_room_is_welcome_in_another(plane: ControlPlane) -> None:
    room, other = await plane.room(), await plane.room()
    await plane.moderation.ban(room, new_ban(participant="p"))
    token = plane.token(other, Role.LISTENER, participant="p")
    connection, _ = register(plane, other, token)
    assert plane.media.texts(connection, "listenerRegistered")
