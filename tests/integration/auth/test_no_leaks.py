"""Secrets stay where they belong: not in a log line, an answer, an address, or a table.

Every route is driven, by nobody and by an administrator, with secrets that can be found again; so
are the ways in which a token that was given out comes back. Then everything that the server wrote
is searched.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import msgspec
import pytest
from msgspec import inspect

from roomserver.edge.endpoints import Endpoint
from roomserver.edge.openapi import describe
from roomserver.edge.routes import ENDPOINTS
from roomserver.store.embedded import EmbeddedPostgres
from support.api_client import ROOM_PASSWORD, Api
from support.postgres import open_directory
from support.server import PASSWORD, ServerProcess

from .conftest import ADMIN

SECRET_FIELDS = ("password", "token", "invite", "secret")
OPTIONS = (
    *("--log-level", "debug"),
    *("--registration", "invite"),
    *("--login-limit", "1000 per minute"),
    *("--login-account-limit", "1000 per minute"),
    *("--register-limit", "1000 per minute"),
    *("--join-limit", "1000 per minute"),
)


class Marks:
    """Makes secrets that are like no other text."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self._number = itertools.count()

    def new(self) -> str:
        mark = f"MARK-{next(self._number)}-{uuid4().hex}"
        self.made.append(mark)
        return mark

    def keep(self, *secrets: str) -> None:
        """Secrets that the server made: what is hidden of a token is its signature."""
        self.made += [secret.rsplit(".", 1)[-1] for secret in secrets]

    def found_in(self, text: str) -> list[str]:
        return [mark for mark in self.made if mark in text]


def is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_FIELDS)


def body_of(kind: type[msgspec.Struct], marks: Marks, *, well_formed: bool) -> dict[str, Any]:
    """A body whose secret fields are marked; of the right type, or as a list, which is none."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    body: dict[str, Any] = {}
    for field in info.fields:
        name = field.encode_name
        if is_secret(name) and not name.startswith("drop"):
            body[name] = marks.new() if well_formed else [marks.new()]
        elif field.required:
            body[name] = "someone@example.org" if name == "email" else "NNNNNN"
    return body


def url_of(endpoint: Endpoint) -> str:
    path = endpoint.path
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + str(uuid4()) + rest.partition("}")[2]
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with open_directory() as directory:
        options = ("--database-url", "embedded", *OPTIONS)
        with ServerProcess.start(directory / "data", *options) as server:
            server.add_user(ADMIN, admin=True)
            yield server


async def drive_every_route(api: Api, admin: str, marks: Marks) -> None:
    for endpoint in ENDPOINTS:
        path = url_of(endpoint)
        for token, well_formed in itertools.product((None, marks.new(), admin), (True, False)):
            body = None
            if endpoint.body is not None:
                body = body_of(endpoint.body, marks, well_formed=well_formed)
            answer = await api.call(
                endpoint.method,
                path,
                token=token,
                json=body,
                params={"token": marks.new(), "password": marks.new()},
                headers={"Cookie": f"refresh_token={marks.new()}", "Origin": api.url},
            )
            assert answer.status < 500, (endpoint, answer)
            said = json.dumps([answer.body, answer.headers])
            assert not marks.found_in(said), (endpoint.path, answer)


async def use_what_is_given_out(api: Api, admin: str, marks: Marks) -> None:
    """Logs in, makes, joins, refreshes, changes; then presents what is over."""
    marks.keep(admin)
    answer = await api.call("POST", "/api/admin/invites", token=admin, json={})
    marks.keep(answer.body["invite"])
    password, room_password, new = marks.new(), marks.new(), marks.new()
    body = {"email": "a@example.org", "password": password, "invite": answer.body["invite"]}
    first = (await api.call("POST", "/auth/register", json=body)).body
    again = await api.call("POST", "/auth/register", json=body)
    assert again.status == 403
    refresh = {"refreshToken": first["refreshToken"]}
    second = (await api.call("POST", "/auth/refresh", json=refresh)).body
    third = (
        await api.call("POST", "/auth/refresh", json={"refreshToken": second["refreshToken"]})
    ).body
    stolen = await api.call("POST", "/auth/refresh", json=refresh)
    assert stolen.status == 401
    change = {"oldPassword": password, "newPassword": new}
    wrong = {"oldPassword": marks.new(), "newPassword": new}
    token = third["accessToken"]
    assert (await api.call("POST", "/auth/password", token=token, json=wrong)).status == 401
    fourth = (await api.call("POST", "/auth/password", token=token, json=change)).body
    for session in (first, second, third, fourth):
        marks.keep(*session.values())
    room = await api.create_room(fourth["accessToken"], password=room_password)
    heard = await api.join(room.code, room_password)
    marks.keep(room.token, heard)
    async with api.socket() as socket:
        await socket.say("registerListener", roomId=room.id, roomToken=heard)
        await socket.until("listenerRegistered")
    for message in ("registerListener", "registerSource", "subscribe", "dance"):
        async with api.socket(headers={"Authorization": f"Bearer {marks.new()}"}) as socket:
            wish = {"roomToken": marks.new(), "password": marks.new()}
            await socket.say(message, roomId=room.id, **wish)
            said = await socket.until("error")
            assert not marks.found_in(json.dumps(said))
    for answer in (again, stolen):
        assert not marks.found_in(json.dumps(answer.body))


async def tables(data_dir: Path) -> str:
    """Everything that the database holds, as text."""
    database = await asyncpg.connect(**EmbeddedPostgres(data_dir).connection)
    try:
        names = await database.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'relay'"
        )
        rows = [await database.fetch(f"SELECT t::text FROM relay.{name} t") for (name,) in names]
    finally:
        await database.close()
    return "\n".join(row[0] for table in rows for row in table)


async def test_no_secret_is_logged_answered_or_kept_in_plain(server: ServerProcess) -> None:
    marks = Marks()
    marks.keep(PASSWORD, ROOM_PASSWORD, (server.data_dir / "secret").read_text().strip())
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        api = Api(server.url, session)
        admin = (await api.login(ADMIN))["accessToken"]
        await drive_every_route(api, admin, marks)
        await use_what_is_given_out(api, admin, marks)
    # The last thing that happened is in the database: so is everything before it.
    await asyncio.to_thread(server.wait_for_event, "room_left")
    async with asyncio.timeout(30):
        while "room_left" not in (kept := await tables(server.data_dir)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "token_theft" in kept
    assert not marks.found_in(kept)
    server.stop()
    assert len(server.events) > 100
    assert not marks.found_in(server.output())


def test_no_address_has_room_for_a_secret() -> None:
    document = describe(ENDPOINTS)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                name = parameter["name"]
                assert not is_secret(name) or name == "invite", (path, name)  # which is its id
