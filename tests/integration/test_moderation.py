"""An owner's hand on a room, invites and presets: end to end, and over a restart."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

from support.api_client import Api, RoomKeys, Socket
from support.peer import Frame
from support.postgres import open_directory
from support.server import ServerProcess

RATE = 48_000
EMBEDDED = ("--database-url", "embedded")


@dataclass
class Owner:
    """An owner's calls about a room."""

    api: Api
    room: RoomKeys
    token: str

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """The body of the answer, which has to be a success."""
        full = f"/api/broadcaster/rooms/{self.room.id}/{path}"
        answer = await self.api.call(method, full, token=self.token, **options)
        assert answer.status < 300, answer
        return answer.body

    async def participant(self, **fields: Any) -> dict[str, Any]:
        """The newest stay of which these are true, once the database has been told of it."""
        async with asyncio.timeout(30):
            while True:
                for stay in (await self.call("GET", "participants"))["participants"]:
                    if all(stay[name] == value for name, value in fields.items()):
                        return dict(stay)
                await asyncio.sleep(0.02)

    @classmethod
    async def of_a_new_room(cls, api: Api, **wishes: Any) -> Owner:
        """Its owner is the server's only account."""
        token = (await api.login())["accessToken"]
        return cls(api, await api.create_room(token, **wishes), token)


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory / "data"


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[ServerProcess]:
    with ServerProcess.start(data_dir, *EMBEDDED) as server:
        server.add_user()
        yield server


@pytest.fixture
async def owner(server: ServerProcess, session: aiohttp.ClientSession) -> Owner:
    return await Owner.of_a_new_room(Api(server.url, session))


async def register(socket: Socket, room: RoomKeys, token: str) -> dict[str, Any]:
    """What a listener's registration is answered."""
    await socket.say("registerListener", roomId=room.id, roomToken=token)
    message = await socket.next()
    assert isinstance(message, dict)
    return message


async def test_who_is_banned_is_out_at_once_and_stays_out(owner: Owner) -> None:
    api, room = owner.api, owner.room
    token = await api.join(room.code, nickname="Loud")
    async with api.socket() as listener, api.listener(room) as other:
        assert (await register(listener, room, token))["type"] == "listenerRegistered"
        loud = await owner.participant(nickname="Loud")
        whom = {"participantId": loud["participantId"], "reason": "Enough"}
        assert await owner.call("POST", "ban", json=whom | {"dryRun": True}) == {
            "ban": None,
            "hits": 1,
        }
        banned = await owner.call("POST", "ban", json=whom)
        assert banned["hits"] == 1
        error = await listener.until("error")
        assert (error["code"], error["message"]) == ("banned", "Enough")
        assert (await listener.closed()).code == 4403
        async with api.socket() as again:
            await again.say("registerListener", roomId=room.id, roomToken=token)
            assert (await again.closed()).code == 4403
        await other.say("ping", t=1)
        assert (await other.until("pong"))["t"] == 1, "nobody else is touched"
    ban = banned["ban"]["banId"]
    listed = await owner.call("GET", "bans")
    assert [b["banId"] for b in listed["bans"]] == [ban]
    await owner.call("DELETE", f"bans/{ban}")
    async with api.socket() as again:
        assert (await register(again, room, token))["type"] == "listenerRegistered"


@pytest.mark.parametrize("verb", ["kick", "ban"])
async def test_who_is_meant_is_named_without_a_line_break(owner: Owner, verb: str) -> None:
    path = f"/api/broadcaster/rooms/{owner.room.id}/{verb}"
    for name in ("participantId", "userId"):
        body = {name: f"{uuid.uuid4()}\n"}
        answer = await owner.api.call("POST", path, token=owner.token, json=body)
        assert (answer.status, answer.body["code"]) == (400, "invalid_request")


