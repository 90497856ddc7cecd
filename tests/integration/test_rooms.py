"""What owners and administrators do with rooms, over real HTTP and WebSocket."""

from __future__ import annotations

from typing import Any

import pytest

from support.api_client import ROOM_PASSWORD, Answer, Api, RoomKeys, Socket, source_wish
from support.peer import Closed
from support.server import ServerProcess

ROOMS = "/api/broadcaster/rooms"


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.body["code"]) == (status, code), answer


async def change(api: Api, token: str, room: RoomKeys, what: str, **body: Any) -> Any:
    """A `POST` about the room that succeeds; its answer."""
    answer = await api.call("POST", f"{ROOMS}/{room.id}/{what}", token=token, json=body)
    assert answer.status == 200, answer
    return answer.body


async def patch(api: Api, token: str, room: RoomKeys, **changes: Any) -> Answer:
    return await api.call("PATCH", f"{ROOMS}/{room.id}", token=token, json=changes)


async def describe(api: Api, token: str, room: RoomKeys) -> Any:
    answer = await api.call("GET", f"{ROOMS}/{room.code}", token=token)
    assert answer.status == 200, answer
    return answer.body


def registration(kind: str, room: RoomKeys, token: str) -> dict[str, Any]:
    """The fields of a registration of either kind."""
    if kind == "registerSource":
        return source_wish(room, roomToken=token)
    return {"roomId": room.id, "roomToken": token}


async def refusal(socket: Socket) -> tuple[str, Closed]:
    """The error that comes before the end, and the end."""
    end = await socket.closed()
    return socket.texts("error")[-1]["code"], end


@pytest.fixture
async def other_token(api: Api, server: ServerProcess, access_token: str) -> str:
    """Of another account."""
    answer = await api.call(
        "POST", "/auth/broadcaster", json={"email": "other@example.org", "password": "x"}
    )
    if answer.status == 401:
        server.add_user("other@example.org", "x")
    return (await api.login("other@example.org", "x"))["accessToken"]


async def test_an_open_room_is_joined_without_a_password(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token, password=None, public=True)
    assert (await describe(api, access_token, room))["open"] is True
    for body in ({}, {"password": None}, {"password": "whatever"}):
        answer = await api.call("POST", "/auth/room/join", json={"roomCode": room.code, **body})
        assert answer.status == 200, answer
    listed = (await api.call("GET", "/api/rooms/public")).body["rooms"]
    assert [found["open"] for found in listed if found["roomId"] == room.id] == [True]


async def test_without_a_password_other_rooms_and_unknown_ones_look_alike(
    api: Api, access_token: str
) -> None:
    room = await api.create_room(access_token)
    answers = [
        await api.call("POST", "/auth/room/join", json={"roomCode": code})
        for code in (room.code, "NNNNNN")
    ]
    for answer in answers:
        refused(answer, 401, "invalid_credentials")
    assert answers[0].body == answers[1].body


async def test_a_room_is_described_as_it_was_made_and_changed(api: Api, access_token: str) -> None:
    wishes = {
        "name": "Hall",
        "public": True,
        "permanent": True,
        "metadata": {"seats": [1, None, 2.5, {"row": "a"}]},
        "maxListeners": 7,
        "channelNames": ["kick", "snare"],
        "graceS": 60,
    }
    room = await api.create_room(access_token, **wishes)
    made = await describe(api, access_token, room)
    assert {name: made[name] for name in wishes} == wishes
    assert (made["state"], made["held"], made["closedAt"], made["listenerCount"]) == (
        "waiting",
        False,
        None,
        0,
    )

    answer = await patch(api, access_token, room, name="Yard", maxListeners=None)
    assert answer.status == 200
    assert answer.body == made | {"name": "Yard", "maxListeners": None}
    assert await describe(api, access_token, room) == answer.body

    cleared = await patch(api, access_token, room, **dict.fromkeys(wishes))
    assert {name: cleared.body[name] for name in wishes} == {
        "name": f"Room {room.code}",
        "public": False,
        "permanent": False,
        "metadata": {},
        "maxListeners": None,
        "channelNames": [],
        "graceS": None,
    }
    assert (await patch(api, access_token, room)).body == cleared.body


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "x" * 121},
        {"name": "a\0b"},
        {"public": 1},
        {"metadata": {"x": "y" * 17_000}},
        {"metadata": {"x": "a\0b"}},
        {"metadata": {"a\0b": 1}},
        {"metadata": {"x": 2**63}},
        {"metadata": {"x": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}},
        {"metadata": []},
        {"maxListeners": 0},
        {"maxListeners": 1_000_001},
        {"channelNames": ["x"] * 65},
        {"channelNames": ["x" * 65]},
        {"graceS": -1},
        {"graceS": 86_401},
    ],
)
async def test_a_change_out_of_bounds_is_refused(
    api: Api, access_token: str, changes: dict[str, Any]
) -> None:
    room = await api.create_room(access_token)
    before = await describe(api, access_token, room)
    refused(await patch(api, access_token, room, **changes), 400, "invalid_request")
    assert await describe(api, access_token, room) == before
    answer = await api.call("POST", "/auth/room/create", token=access_token, json=changes)
    refused(answer, 400, "invalid_request")


