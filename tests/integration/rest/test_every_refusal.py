"""Each refusal that a route declares is one that it gives: provoked here, one by one.

The list of what has to be provoked is that of the declarations; what nobody provokes fails.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import asyncpg
import pytest

from roomserver.edge.endpoints import Endpoint
from roomserver.edge.openapi import ALWAYS, problems_of
from roomserver.edge.problems import CONTENT_TYPE, STATUS, ProblemCode
from roomserver.edge.routes import ENDPOINTS
from roomserver.rooms.moderation import MAX_BANS
from roomserver.store.invites import MOST as MOST_INVITES
from support.api_client import ROOM_PASSWORD, Answer, Api
from support.server import PASSWORD

from .stage import ROUTES, TIMEOUT_S, Stage, name_of, new_address

Case: TypeAlias = Callable[[Stage, Endpoint], Awaitable[Answer]]
Cases: TypeAlias = Mapping[str, Case]  # by route
C = TypeVar("C", bound=Case)

# Of every request, before it comes to a route or after the server has gone: see test_server_process
# and tests/fault/hostile.
NOT_OF_ROUTES = frozenset(ALWAYS)

ROUNDS = 5

CASES: dict[tuple[ProblemCode, str | None], Case] = {}


def provokes(code: ProblemCode, *routes: str) -> Callable[[C], C]:
    """A case for these routes; for all of which none is named, if none is."""

    def keep(case: C) -> C:
        for route in routes or (None,):
            assert (code, route) not in CASES
            CASES[code, route] = case
        return case

    return keep


def declaring(code: ProblemCode) -> Iterator[Endpoint]:
    """The routes that may refuse so."""
    return (endpoint for endpoint in ENDPOINTS if code in problems_of(endpoint))


def test_no_case_is_of_a_route_that_does_not_declare_it() -> None:
    for code, route in CASES:
        assert route is None or route in map(name_of, declaring(code)), (code, route)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "code", sorted({code for each in ENDPOINTS for code in problems_of(each)} - NOT_OF_ROUTES)
)
async def test_routes_that_declare_it_refuse_so(stage: Stage, code: ProblemCode) -> None:
    given: dict[str, tuple[int, str, str]] = {}
    async with CONDITIONS.get(code, nothing_special)(stage) as cases:
        for endpoint in declaring(code):
            route = name_of(endpoint)
            case = cases.get(route) or CASES.get((code, route)) or CASES.get((code, None))
            assert case is not None, f"nothing provokes {code} of {route}"
            answer = await case(stage, endpoint)
            given[route] = (answer.status, answer.body["code"], answer.headers["Content-Type"])
            if answer.status in (429, 503):
                assert int(answer.headers["Retry-After"]) >= 1, answer
    assert given == dict.fromkeys(given, (STATUS[code], code.value, CONTENT_TYPE))


# ---- who asks ----


@provokes(ProblemCode.UNAUTHORIZED)
async def without_a_token(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, token=None, headers={"Authorization": "Basic eDp5"})


@provokes(ProblemCode.TOKEN_INVALID)
async def with_a_forged_token(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, token="a.b.c")


@provokes(ProblemCode.TOKEN_INVALID, "POST /auth/refresh")
async def with_no_token_of_ours(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json={"refreshToken": "x"})


@provokes(ProblemCode.TOKEN_EXPIRED)
async def with_an_old_token(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, token=stage.expired_token())


@provokes(ProblemCode.NOT_ALLOWED)
async def without_being_an_administrator(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, token=stage.scene.owner.token)


COOKIE = {"Origin": "https://evil.example", "Cookie": "refresh_token=x"}


@provokes(ProblemCode.ORIGIN_NOT_ALLOWED)
async def from_a_page_that_asks_for_a_cookie(stage: Stage, endpoint: Endpoint) -> Answer:
    body = LOGINS[name_of(endpoint)] | {"cookie": True}
    return await stage.call(endpoint, headers=COOKIE, json=body)


@provokes(ProblemCode.ORIGIN_NOT_ALLOWED, "POST /auth/refresh", "POST /auth/logout")
async def from_a_page_with_the_cookie(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, headers=COOKIE, json={})


LOGINS: dict[str, dict[str, Any]] = {  # right but for who says it
    "POST /auth/broadcaster": {"email": "nobody@example.org", "password": PASSWORD},
    "POST /auth/register": {"email": "new@example.org", "password": PASSWORD, "invite": "x"},
    "POST /auth/password": {"oldPassword": "wrong", "newPassword": PASSWORD},
}


@provokes(ProblemCode.INVALID_CREDENTIALS, "POST /auth/broadcaster", "POST /auth/password")
async def with_a_wrong_password(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json=LOGINS[name_of(endpoint)])


@provokes(ProblemCode.INVALID_CREDENTIALS, "POST /auth/room/join")
async def with_a_wrong_room_password(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json={"roomCode": stage.scene.open.code, "password": "no"})


@provokes(ProblemCode.ACCOUNT_INVITE_REFUSED)
async def with_no_invite_of_ours(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json=LOGINS[name_of(endpoint)])


@provokes(ProblemCode.REGISTRATION_CLOSED)
async def where_accounts_are_made_by_administrators(stage: Stage, endpoint: Endpoint) -> Answer:
    closed = Stage(stage.scene, Api(stage.scene.without_registration, stage.api.session))
    return await closed.call(endpoint, json=LOGINS[name_of(endpoint)])


@provokes(ProblemCode.EMAIL_TAKEN, "POST /api/admin/users")
async def for_an_address_that_is_taken(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json={"email": stage.scene.owner.email, "password": PASSWORD})


@provokes(ProblemCode.EMAIL_TAKEN, "POST /auth/register")
async def by_invite_for_an_address_that_is_taken(stage: Stage, endpoint: Endpoint) -> Answer:
    invites = "/api/admin/invites"
    made = await stage.api.call("POST", invites, token=stage.scene.admin.token, json={})
    body = {"email": stage.scene.owner.email, "password": PASSWORD, "invite": made.body["invite"]}
    return await stage.call(endpoint, json=body)


# ---- what is asked ----


@provokes(ProblemCode.INVALID_REQUEST)
async def with_what_is_no_json_or_no_number(stage: Stage, endpoint: Endpoint) -> Answer:
    if endpoint.body is not None:
        headers = {"Content-Type": "application/json"}
        return await stage.call(endpoint, data=b"{", headers=headers)
    return await stage.call(endpoint, params={"limit": "x", "from": "x"})


@provokes(ProblemCode.BODY_TOO_LARGE)
async def with_too_much(stage: Stage, endpoint: Endpoint) -> Answer:
    headers = {"Content-Type": "application/json"}
    return await stage.call(endpoint, data=b" " * 70_000, headers=headers)


@provokes(ProblemCode.UNSUPPORTED_MEDIA_TYPE)
async def with_text(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, data=b"{}", headers={"Content-Type": "text/plain"})


@provokes(ProblemCode.NOT_FOUND)
async def of_what_is_not_there(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint)


@provokes(ProblemCode.NOT_FOUND, "POST /api/broadcaster/rooms/{room}/ban")
async def by_the_address_of_nobody(stage: Stage, endpoint: Endpoint) -> Answer:
    body = {"participantId": str(uuid.uuid4()), "withAddress": True}
    return await stage.call(endpoint, json=body)


# ---- rooms ----


@provokes(ProblemCode.ROOM_NOT_FOUND)
async def of_a_room_that_is_not_there(stage: Stage, endpoint: Endpoint) -> Answer:
    unknown = await stage.call(endpoint, room=str(uuid.uuid4()))
    if not endpoint.admin:  # one of somebody else is like none
        for room in (stage.scene.open, stage.scene.closed):
            stranger = stage.scene.stranger.token
            theirs = await stage.call(endpoint, room=room.id, token=stranger)
            assert (theirs.status, theirs.body) == (unknown.status, unknown.body)
    return unknown


@provokes(ProblemCode.ROOM_CLOSED)
async def of_a_closed_room(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, room=stage.scene.closed.id)


@provokes(ProblemCode.ROOM_CLOSED, "POST /auth/room/join")
async def of_a_room_that_closes_at_this_moment(stage: Stage, endpoint: Endpoint) -> Answer:
    """The use of the invite is given back."""
    room = await stage.room()
    invite = await stage.invite(room, maxUses=1)
    body = {"roomCode": room.code, "invite": invite["invite"]}
    async with stage.locked("invites") as unlock, asyncio.TaskGroup() as group:
        joining = group.create_task(stage.call(endpoint, json=body))
        await stage.waits_for("invites")
        await stage.owner_does("DELETE", f"/api/broadcaster/rooms/{room.id}")
        await unlock()
    tables = await asyncpg.connect(**stage.scene.cluster.connection)
    uses = "SELECT uses FROM relay.invites WHERE id = $1"
    assert await tables.fetchval(uses, invite["inviteId"]) == 0
    await tables.close()
    return joining.result()


@provokes(ProblemCode.ROOM_FULL)
async def of_a_full_room(stage: Stage, endpoint: Endpoint) -> Answer:
    room = await stage.room(maxListeners=1)
    invite = (await stage.invite(room, maxUses=1))["invite"]
    async with stage.api.listener(room):
        answer = await stage.call(endpoint, json={"roomCode": room.code, "invite": invite})
        body = {"roomCode": room.code, "password": ROOM_PASSWORD}
        assert (await stage.call(endpoint, json=body)).body["code"] == answer.body["code"]
    async with asyncio.timeout(TIMEOUT_S):
        # As soon as the one is gone, and that is noticed, the invite lets in.
        while (  # noqa: ASYNC110
            await stage.call(endpoint, json={"roomCode": room.code, "invite": invite})
        ).status != 200:
            await asyncio.sleep(0.02)
    return answer


@provokes(ProblemCode.BANNED)
async def by_who_is_banned(stage: Stage, endpoint: Endpoint) -> Answer:
    room = await stage.room()
    body: dict[str, Any] = {"userId": stage.scene.stranger.id}
    await stage.owner_does("POST", f"/api/broadcaster/rooms/{room.id}/ban", json=body)
    body = {"roomCode": room.code, "password": ROOM_PASSWORD}
    return await stage.call(endpoint, token=stage.scene.stranger.token, json=body)


@provokes(ProblemCode.WRONG_STATE)
async def of_a_room_without_a_source(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint)


@provokes(ProblemCode.WRONG_SERVER)
async def of_a_room_elsewhere(stage: Stage, endpoint: Endpoint) -> Answer:
    answer = await stage.call(endpoint, room=stage.scene.elsewhere)
    assert answer.body["url"] == "http://other.example"
    return answer


@provokes(ProblemCode.WRONG_SERVER, "POST /auth/room/join")
async def into_a_room_elsewhere(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json={"roomCode": stage.scene.elsewhere})


# ---- limits ----


async def again(stage: Stage, endpoint: Endpoint, admitted: int, **options: Any) -> Answer:
    """The answer to one more than so many equal requests from one address, all others refused."""
    options.setdefault("address", new_address())
    for _ in range(admitted):
        answer = await stage.call(endpoint, **options)
        assert answer.status != 429, answer
    answer = await stage.call(endpoint, **options)
    assert answer.headers["RateLimit-Policy"].split(";")[1] == f"q={admitted}"
    return answer


@provokes(ProblemCode.RATE_LIMITED, "POST /auth/broadcaster")
async def too_many_logins(stage: Stage, endpoint: Endpoint) -> Answer:
    body = {"email": "limited@example.org", "password": "wrong"}
    return await again(stage, endpoint, 5, json=body)


@provokes(ProblemCode.RATE_LIMITED, "POST /auth/password")
async def too_many_old_passwords(stage: Stage, endpoint: Endpoint) -> Answer:
    body = {"oldPassword": "wrong", "newPassword": PASSWORD}
    return await again(stage, endpoint, 5, token=(await stage.account()).token, json=body)


@provokes(ProblemCode.RATE_LIMITED, "POST /auth/register")
async def too_many_registrations(stage: Stage, endpoint: Endpoint) -> Answer:
    return await again(stage, endpoint, 5, json=LOGINS[name_of(endpoint)])


@provokes(ProblemCode.RATE_LIMITED, "POST /auth/refresh")
async def too_many_refreshes(stage: Stage, endpoint: Endpoint) -> Answer:
    """Of good tokens and of bad ones alike."""
    address = new_address()
    refresh = (await stage.account()).refresh
    for _ in range(2):
        answer = await stage.call(endpoint, address=address, json={"refreshToken": refresh})
        refresh = answer.body["refreshToken"]
    wrong = await stage.call(endpoint, address=address, json={"refreshToken": "x"})
    assert wrong.status == 401
    answer = await stage.call(endpoint, address=address, json={"refreshToken": refresh})
    assert answer.headers["RateLimit-Policy"] == '"refresh";q=3;w=60'
    elsewhere = await stage.call(endpoint, json={"refreshToken": refresh})
    assert elsewhere.status == 200, "the token that was refused for the limit is good still"
    return answer


@provokes(ProblemCode.RATE_LIMITED, "POST /auth/room/create")
async def too_many_rooms(stage: Stage, endpoint: Endpoint) -> Answer:
    return await again(stage, endpoint, 60, token=(await stage.account()).token, json={})


@provokes(ProblemCode.RATE_LIMITED, "POST /auth/room/join")
async def too_many_guesses(stage: Stage, endpoint: Endpoint) -> Answer:
    body = {"roomCode": stage.scene.open.code, "password": "wrong"}
    return await again(stage, endpoint, 10, json=body)


@provokes(ProblemCode.TOO_MANY, "POST /api/broadcaster/rooms/{room}/ban")
async def too_many_bans(stage: Stage, endpoint: Endpoint) -> Answer:
    room = await stage.room()
    for _ in range(MAX_BANS):
        body = {"participantId": str(uuid.uuid4())}
        assert (await stage.call(endpoint, room=room.id, json=body)).status == 201
    return await stage.call(endpoint, room=room.id, json={"participantId": str(uuid.uuid4())})


@provokes(ProblemCode.TOO_MANY, "POST /api/broadcaster/rooms/{room}/invites")
async def too_many_invites(stage: Stage, endpoint: Endpoint) -> Answer:
    room = await stage.room()
    await stage.invite(room)
    tables = await asyncpg.connect(**stage.scene.cluster.connection)
    await tables.execute(
        "INSERT INTO relay.invites (room_id, created_by, secret_hash, expires_at)"
        " SELECT room_id, created_by, int8send(n), expires_at"
        " FROM relay.invites, generate_series(2, $2) n WHERE room_id = $1",
        room.id,
        MOST_INVITES,
    )
    await tables.close()
    return await stage.call(endpoint, room=room.id)


# ---- when something is not there, or has too much to do ----


async def crowd(stage: Stage, endpoint: Endpoint, **options: Any) -> Answer:
    """So many at once that some are refused."""
    answers = await asyncio.gather(*(stage.call(endpoint, **options) for _ in range(10)))
    return max(answers, key=lambda answer: answer.status)


@provokes(ProblemCode.BUSY, "POST /auth/broadcaster", "POST /auth/register")
async def while_many_log_in(stage: Stage, endpoint: Endpoint) -> Answer:
    return await crowd(stage, endpoint, json=LOGINS[name_of(endpoint)])


@provokes(ProblemCode.BUSY, "POST /auth/password")
async def while_many_change_their_password(stage: Stage, endpoint: Endpoint) -> Answer:
    body = {"oldPassword": PASSWORD, "newPassword": "another password"}
    return await crowd(stage, endpoint, token=(await stage.account()).token, json=body)


@provokes(ProblemCode.BUSY, "POST /api/admin/users")
async def while_many_accounts_are_made(stage: Stage, endpoint: Endpoint) -> Answer:
    return await crowd(stage, endpoint, json={"email": "crowd@example.org", "password": PASSWORD})


@provokes(ProblemCode.BUSY, "POST /auth/room/create")
async def while_many_rooms_are_made(stage: Stage, endpoint: Endpoint) -> Answer:
    token = (await stage.account()).token
    return await crowd(stage, endpoint, token=token, json={"password": ROOM_PASSWORD})


@provokes(ProblemCode.BUSY, "POST /auth/room/join")
async def while_many_guess(stage: Stage, endpoint: Endpoint) -> Answer:
    async def guess(number: int) -> Answer:
        body = {"roomCode": "NNNNNN", "password": str(number)}
        return await stage.call(endpoint, json=body)

    answers = await asyncio.gather(*map(guess, range(10)))
    return max(answers, key=lambda answer: answer.status)


@provokes(ProblemCode.DATABASE_AWAY)
async def what_is_in_the_database(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint)


# What is done to a room that is here needs no database, unless it is kept there alone.
ROOMS_HERE = [
    name_of(endpoint)
    for endpoint in declaring(ProblemCode.DATABASE_AWAY)
    if ProblemCode.WRONG_SERVER in endpoint.problems
    and "{room}" in endpoint.path
    and "/invites" not in endpoint.path
]


@provokes(ProblemCode.DATABASE_AWAY, "GET /api/broadcaster/rooms/{room}", *ROOMS_HERE)
async def a_room_that_may_be_in_the_database(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, room=str(uuid.uuid4()))


@provokes(ProblemCode.DATABASE_AWAY, *LOGINS)
async def who_may_log_in(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json=LOGINS[name_of(endpoint)])


@provokes(ProblemCode.DATABASE_AWAY, "POST /auth/refresh", "POST /auth/logout")
async def whose_refresh_token_it_is(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json={"refreshToken": "x"})


@provokes(ProblemCode.DATABASE_AWAY, "GET /metrics")
async def who_is_an_administrator(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, token=stage.scene.admin.token)


@provokes(ProblemCode.NOT_READY)
async def whether_newcomers_are_welcome(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint)


@provokes(ProblemCode.NOT_KEPT)
async def what_the_disk_does_not_take(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint)


@provokes(ProblemCode.NOT_KEPT, "PATCH /api/broadcaster/rooms/{room}")
async def another_name(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json={"name": "another"})


@provokes(ProblemCode.NOT_KEPT, "POST /api/broadcaster/rooms/{room}/ban")
async def a_ban(stage: Stage, endpoint: Endpoint) -> Answer:
    return await stage.call(endpoint, json={"participantId": str(uuid.uuid4())})


# ---- conditions, and what has to be there before them ----


@asynccontextmanager
async def nothing_special(stage: Stage) -> AsyncIterator[Cases]:
    yield {}


@asynccontextmanager
async def too_much_to_do(stage: Stage) -> AsyncIterator[Cases]:
    """All is asked for before: passwords in turn, and rooms in the seconds that it lasts."""
    given: dict[str, Answer] = {}
    rooms = []
    for endpoint in declaring(ProblemCode.BUSY):
        route = name_of(endpoint)
        if case := CASES.get((ProblemCode.BUSY, route)):
            given[route] = await case(stage, endpoint)
        else:
            rooms.append(endpoint)
    unknown = str(uuid.uuid4())
    for _ in range(ROUNDS):
        async with stage.lookups_busy():
            answers = await asyncio.gather(*(stage.call(each, room=unknown) for each in rooms))
            # Whoever may just guess is not told more than ever.
            guess = {"roomCode": unknown, "password": "wrong"}
            answer = await stage.call(ROUTES["POST /auth/room/join"], json=guess)
            assert answer.body["code"] == ProblemCode.INVALID_CREDENTIALS
        given |= zip(map(name_of, rooms), answers, strict=True)
        # On a machine with much to do some came when those before them were done already.
        busy = ProblemCode.BUSY
        rooms = [each for each in rooms if given[name_of(each)].body["code"] != busy]
        if not rooms:
            break

    async def as_before(stage: Stage, endpoint: Endpoint) -> Answer:
        return given[name_of(endpoint)]

    yield dict.fromkeys(given, as_before)


@asynccontextmanager
async def database_away(stage: Stage) -> AsyncIterator[Cases]:
    room = stage.scene.open
    invite = (await stage.invite(room))["invite"]

    async def join(stage: Stage, endpoint: Endpoint) -> Answer:
        return await stage.call(endpoint, json={"roomCode": room.code, "invite": invite})

    async with stage.database_away():
        yield {"POST /auth/room/join": join}


@asynccontextmanager
async def disk_that_takes_nothing(stage: Stage) -> AsyncIterator[Cases]:
    """With a room that plays, one that is held, and one that somebody is banned from."""
    playing, held, banning = [await stage.room() for _ in range(3)]
    rooms = "/api/broadcaster/rooms"
    async with stage.api.source(held):
        await stage.owner_does("POST", f"{rooms}/{held.id}/suspend", json={})
    body = {"participantId": str(uuid.uuid4())}
    made = await stage.owner_does("POST", f"{rooms}/{banning.id}/ban", json=body)

    async def suspend(stage: Stage, endpoint: Endpoint) -> Answer:
        return await stage.call(endpoint, room=playing.id)

    async def resume(stage: Stage, endpoint: Endpoint) -> Answer:
        return await stage.call(endpoint, room=held.id)

    async def lift(stage: Stage, endpoint: Endpoint) -> Answer:
        return await stage.call(endpoint, room=banning.id, named=made["ban"]["banId"])

    async with stage.api.source(playing), stage.disk_that_takes_nothing():
        yield {
            "POST /api/broadcaster/rooms/{room}/suspend": suspend,
            "POST /api/broadcaster/rooms/{room}/resume": resume,
            "DELETE /api/broadcaster/rooms/{room}/bans/{ban}": lift,
        }


CONDITIONS: dict[ProblemCode, Callable[[Stage], AbstractAsyncContextManager[Cases]]] = {
    ProblemCode.BUSY: too_much_to_do,
    ProblemCode.DATABASE_AWAY: database_away,
    ProblemCode.NOT_READY: database_away,
    ProblemCode.NOT_KEPT: disk_that_takes_nothing,
}