async def test_a_ban_by_address_tells_how_many_it_hits_and_closes_the_door(owner: Owner) -> None:
    api, room = owner.api, owner.room
    async with api.listener(room) as one, api.listener(room) as other, api.source(room) as source:
        answer = await owner.call("POST", "ban", json={"address": "::ffff:127.0.0.1"})
        assert answer["hits"] == 2
        for listener in (one, other):
            assert (await listener.closed()).code == 4403
        await source.say("ping", t=1)
        await source.until("pong")
    join = {"roomCode": room.code, "password": "let me in"}
    refused = await api.call("POST", "/auth/room/join", json=join)
    assert (refused.status, refused.body["code"]) == (403, "banned")


async def test_who_joins_with_an_account_is_banned_with_it(
    server: ServerProcess, owner: Owner
) -> None:
    api, room = owner.api, owner.room
    await asyncio.to_thread(server.add_user, "guest@example.org")
    guest = (await api.login("guest@example.org"))["accessToken"]
    join = {"roomCode": room.code, "password": "let me in"}
    joined = await api.call("POST", "/auth/room/join", token=guest, json=join)
    async with api.socket() as listener:
        await register(listener, room, joined.body["roomToken"])
        user = (await owner.participant(role="listener"))["userId"]
        assert user is not None
        assert (await owner.call("POST", "ban", json={"userId": user}))["hits"] == 1
        assert (await listener.closed()).code == 4403
    refused = await api.call("POST", "/auth/room/join", token=guest, json=join)
    assert (refused.status, refused.body["code"]) == (403, "banned")
    assert (await api.call("POST", "/auth/room/join", json=join)).status == 200
    assert (await api.call("POST", "/auth/room/join", token="x", json=join)).status == 401


async def test_who_is_kicked_may_come_again(owner: Owner) -> None:
    api, room = owner.api, owner.room
    token = await api.join(room.code)
    async with api.socket() as listener:
        await register(listener, room, token)
        client = (await owner.participant(role="listener"))["clientId"]
        answer = await owner.call("POST", "kick", json={"clientId": client})
        assert answer == {"closed": 1}
        assert (await listener.closed()).code == 4403
    async with api.socket() as again:
        assert (await register(again, room, token))["type"] == "listenerRegistered"
    nobody = await api.call(
        "POST", f"/api/broadcaster/rooms/{room.id}/kick", token=owner.token, json={}
    )
    assert nobody.status == 400


async def test_an_invite_lets_in_as_many_as_it_says_however_they_come(owner: Owner) -> None:
    api, room = owner.api, owner.room
    made = await owner.call("POST", "invites", json={"maxUses": 7, "expiresInS": 600})
    link = urlsplit(made["link"])
    assert link.path == f"/listen/{room.code}"
    assert not link.query
    invite = link.fragment.removeprefix("invite=")
    assert invite == made["invite"]

    async def join(text: str = invite) -> int:
        body = {"roomCode": room.code, "invite": text}
        return (await api.call("POST", "/auth/room/join", json=body)).status

    statuses = await asyncio.gather(*(join() for _ in range(50)))
    assert statuses.count(200) == 7
    assert set(statuses) == {200, 401}
    (listed,) = (await owner.call("GET", "invites"))["invites"]
    assert (listed["uses"], listed["maxUses"]) == (7, 7)
    assert "invite" not in listed, "its text is told once"


async def test_a_hall_whose_guests_have_an_invite_each_comes_in_at_once(owner: Owner) -> None:
    made = [await owner.call("POST", "invites", json={"maxUses": 1}) for _ in range(30)]

    async def join(invite: str) -> int:
        body = {"roomCode": owner.room.code, "invite": invite}
        return (await owner.api.call("POST", "/auth/room/join", json=body)).status

    statuses = await asyncio.gather(*(join(one["invite"]) for one in made))
    assert statuses == [200] * 30