async def test_other_names_are_told_to_everyone_in_the_room(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token, channelNames=["left", "right", "spare"])
    async with api.source(room) as source, api.listener(room) as listener:
        channels = await api.call("GET", f"{ROOMS}/{room.id}/channels", token=access_token)
        assert channels.status == 200
        assert (channels.body["sampleRate"], channels.body["encoding"]) == (48000, "pcm_s16le")
        assert [channel["name"] for channel in channels.body["channels"]] == ["left", "right"]
        await patch(api, access_token, room, name="Yard", channelNames=["kick", "snare"])
        for socket in (source, listener):
            told = await socket.until("roomChanged")
            assert (told["roomName"], told["channelNames"]) == ("Yard", ["kick", "snare"])
    channels = await api.call("GET", f"{ROOMS}/{room.id}/channels", token=access_token)
    assert channels.body["live"] is False


async def test_a_source_names_the_channels_for_the_next_one(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token)
    async with api.source(room, channelNames=["kick"]):
        assert (await describe(api, access_token, room))["channelNames"] == ["kick"]


async def test_a_full_room_is_full_until_its_limit_is_raised(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token, maxListeners=1)
    async with api.listener(room):
        join = {"roomCode": room.code, "password": ROOM_PASSWORD}
        answer = await api.call("POST", "/auth/room/join", json=join)
        refused(answer, 429, "room_full")
        assert answer.headers["Retry-After"]
        await patch(api, access_token, room, maxListeners=2)
        async with api.listener(room):
            assert (await describe(api, access_token, room))["listenerCount"] == 2


async def test_a_break_closes_the_source_and_keeps_the_listeners(
    api: Api, access_token: str
) -> None:
    room = await api.create_room(access_token)
    async with api.source(room) as source, api.listener(room) as listener:
        held = await change(api, access_token, room, "suspend", forS=600)
        assert (held["state"], held["held"], held["hasBroadcaster"]) == ("suspended", True, False)
        assert (await source.until("roomSuspended"))["suspendedUntil"] == held["suspendedUntil"]
        code, end = await refusal(source)
        assert (code, end.code) == ("room_suspended", 4403)
        assert (await listener.until("roomSuspended"))["suspendedUntil"] == held["suspendedUntil"]

        async with api.socket() as again:
            await again.say("registerSource", **source_wish(room))
            code, end = await refusal(again)
            assert (code, end.code) == ("room_suspended", 4403)
        async with api.listener(room) as late:
            assert late.texts("listenerRegistered")[0]["state"] == "suspended"

        resumed = await change(api, access_token, room, "resume")
        assert (resumed["state"], resumed["held"]) == ("suspended", False)
        until = (await listener.until("roomSuspended"))["suspendedUntil"]
        assert until == resumed["suspendedUntil"] < held["suspendedUntil"]
        async with api.source(room):
            await listener.until("roomResumed")
            assert (await change(api, access_token, room, "resume"))["state"] == "active"


