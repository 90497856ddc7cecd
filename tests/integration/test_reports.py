"""What can be read of a room, and of the audit log: with a database, and without."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from support.api_client import Answer, Api, RoomKeys, noise
from support.postgres import open_directory
from support.server import ServerProcess

ADMIN = "admin@example.org"
OTHER = "other@example.org"
PACKETS = 25  # of 20 ms
METADATA = {"tour": {"city": "Köln"}}


@pytest.fixture(scope="module", params=["none", "embedded"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with open_directory() as directory:
        options = ("--database-url", request.param)
        with ServerProcess.start(directory / "data", *options) as server:
            server.add_user()
            server.add_user(OTHER)
            server.add_user(ADMIN, admin=True)
            yield server


@pytest.fixture
def api(server: ServerProcess, session: aiohttp.ClientSession) -> Api:
    return Api(server.url, session)


@pytest.fixture
async def owner(api: Api) -> str:
    return (await api.login())["accessToken"]


@pytest.fixture
async def other(api: Api) -> str:
    return (await api.login(OTHER))["accessToken"]


@pytest.fixture
async def admin(api: Api) -> str:
    return (await api.login(ADMIN))["accessToken"]


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.body["code"]) == (status, code), answer


async def until(
    read: Callable[[], Awaitable[Any]], there: Callable[[Any], bool], *, within_s: float = 30
) -> Any:
    """What is read, as soon as it is so: what happened takes a moment to the database."""
    async with asyncio.timeout(within_s):
        while not there(found := await read()):  # noqa: ASYNC110 - a server tells no changes
            await asyncio.sleep(0.02)
    return found


async def get(api: Api, path: str, token: str, **query: str | int) -> Any:
    answer = await api.call("GET", path, token=token, params=query)
    assert answer.status == 200, answer
    return answer.body


def of(room: RoomKeys, what: str) -> str:
    return f"/api/broadcaster/rooms/{room.id}/{what}"


async def test_participants_are_those_who_are_there_and_those_who_were(
    api: Api, owner: str
) -> None:
    room = await api.create_room(owner, name="Hall", metadata=METADATA)

    async def stays(**query: str | int) -> list[dict[str, Any]]:
        body = await get(api, of(room, "participants"), owner, **query)
        assert body["room"]["roomId"] == room.id
        assert body["room"]["roomCode"] == room.code
        assert body["room"]["name"] == "Hall"
        assert body["room"]["metadata"] == METADATA
        found: list[dict[str, Any]] = body["participants"]
        return found

    assert await stays() == []
    async with api.source(room) as broadcaster:
        async with api.listener(room, nickname="Ann") as listener:
            await broadcaster.play(noise(2, PACKETS * 960), rate=48000)
            await listener.frames(1)
            (ann, source) = await until(stays, lambda found: len(found) == 2)
            assert (ann["nickname"], ann["role"]) == ("Ann", "listener")
            assert (source["role"], source["leaveReason"]) == ("broadcaster", None)
            assert ann["joinedAt"] >= source["joinedAt"] > 1_700_000_000_000_000
            assert (ann["leftAt"], ann["durationS"]) == (None, None)
            assert ann["address"] == "127.0.0.1"
        async with api.listener(room, nickname="Bob"):
            (left,) = await until(lambda: stays(live="false"), lambda found: len(found) == 1)
            assert left["participantId"] == ann["participantId"]
            assert left["leaveReason"] == "left"
            assert left["framesSent"] > 0
            assert left["durationS"] == pytest.approx((left["leftAt"] - ann["joinedAt"]) / 1e6)
            there = await until(lambda: stays(live="true"), lambda found: len(found) == 2)
            assert [each["nickname"] for each in there] == ["Bob", None]
    await api.call("DELETE", f"/api/broadcaster/rooms/{room.id}", token=owner)
    whole = await until(stays, lambda found: all(each["leftAt"] for each in found))
    assert [each["nickname"] for each in whole] == ["Bob", "Ann", None], "the room is closed"
    assert whole[-1]["framesSent"] == PACKETS
    (day,) = (await get(api, of(room, "analytics"), owner))["days"]  # unless it is midnight
    assert day["totalPacketsReceived"] == PACKETS
    assert day["totalPacketsSent"] == sum(each["framesSent"] for each in whole[:-1])

    pages: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await get(api, of(room, "participants"), owner, limit=2, **cursor)
        pages.append(page["participants"])
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert [len(page) for page in pages] == [2, 1]
    assert [stay for page in pages for stay in page] == whole


async def test_statistics_and_days_of_a_room(api: Api, owner: str) -> None:
    room = await api.create_room(owner, metadata=METADATA)
    async with api.source(room), api.listener(room), api.listener(room):
        pass
    async with api.listener(room):

        async def statistics() -> Any:
            return await get(api, of(room, "statistics"), owner)

        found = await until(statistics, lambda body: body["sessions"] == 3)
        assert found["room"]["roomCode"] == room.code
        assert (found["participants"], found["peakListeners"]) == (3, 2)
        assert found["listenSeconds"] > 0
        mean = found["listenSeconds"] / 3
        assert found["averageSessionSeconds"] == pytest.approx(mean)

        today = datetime.now(UTC).date()
        body = await get(api, of(room, "analytics"), owner)
        assert body["room"]["metadata"] == METADATA
        (day,) = body["days"]  # unless it is midnight
        assert day["date"] in (str(today), str(today - timedelta(days=1)))
        assert (day["totalListeners"], day["peakListeners"], day["final"]) == (3, 2, False)
        assert day["totalListenMinutes"] * 60 >= found["listenSeconds"], "who is there counts on"
    earlier = today - timedelta(days=9)
    body = await get(
        api, of(room, "analytics"), owner, **{"from": str(earlier), "to": str(earlier)}
    )
    assert body["days"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"from": "2024-03-02", "to": "2026-03-01"},
        {"from": "yesterday"},
        {"from": "2026-02-30"},
        {"to": "0001-01-01"},
        {"to": "9999-12-31"},
        {"from": "9999-12-31"},
    ],
)
async def test_days_that_can_not_be_asked_for(api: Api, owner: str, query: dict[str, str]) -> None:
    answer = await api.call(
        "GET", "/api/broadcaster/rooms/ABC234/analytics", token=owner, params=query
    )
    refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("what", ["participants", "statistics", "analytics"])
async def test_a_room_tells_its_owner_alone(api: Api, owner: str, other: str, what: str) -> None:
    room = await api.create_room(owner, public=True)
    by_code = f"/api/broadcaster/rooms/{room.code.lower()}/{what}"
    assert (await api.call("GET", by_code, token=owner)).status == 200
    refused(await api.call("GET", of(room, what)), 401, "unauthorized")
    refused(await api.call("GET", of(room, what), token=other), 404, "room_not_found")
    await api.call("DELETE", f"/api/broadcaster/rooms/{room.id}", token=owner)
    assert (await get(api, of(room, what), owner))["room"]["state"] == "closed"
    refused(await api.call("GET", of(room, what), token=other), 404, "room_not_found")
    nowhere = f"/api/broadcaster/rooms/{'0' * 8}-0000-4000-8000-{'0' * 12}/{what}"
    refused(await api.call("GET", nowhere, token=owner), 404, "room_not_found")


async def test_everybody_reads_their_own_lines_of_the_audit_log_100_a_page(
    api: Api, owner: str, other: str
) -> None:
    room = await api.create_room(owner)
    refused(await api.call("GET", of(room, "statistics"), token=other), 404, "room_not_found")
    for _ in range(101):
        await api.login(OTHER)

    async def own() -> Any:
        return await get(api, "/api/audit", other)

    page = await until(own, lambda body: body["entries"][0]["event"] == "login_success")
    page = await until(
        own, lambda body: [each["event"] for each in body["entries"]] == ["login_success"] * 100
    )
    times = [each["at"] for each in page["entries"]]
    assert times == sorted(times, reverse=True)
    (user,) = {each["userId"] for each in page["entries"]}
    following = await get(api, "/api/audit", other, cursor=page["next"])
    assert {each["userId"] for each in following["entries"]} == {user}
    assert following["entries"][0]["at"] <= times[-1]
    denied, *_ = (await get(api, "/api/audit", other, event="room_access_denied"))["entries"]
    assert denied["roomId"] is None, "whoever tries names does not learn which are of rooms"
    assert denied["details"]["code"] == "room_not_found"
    assert denied["details"]["path"] == of(room, "statistics")
    assert denied["address"] == "127.0.0.1"
    assert denied["userAgent"]
    theirs = await get(api, "/api/audit", owner, event="room_created", limit=1)
    assert theirs["entries"][0]["roomId"] == room.id
    assert theirs["entries"][0]["userId"] != user


async def test_administrators_read_everybodys_lines(api: Api, owner: str, admin: str) -> None:
    room = await api.create_room(owner)
    path = "/api/admin/audit"
    refused(await api.call("GET", path, token=owner), 403, "not_allowed")

    async def created() -> Any:
        return (await get(api, path, admin, event="room_created", room=room.id))["entries"]

    (line,) = await until(created, lambda found: len(found) == 1)
    at, user = line["at"], line["userId"]
    narrow = {"user": user, "since": at, "until": at + 1, "room": room.id}
    assert (await get(api, path, admin, **narrow))["entries"] == [line]
    assert (await get(api, path, admin, **narrow | {"until": at}))["entries"] == []
    mine = {"since": at, "user": "00000000-0000-4000-8000-000000000000"}
    assert (await get(api, path, admin, **mine))["entries"] == []
    everybody = await get(api, path, admin)
    assert {each["userId"] for each in everybody["entries"]} > {user}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/audit", {"event": "made_up"}),
        ("/api/audit", {"room": "ABC234"}),
        ("/api/audit", {"since": "-1"}),
        ("/api/audit", {"limit": "101"}),
        ("/api/audit", {"cursor": "x"}),
        ("/api/audit", {"room": f"{uuid.uuid4()}\n"}),
        ("/api/admin/audit", {"user": "me"}),
    ],
)
async def test_what_can_not_be_asked_of_the_audit_log(
    api: Api, admin: str, path: str, query: dict[str, str]
) -> None:
    refused(await api.call("GET", path, token=admin, params=query), 400, "invalid_request")
