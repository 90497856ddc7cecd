"""Accounts while the database is away: 503 for what needs it, and nobody comes in who is out."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from roomserver.edge.sessions import COOKIE
from roomserver.store.embedded import EmbeddedPostgres
from support.api_client import Answer, Api
from support.postgres import open_directory, url
from support.server import PASSWORD, ServerProcess, command, environment

from .conftest import ADMIN

BOB = "bob@example.org"


@pytest.fixture(scope="module")
def server(
    database: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    address = url(database.connection)
    data_dir = tmp_path_factory.mktemp("server")
    with ServerProcess.start(data_dir, env={"ROOMSERVER_DATABASE_URL": address}) as server:
        hint = server.wait_for_event("no_accounts")["hint"]
        assert "ROOMSERVER_DATABASE_URL" in hint
        assert address not in server.output()
        assert database.connection["password"] not in server.output()
        server.add_user(ADMIN, admin=True)
        server.add_user(BOB)
        yield server


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


@contextmanager
def away(database: EmbeddedPostgres) -> Iterator[None]:
    database.stop()
    try:
        yield
    finally:
        database.start()


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.body["code"]


async def test_what_needs_the_database_is_answered_503(
    api: Api, database: EmbeddedPostgres
) -> None:
    admin, bob = await api.login(ADMIN), await api.login(BOB)
    login = {"email": BOB, "password": PASSWORD}
    passwords = {"oldPassword": PASSWORD, "newPassword": "another one"}
    refresh = {"refreshToken": bob["refreshToken"]}
    with away(database):
        for token in (admin["accessToken"], bob["accessToken"]):  # who is one, nobody can tell
            for method, path in (
                ("GET", "/api/admin/users"),
                ("GET", "/api/admin/invites"),
                ("POST", "/api/admin/users"),
            ):
                answer = await api.call(method, path, token=token, json={})
                assert problem(answer) == (503, "database_away")
                assert int(answer.headers["Retry-After"]) >= 1
        for path, body in (
            ("/auth/broadcaster", login),
            ("/auth/refresh", refresh),
            ("/auth/logout", refresh),
            ("/auth/password", passwords),
        ):
            answer = await api.call("POST", path, token=bob["accessToken"], json=body)
            assert problem(answer) == (503, "database_away")
        # A session that could not be ended is not forgotten, or nobody could end it later.
        held = {"Origin": api.url, "Cookie": f"{COOKIE}={bob['refreshToken']}"}
        answer = await api.call("POST", "/auth/logout", headers=held, json={})
        assert problem(answer) == (503, "database_away")
        assert "Set-Cookie" not in answer.headers
        answer = await api.call("GET", "/api/admin/users", token="nonsense")
        assert problem(answer) == (401, "token_invalid")
        assert await api.create_room(bob["accessToken"])
    assert (await api.call("POST", "/auth/refresh", json=refresh)).status == 200


async def test_who_is_out_stays_out_while_the_database_is_away(
    api: Api, database: EmbeddedPostgres
) -> None:
    admin = (await api.login(ADMIN))["accessToken"]
    made = []
    for email in ("out@example.org", "changed@example.org"):
        body = {"email": email, "password": PASSWORD}
        answer = await api.call("POST", "/api/admin/users", token=admin, json=body)
        made.append((answer.body["userId"], (await api.login(email))["accessToken"]))
    (out, disabled), (_, changed) = made
    for token in (disabled, changed):
        assert await api.create_room(token)
    await api.call("POST", f"/api/admin/users/{out}/disable", token=admin)
    body = {"oldPassword": PASSWORD, "newPassword": "another one"}
    answer = await api.call("POST", "/auth/password", token=changed, json=body)
    with away(database):
        for token in (disabled, changed):
            refused = await api.call("POST", "/auth/room/create", token=token, json={})
            assert problem(refused) == (401, "token_invalid")
        assert await api.create_room(answer.body["accessToken"])
        # An administrator is nobody special then.
        room = await api.create_room(admin)
        path = f"/api/admin/rooms/{room.id}"
        answer = await api.call("DELETE", path, token=admin)
        assert problem(answer) == (503, "database_away")


@pytest.mark.parametrize("database_url", ["none", "embedded"])
async def test_the_first_start_says_how_to_add_an_account(database_url: str) -> None:
    with open_directory() as directory:
        options = ("--database-url", database_url)
        with ServerProcess.start(directory / "some data", *options, from_nothing=True) as server:
            hint = server.wait_for_event("no_accounts")["hint"]
            program, *arguments = shlex.split(hint.replace("EMAIL", BOB))
            assert program == "roomserver"
            clean = {k: v for k, v in environment().items() if not k.startswith("ROOMSERVER_")}
            await asyncio.to_thread(
                subprocess.run,
                command(*arguments, "--password-stdin"),
                input=PASSWORD + "\n",
                text=True,
                env=clean,
                timeout=60,
                check=True,
            )
            async with aiohttp.ClientSession() as session:
                assert await Api(server.url, session).login(BOB)