async def test_a_break_that_nobody_ends_ends_the_room(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token)
    async with api.listener(room) as listener:
        async with api.source(room):
            await change(api, access_token, room, "suspend", forS=1)
        assert (await listener.until("roomClosed"))["reason"] == "expired"
        assert (await listener.closed()).code == 4410
    closed = await describe(api, access_token, room)
    assert (closed["state"], closed["closeReason"]) == ("closed", "expired")


async def test_a_room_that_waits_has_nothing_to_suspend(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token)
    answer = await api.call("POST", f"{ROOMS}/{room.id}/suspend", token=access_token, json={})
    refused(answer, 409, "wrong_state")


async def test_a_password_that_drops_ends_every_listener_and_token_but_not_the_source(
    api: Api, access_token: str
) -> None:
    room = await api.create_room(access_token)
    old = await api.join(room.code)
    async with api.source(room) as source, api.listener(room) as one, api.listener(room) as two:
        answer = await change(
            api, access_token, room, "password", password="another", dropListeners=True
        )
        assert answer == {"roomId": room.id, "open": False, "droppedListeners": 2}
        for listener in (one, two):
            code, end = await refusal(listener)
            assert (code, end.code) == ("token_invalid", 4401)
        renewed = (await source.until("roomToken"))["roomToken"]

        for kind, token in (("registerListener", old), ("registerSource", room.token)):
            async with api.socket() as late:
                await late.say(kind, **registration(kind, room, token))
                code, end = await refusal(late)
                assert (code, end.code) == ("token_invalid", 4401)

        await source.say("ping", t=1)
        await source.until("pong")
        body = {"roomCode": room.code, "password": ROOM_PASSWORD}
        refused(await api.call("POST", "/auth/room/join", json=body), 401, "invalid_credentials")
        token = await api.join(room.code, "another")
        async with api.socket() as newcomer:
            await newcomer.say("registerListener", roomId=room.id, roomToken=token)
            await newcomer.until("listenerRegistered")
        async with api.socket() as takes_over:
            await takes_over.say("registerSource", **source_wish(room, roomToken=renewed))
            await takes_over.until("sourceRegistered")
            assert (await source.closed()).code == 4409


async def test_without_dropping_whoever_is_in_stays_and_the_old_password_is_worthless(
    api: Api, access_token: str
) -> None:
    room = await api.create_room(access_token)
    old = await api.join(room.code)
    async with api.source(room), api.listener(room) as listener:
        answer = await change(api, access_token, room, "password", password="another")
        assert answer["droppedListeners"] == 0
        await listener.say("ping", t=1)
        await listener.until("pong")
        body = {"roomCode": room.code, "password": ROOM_PASSWORD}
        refused(await api.call("POST", "/auth/room/join", json=body), 401, "invalid_credentials")
        await api.join(room.code, "another")
        async with api.socket() as back:  # a connection that broke comes back with its token
            await back.say("registerListener", roomId=room.id, roomToken=old)
            await back.until("listenerRegistered")
    assert (await change(api, access_token, room, "password", password=None))["open"] is True
    await api.join(room.code, "whatever")


async def test_the_token_of_a_closed_room_ends_with_it(api: Api, access_token: str) -> None:
    room = await api.create_room(access_token)
    token = await api.join(room.code)
    async with api.source(room) as source, api.listener(room) as listener:
        answer = await api.call("DELETE", f"{ROOMS}/{room.id}", token=access_token)
        assert answer.status == 204
        for socket in (source, listener):
            assert (await socket.until("roomClosed"))["reason"] == "closed_by_owner"
            assert (await socket.closed()).code == 4410
    for kind, worthless in (("registerListener", token), ("registerSource", room.token)):
        async with api.socket() as late:
            await late.say(kind, **registration(kind, room, worthless))
            code, end = await refusal(late)
            assert (code, end.code) == ("room_closed", 4410)
    for what, body in (("suspend", {}), ("resume", None), ("password", {"password": None})):
        answer = await api.call("POST", f"{ROOMS}/{room.id}/{what}", token=access_token, json=body)
        refused(answer, 410, "room_closed")


