"""Each route, asked well, answers as it declares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from support.api_client import ROOM_PASSWORD
from support.server import PASSWORD

from .stage import ROUTES, Stage

# What a call needs that is more than its smallest body, and what has to be there meanwhile.
Wishes: TypeAlias = dict[str, Any]
Case: TypeAlias = Callable[[Stage], AbstractAsyncContextManager[Wishes]]

CASES: dict[str, Case] = {}

pytestmark = pytest.mark.timeout(300)  # a database and two servers are made first


def case(*routes: str) -> Callable[[Callable[[Stage], AsyncIterator[Wishes]]], None]:
    def keep(make: Callable[[Stage], AsyncIterator[Wishes]]) -> None:
        for route in routes:
            assert route in ROUTES, route
            CASES[route] = asynccontextmanager(make)

    return keep


@pytest.mark.parametrize("route", ROUTES)
async def test_it_answers_as_it_declares(stage: Stage, route: str) -> None:
    endpoint = ROUTES[route]
    async with CASES.get(route, plain)(stage) as wishes:
        answer = await stage.call(endpoint, **wishes)
    assert answer.status == endpoint.status, answer
    if endpoint.answer is not None:
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["Cache-Control"] == "no-store"


@asynccontextmanager
async def plain(stage: Stage) -> AsyncIterator[Wishes]:
    yield {}


ROOM = "/api/broadcaster/rooms/{room}"


@case("POST /auth/broadcaster")
async def _login(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"json": {"email": stage.scene.owner.email, "password": PASSWORD}}


@case("POST /auth/register")
async def _register(stage: Stage) -> AsyncIterator[Wishes]:
    admin = stage.scene.admin.token
    made = await stage.api.call("POST", "/api/admin/invites", token=admin, json={})
    body = {"email": "invited@example.org", "password": PASSWORD, "invite": made.body["invite"]}
    yield {"json": body}


@case("POST /auth/refresh", "POST /auth/logout")
async def _session(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"json": {"refreshToken": (await stage.account()).refresh}}


@case("POST /auth/password")
async def _password(stage: Stage) -> AsyncIterator[Wishes]:
    body = {"oldPassword": PASSWORD, "newPassword": "another password"}
    yield {"token": (await stage.account()).token, "json": body}


@case("POST /auth/room/join")
async def _join(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"json": {"roomCode": stage.scene.open.code, "password": ROOM_PASSWORD}}


@case(f"DELETE {ROOM}", "DELETE /api/admin/rooms/{room}", f"POST {ROOM}/password")
async def _another_room(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"room": (await stage.room()).id}


@case(f"POST {ROOM}/suspend")
async def _suspend(stage: Stage) -> AsyncIterator[Wishes]:
    room = await stage.room()
    async with stage.api.source(room):
        yield {"room": room.id}


@case(f"POST {ROOM}/kick", f"POST {ROOM}/ban")
async def _somebody(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"json": {"participantId": str(uuid4())}}


@case(f"DELETE {ROOM}/bans/{{ban}}")
async def _ban(stage: Stage) -> AsyncIterator[Wishes]:
    path = f"/api/broadcaster/rooms/{stage.scene.open.id}/ban"
    made = await stage.owner_does("POST", path, json={"participantId": str(uuid4())})
    yield {"named": made["ban"]["banId"]}


@case(f"GET {ROOM}/mixes/{{participant}}", f"PUT {ROOM}/mixes/{{participant}}")
async def _mix(stage: Stage) -> AsyncIterator[Wishes]:
    async with stage.api.listener(stage.scene.open, mode="mix"):
        path = f"/api/broadcaster/rooms/{stage.scene.open.id}/listeners"
        newest, *_ = (await stage.owner_does("GET", path))["listeners"]
        yield {"named": newest["participantId"]}


@case(f"DELETE {ROOM}/invites/{{invite}}")
async def _invite(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"named": (await stage.invite(stage.scene.open))["inviteId"]}


@case("POST /api/admin/users")
async def _new_user(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"json": {"email": "made@example.org", "password": PASSWORD}}


@case(
    "PATCH /api/admin/users/{user}",
    "POST /api/admin/users/{user}/disable",
    "POST /api/admin/users/{user}/enable",
)
async def _user(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"named": (await stage.account()).id}


@case("DELETE /api/admin/invites/{invite}")
async def _account_invite(stage: Stage) -> AsyncIterator[Wishes]:
    admin = stage.scene.admin.token
    made = await stage.api.call("POST", "/api/admin/invites", token=admin, json={})
    yield {"named": made.body["inviteId"]}


@case("GET /metrics")
async def _metrics(stage: Stage) -> AsyncIterator[Wishes]:
    yield {"token": stage.scene.admin.token}
