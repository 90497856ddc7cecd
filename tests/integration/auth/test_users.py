"""Accounts as administrators manage them, invites, and registration."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import aiohttp
import pytest

from support.api_client import Answer, Api
from support.server import PASSWORD, ServerProcess


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.body["code"]


async def add(api: Api, admin: str, **wishes: str) -> dict[str, str]:
    body = {"email": f"{uuid.uuid4()}@example.org", "password": PASSWORD} | wishes
    answer = await api.call("POST", "/api/admin/users", token=admin, json=body)
    assert answer.status == 201, answer
    made: dict[str, str] = answer.body
    return made


async def test_accounts_are_made_and_listed_page_by_page(api: Api, admin: str) -> None:
    made = [await add(api, admin, role=role) for role in ("user", "admin", "user")]
    assert [user["role"] for user in made] == ["user", "admin", "user"]
    listed, cursor = [], None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        answer = await api.call("GET", "/api/admin/users", token=admin, params=query)
        assert answer.status == 200
        assert 1 <= len(answer.body["users"]) <= 2
        listed += answer.body["users"]
        cursor = answer.body["next"]
        if cursor is None:
            break
    assert listed[:3] == made[::-1]
    assert listed[-1]["email"] == "admin@example.org"
    assert set(listed[0]) == {"userId", "email", "role", "createdAt", "disabledAt"}
    body = {"email": made[0]["email"].upper(), "password": PASSWORD}
    answer = await api.call("POST", "/api/admin/users", token=admin, json=body)
    assert problem(answer) == (409, "email_taken")
    for email in ("no address", "a@b\u0000", "a\u202e@b"):
        body = {"email": email, "password": PASSWORD}
        answer = await api.call("POST", "/api/admin/users", token=admin, json=body)
        assert problem(answer) == (400, "invalid_request")


async def test_who_is_no_administrator_has_no_say(api: Api, admin: str) -> None:
    made = await add(api, admin)
    token = (await api.login(made["email"]))["accessToken"]
    for method, path in (
        ("GET", "/api/admin/users"),
        ("POST", "/api/admin/users"),
        ("PATCH", f"/api/admin/users/{made['userId']}"),
        ("POST", f"/api/admin/users/{made['userId']}/disable"),
        ("POST", f"/api/admin/users/{made['userId']}/enable"),
        ("GET", "/api/admin/invites"),
        ("POST", "/api/admin/invites"),
        ("DELETE", f"/api/admin/invites/{uuid.uuid4()}"),
    ):
        assert problem(await api.call(method, path, token=token)) == (403, "not_allowed")
        assert problem(await api.call(method, path)) == (401, "unauthorized")


async def test_a_role_is_changed_by_another_administrator(api: Api, admin: str) -> None:
    made = await add(api, admin)
    token = (await api.login(made["email"]))["accessToken"]
    path = f"/api/admin/users/{made['userId']}"
    answer = await api.call("PATCH", path, token=admin, json={"role": "admin"})
    assert (answer.status, answer.body["role"]) == (200, "admin")
    answer = await api.call("PATCH", path, token=token, json={"role": "user"})
    assert problem(answer) == (403, "not_allowed")  # its own
    answer = await api.call("PATCH", path, token=admin, json={"role": "god"})
    assert problem(answer) == (400, "invalid_request")
    await api.call("PATCH", path, token=admin, json={"role": "user"})
    answer = await api.call("GET", "/api/admin/users", token=token)
    assert problem(answer) == (403, "not_allowed")


@pytest.mark.parametrize("name", [str(uuid.UUID(int=1)), "nobody", "%00"])
async def test_nobody_is_changed_who_does_not_exist(api: Api, admin: str, name: str) -> None:
    path = f"/api/admin/users/{name}"
    for answer in (
        await api.call("POST", path + "/disable", token=admin),
        await api.call("POST", path + "/enable", token=admin),
        await api.call("PATCH", path, token=admin, json={"role": "user"}),
        await api.call("DELETE", f"/api/admin/invites/{name}", token=admin),
    ):
        assert problem(answer) == (404, "not_found")


async def test_a_disabled_account_is_out_at_once_and_its_rooms_are_closed(
    api: Api, admin: str, server: ServerProcess
) -> None:
    made = await add(api, admin)
    tokens = await api.login(made["email"])
    room = await api.create_room(tokens["accessToken"])
    other = await api.create_room(admin)
    async with api.listener(room) as listener, api.source(room) as source:
        path = f"/api/admin/users/{made['userId']}"
        answer = await api.call("POST", path + "/disable", token=admin)
        assert (answer.status, answer.body["disabledAt"] > 0) == (200, True)
        assert (await listener.until("roomClosed"))["reason"] == "owner_disabled"
        assert (await listener.closed()).code == 4410
        assert (await source.closed()).code == 4410
    answer = await api.call("POST", "/auth/room/create", token=tokens["accessToken"], json={})
    assert problem(answer) == (401, "token_invalid")
    body = {"refreshToken": tokens["refreshToken"]}
    assert (await api.call("POST", "/auth/refresh", json=body)).status == 401
    login = {"email": made["email"], "password": PASSWORD}
    assert (await api.call("POST", "/auth/broadcaster", json=login)).status == 401
    assert await api.join(other.code)

    answer = await api.call("POST", path + "/enable", token=admin)
    assert (answer.status, answer.body["disabledAt"]) == (200, None)
    assert (await api.call("POST", "/auth/refresh", json=body)).status == 401
    assert await api.login(made["email"])
    for name in ("account_disabled", "account_enabled"):
        event = await asyncio.to_thread(
            server.wait_for_event, name, where=lambda e: e["account"] == made["userId"]
        )
        assert event["user"]


async def test_rooms_of_an_account_that_a_command_disabled_are_closed(
    api: Api, admin: str, server: ServerProcess, database_url: str
) -> None:
    made = await add(api, admin)
    room = await api.create_room((await api.login(made["email"]))["accessToken"])
    async with api.listener(room) as listener:
        told = asyncio.create_task(listener.until("roomClosed"))  # answers pings meanwhile
        await asyncio.to_thread(server.user, "disable", made["email"])
        assert (await told)["reason"] == "owner_disabled"  # the server looks every 5 s


async def test_an_account_can_not_disable_itself(api: Api, admin: str) -> None:
    made = await add(api, admin, role="admin")
    token = (await api.login(made["email"]))["accessToken"]
    path = f"/api/admin/users/{made['userId']}/disable"
    assert problem(await api.call("POST", path, token=token)) == (403, "not_allowed")


async def test_an_invite_makes_one_account(api: Api, admin: str, server: ServerProcess) -> None:
    answer = await api.call("POST", "/api/admin/invites", token=admin, json={})
    assert answer.status == 201
    invite = answer.body

    async def register(email: str, invite: str | None) -> Answer:
        body = {"email": email, "password": PASSWORD} | ({"invite": invite} if invite else {})
        return await api.call("POST", "/auth/register", json=body)

    one, two = (f"{uuid.uuid4()}@example.org" for _ in range(2))
    for wrong in (None, "nonsense"):
        assert problem(await register(one, wrong)) == (403, "account_invite_refused")
    assert problem(await register("admin@example.org", invite["invite"])) == (409, "email_taken")
    assert problem(await register("no address", invite["invite"])) == (400, "invalid_request")
    answer = await register(one, invite["invite"])
    assert answer.status == 201
    assert await api.create_room(answer.body["accessToken"])
    assert await api.login(one)
    assert problem(await register(two, invite["invite"])) == (403, "account_invite_refused")

    bound = {"email": two, "role": "admin", "expiresInS": 3600}
    answer = await api.call("POST", "/api/admin/invites", token=admin, json=bound)
    listed = await api.call("GET", "/api/admin/invites", token=admin, params={"limit": "2"})
    newest, used = listed.body["invites"]
    assert (newest["email"], newest["role"], newest["usedAt"]) == (two, "admin", None)
    assert used["inviteId"] == invite["inviteId"]
    assert used["usedAt"] > used["createdAt"]
    assert used["usedBy"]
    path = f"/api/admin/invites/{newest['inviteId']}"
    assert (await api.call("DELETE", path, token=admin)).status == 204
    assert problem(await register(two, answer.body["invite"])) == (403, "account_invite_refused")
    path = f"/api/admin/invites/{used['inviteId']}"
    assert problem(await api.call("DELETE", path, token=admin)) == (404, "not_found")
    made = await asyncio.to_thread(
        server.wait_for_event, "account_created", where=lambda e: e["user"] == used["usedBy"]
    )
    assert made["invited"] is True


async def test_registration_is_closed_unless_told_and_may_be_open(tmp_path: Path) -> None:
    body = {"email": "ann@example.org", "password": PASSWORD}
    async with aiohttp.ClientSession() as session:
        with ServerProcess.start(tmp_path) as server:
            answer = await Api(server.url, session).call("POST", "/auth/register", json=body)
            assert problem(answer) == (403, "registration_closed")
        options = ("--registration", "open", "--register-limit", "2 per hour")
        with ServerProcess.start(tmp_path, *options) as server:
            api = Api(server.url, session)
            answer = await api.call("POST", "/auth/register", json=body)
            assert answer.status == 201
            assert set(answer.body) == {"accessToken", "refreshToken"}
            assert await api.login("ann@example.org")
            answer = await api.call("POST", "/auth/register", json=body)
            assert problem(answer) == (409, "email_taken")
            answer = await api.call("POST", "/auth/register", json=body)
            assert problem(answer) == (429, "rate_limited")
            assert 3500 < int(answer.headers["Retry-After"]) <= 3600
            server.wait_for_event("rate_limit_exceeded")