async def test_own_rooms_come_in_pages_newest_first_and_nobody_elses(
    api: Api, access_token: str, other_token: str
) -> None:
    rooms = [await api.create_room(other_token, public=True) for _ in range(5)]
    await api.create_room(access_token)
    await api.call("DELETE", f"{ROOMS}/{rooms[1].id}", token=other_token)

    async def listed(path: str, token: str | None = None) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            answer = await api.call("GET", f"{path}limit=2{cursor}", token=token)
            assert answer.status == 200, answer
            assert len(answer.body["rooms"]) <= 2
            found += [room["roomId"] for room in answer.body["rooms"]]
            if answer.body["next"] is None:
                return found
            cursor = f"&cursor={answer.body['next']}"

    newest_first = [room.id for room in reversed(rooms)]
    open_ones = [room for room in newest_first if room != rooms[1].id]
    assert await listed(ROOMS + "?", other_token) == newest_first
    assert await listed(ROOMS + "?active=true&", other_token) == open_ones
    assert await listed(ROOMS + "?active=false&", other_token) == [rooms[1].id]
    public = await listed("/api/rooms/public?")
    assert [room for room in public if room in newest_first] == open_ones
    for query in ("limit=0", "limit=101", "cursor=nonsense", "active=maybe"):
        answer = await api.call("GET", f"{ROOMS}?{query}", token=other_token)
        refused(answer, 400, "invalid_request")


async def test_nobody_changes_or_sees_the_room_of_another(
    api: Api, access_token: str, other_token: str
) -> None:
    room = await api.create_room(access_token)
    path = f"{ROOMS}/{room.id}"
    for method, end, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "mine"}),
        ("GET", "/channels", None),
        ("POST", "/suspend", {}),
        ("POST", "/resume", None),
        ("POST", "/password", {"password": "mine"}),
    ):
        answer = await api.call(method, path + end, token=other_token, json=body)
        refused(answer, 404, "room_not_found")
    refused(await api.call("GET", "/api/admin/rooms", token=other_token), 403, "not_allowed")
    answer = await api.call("DELETE", f"/api/admin/rooms/{room.id}", token=other_token)
    refused(answer, 403, "not_allowed")


async def test_an_account_hears_who_it_is(api: Api, access_token: str) -> None:
    answer = await api.call("GET", "/api/broadcaster/me", token=access_token)
    assert answer.status == 200
    assert (answer.body["email"], answer.body["role"]) == ("engineer@example.org", "user")


async def listeners(api: Api, token: str, room: RoomKeys, query: str = "") -> Any:
    """The answer of `GET …/listeners`."""
    path = f"/api/broadcaster/rooms/{room.id}/listeners{query}"
    answer = await api.call("GET", path, token=token)
    assert answer.status == 200, answer
    return answer.body


async def test_an_owner_sees_who_listens_and_what_their_players_say(
    api: Api, access_token: str
) -> None:
    room = await api.create_room(access_token)
    assert (await listeners(api, access_token, room))["listeners"] == []
    async with (
        api.listener(room, nickname="Drums", mode="mix") as first,
        api.listener(room) as second,
        api.source(room),
    ):
        await first.say("stats", bufferMs=60, jitterMs=2.5, latencyMs=81, lost=3)
        await first.say("ping", t=1)
        await first.until("pong")
        now = await listeners(api, access_token, room)
        assert (now["total"], now["next"]) == (2, None)
        newer, older = now["listeners"]
        assert (newer["nickname"], newer["mode"], newer["player"]) == (None, "multichannel", None)
        assert newer["clientId"] == second.texts("config")[0]["clientId"]
        assert (older["nickname"], older["mode"], older["address"]) == ("Drums", "mix", "127.0.0.1")
        assert older["joinedAt"] <= older["player"].pop("at") <= now["at"]
        assert older["player"] == {"bufferMs": 60, "jitterMs": 2.5, "latencyMs": 81, "lost": 3}
        page = await listeners(api, access_token, room, "?limit=1")
        assert page["listeners"] == [newer]
        rest = await listeners(api, access_token, room, f"?limit=1&cursor={page['next']}")
        assert [each["clientId"] for each in rest["listeners"]] == [older["clientId"]]
        assert (rest["total"], rest["next"]) == (2, None)
        whom = {"clientId": older["clientId"]}
        await change(api, access_token, room, "kick", **whom)
        left = await listeners(api, access_token, room)
        assert [each["clientId"] for each in left["listeners"]] == [newer["clientId"]]