async def test_an_invite_is_forged_revoked_or_of_another_room_in_vain(
    server: ServerProcess, session: aiohttp.ClientSession
) -> None:
    api = Api(server.url, session)
    owner, elsewhere = [await Owner.of_a_new_room(api) for _ in range(2)]
    made = await owner.call("POST", "invites", json={})
    other = await elsewhere.call("POST", "invites", json={})

    async def join(text: str) -> tuple[int, str]:
        body = {"roomCode": owner.room.code, "invite": text}
        answer = await api.call("POST", "/auth/room/join", json=body)
        return answer.status, answer.body.get("code", "")

    assert (await join(made["invite"]))[0] == 200
    wrong = (401, "invalid_credentials")
    assert await join("x.y.z") == wrong
    assert await join(other["invite"]) == wrong
    await owner.call("DELETE", f"invites/{made['inviteId']}")
    assert await join(made["invite"]) == wrong
    assert made["invite"] not in server.output()


async def test_the_owners_hand_is_heard_on_a_listeners_monitor(owner: Owner) -> None:
    api, room = owner.api, owner.room
    tone = np.sin(np.arange(RATE // 2) * (2 * np.pi * 440 / RATE)) * 16_000
    both = np.stack([tone, tone]).astype(np.int16)

    def level(frame: Frame) -> float:
        return float(np.abs(frame.data.astype(np.float64)).max())

    async with api.source(room) as source, api.listener(room, mode="mix") as listener:
        who = await owner.participant(role="listener")

        async def play() -> None:
            at = 0
            while True:
                at = await source.play(both, rate=RATE, timestamp=at)

        playing = asyncio.create_task(play())
        try:
            loud = max(level(frame) for frame in await listener.frames(10))
            mix = await owner.call(
                "PUT", f"mixes/{who['participantId']}", json={"faders": [0.25, 0.25]}
            )
            assert mix["mix"]["faders"] == [0.25, 0.25]
            changed = await listener.until("mixChanged")
            assert changed["faders"] == [0.25, 0.25]
            await listener.frames(2)  # in which the gain ramps
            quiet = max(level(frame) for frame in await listener.frames(10))
        finally:
            playing.cancel()
        assert 20 * np.log10(loud / quiet) == pytest.approx(12.04, abs=0.3)
    gone = await api.call(
        "GET",
        f"/api/broadcaster/rooms/{room.id}/mixes/{who['participantId']}",
        token=owner.token,
    )
    assert gone.status == 404


async def test_bans_invites_and_presets_survive_a_restart(
    session: aiohttp.ClientSession,
) -> None:
    with open_directory() as directory:
        data_dir = directory / "data"
        with ServerProcess.start(data_dir, *EMBEDDED) as server:
            server.add_user()
            owner = await Owner.of_a_new_room(Api(server.url, session))
            good, bad = [
                await owner.api.join(owner.room.code, nickname=name) for name in ("Calm", "Loud")
            ]
            async with owner.api.socket() as listener, owner.api.socket() as loud:
                await register(listener, owner.room, good)
                await listener.say("setMix", faders=[0.3])
                await listener.say("savePreset", name="mine")
                await listener.until("presetSaved")
                await register(loud, owner.room, bad)
                whom = (await owner.participant(nickname="Loud"))["participantId"]
                await owner.call("POST", "ban", json={"participantId": whom})
                assert (await loud.closed()).code == 4403
            invite = await owner.call("POST", "invites", json={"maxUses": 1})
        with ServerProcess.start(data_dir, *EMBEDDED) as server:
            api = Api(server.url, session)
            async with api.socket() as listener, api.socket() as loud:
                await register(listener, owner.room, good)
                await listener.say("loadPreset", name="mine")
                assert (await listener.until("preset"))["mix"]["faders"] == [0.3]
                await loud.say("registerListener", roomId=owner.room.id, roomToken=bad)
                assert (await loud.closed()).code == 4403
            body = {"roomCode": owner.room.code, "invite": invite["invite"]}
            for status in (200, 401):
                answer = await api.call("POST", "/auth/room/join", json=body)
                assert answer.status == status
