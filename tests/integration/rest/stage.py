"""A server on a database, with what it takes to have each of its routes say yes, and each refusal.

A `Scene` is made once; a `Stage` is what a test does with it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import resource
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
import asyncpg

from roomserver.auth.tokens import Keys, Tokens
from roomserver.edge.endpoints import Endpoint
from roomserver.edge.openapi import problems_of
from roomserver.edge.routes import ENDPOINTS
from support.api_client import Answer, Api, RoomKeys
from support.postgres import Cluster
from support.rest import ADMIN, OWNER, STRANGER, smallest
from support.server import PASSWORD, ServerProcess

SECRET = "one key that the tests know, too"
TIMEOUT_S = 30.0
LOOKUPS = 64 + 8  # more than may wait
ROUTES = {f"{endpoint.method} {endpoint.path}": endpoint for endpoint in ENDPOINTS}

_addresses = itertools.count()


def name_of(endpoint: Endpoint) -> str:
    """`GET /path`."""
    return f"{endpoint.method} {endpoint.path}"


def new_address() -> str:
    """From which nobody came before: no limit knows it."""
    number = next(_addresses)
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class User(NamedTuple):
    """An account and its access token."""

    id: str
    email: str
    token: str
    refresh: str

    @classmethod
    async def make(cls, api: Api, admin: User, email: str) -> User:
        """A new one."""
        body = {"email": email, "password": PASSWORD}
        made = await api.call("POST", "/api/admin/users", token=admin.token, json=body)
        assert made.status == 201, made
        return await cls.log_in(api, email)

    @classmethod
    async def log_in(cls, api: Api, email: str) -> User:
        """One that there is."""
        tokens = await api.login(email)
        me = await api.call("GET", "/api/broadcaster/me", token=tokens["accessToken"])
        return cls(me.body["userId"], email, tokens["accessToken"], tokens["refreshToken"])


@dataclass(frozen=True)
class Scene:
    """What is there from the beginning."""

    server: ServerProcess
    cluster: Cluster
    without_registration: str  # the address of another server
    owner: User
    stranger: User
    admin: User
    open: RoomKeys  # the owner's, as all are
    closed: RoomKeys
    elsewhere: str  # open at another server

    @classmethod
    async def make(
        cls, server: ServerProcess, cluster: Cluster, without_registration: str
    ) -> Scene:
        """For a server on this database."""
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            await asyncio.to_thread(server.add_user, ADMIN, admin=True)
            admin = await User.log_in(api, ADMIN)
            owner, stranger = [await User.make(api, admin, email) for email in (OWNER, STRANGER)]
            opened, closed = [await api.create_room(owner.token) for _ in range(2)]
            path = f"/api/broadcaster/rooms/{closed.id}"
            assert (await api.call("DELETE", path, token=owner.token)).status == 204
        tables = await asyncpg.connect(**cluster.connection)
        elsewhere = await tables.fetchval(
            """
            WITH other AS (
                INSERT INTO relay.servers (id, url, lease_s)
                VALUES (gen_random_uuid(), 'http://other.example', 3600) RETURNING id
            )
            INSERT INTO relay.audio_rooms (code, created_by, server_id)
            SELECT 'ELSEWH', $1, id FROM other RETURNING id::text
            """,
            owner.id,
        )
        await tables.close()
        return cls(
            server, cluster, without_registration, owner, stranger, admin, opened, closed, elsewhere
        )


@dataclass
class Stage:
    """What a test does with a scene."""

    scene: Scene
    api: Api

    async def call(
        self,
        endpoint: Endpoint,
        *,
        token: str | None = "",
        room: str | None = None,
        named: str | None = None,
        address: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """One call of a route, from a new address, well-formed unless told otherwise.

        token: whose; unless told that of the owner, or of the administrator, where one is needed.
        room, named: what the path names: the open room, and a UUID that nothing has.
        """
        if token == "":
            token = None
            if endpoint.wants_account and not endpoint.account_optional:
                token = (self.scene.admin if endpoint.admin else self.scene.owner).token
        path = endpoint.path.replace("{room}", room or self.scene.open.id)
        path = re.sub(r"{\w+}", named or str(uuid.uuid4()), path)
        if endpoint.body is not None and not options.keys() & {"json", "data"}:
            options["json"] = smallest(endpoint.body)
        answer = await self.api.call(
            endpoint.method,
            path,
            token=token,
            headers={"X-Forwarded-For": address or new_address(), **(headers or {})},
            **options,
        )
        if answer.status >= 400:
            declared = {code.value for code in problems_of(endpoint)}
            assert answer.body["code"] in declared, (name_of(endpoint), answer)
        return answer

    async def room(self, **wishes: Any) -> RoomKeys:
        """A new room of the owner."""
        return await self.api.create_room(self.scene.owner.token, **wishes)

    async def owner_does(self, method: str, path: str, **options: Any) -> Any:
        """What the owner is answered, who has to be let."""
        answer = await self.api.call(method, path, token=self.scene.owner.token, **options)
        assert answer.status < 400, answer
        return answer.body

    async def account(self) -> User:
        """A new account."""
        return await User.make(self.api, self.scene.admin, f"{uuid.uuid4().hex}@example.org")

    async def invite(self, room: RoomKeys, **wishes: Any) -> dict[str, Any]:
        """A new invite into a room of the owner."""
        path = f"/api/broadcaster/rooms/{room.id}/invites"
        made: dict[str, Any] = await self.owner_does("POST", path, json=wishes)
        return made

    def expired_token(self) -> str:
        """An access token of the owner that was good an hour ago."""
        tokens = Tokens(
            Keys(SECRET.encode()), access_s=900, room_s=900, now=lambda: time.time() - 3600
        )
        return tokens.issue_access(self.scene.owner.id)

    # Conditions

    @asynccontextmanager
    async def database_away(self) -> AsyncIterator[None]:
        """The database is stopped, and at the end there again, which the server has noticed."""
        database = self.scene.cluster.server
        await asyncio.to_thread(database.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(database.start)
            async with asyncio.timeout(TIMEOUT_S):
                while (await self.api.call("GET", "/readyz")).status != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    @asynccontextmanager
    async def disk_that_takes_nothing(self) -> AsyncIterator[None]:
        """No file of the server may grow."""
        pid = self.scene.server.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
            async with asyncio.timeout(TIMEOUT_S):
                path = "/auth/room/create"
                while True:
                    answer = await self.api.call(
                        "POST", path, token=self.scene.owner.token, json={}
                    )
                    if answer.status == 201:
                        break
                    await asyncio.sleep(0.1)

    @asynccontextmanager
    async def locked(self, table: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Nobody gets at the table until the block ends, or what it is given is called."""
        connection = await asyncpg.connect(**self.scene.cluster.connection)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"LOCK TABLE relay.{table} IN ACCESS EXCLUSIVE MODE")
        try:
            yield transaction.rollback
        finally:
            await connection.close()

    @asynccontextmanager
    async def lookups_busy(self) -> AsyncIterator[None]:
        """As many rooms are looked for as may be, each for a second, four at a time."""
        lookup = ROUTES["GET /api/broadcaster/rooms/{room}/bans"]
        refused = asyncio.Event()

        async def look() -> None:
            answer = await self.call(lookup, room=str(uuid.uuid4()))
            if answer.body["code"] == "busy":
                refused.set()

        async with self.locked("audio_rooms"), asyncio.timeout(TIMEOUT_S):
            looking = [asyncio.create_task(look()) for _ in range(LOOKUPS)]
            try:
                await refused.wait()
                yield
            finally:
                for task in looking:
                    task.cancel()
                await asyncio.gather(*looking, return_exceptions=True)

    async def waits_for(self, table: str) -> None:
        """Until the server waits for a table that is `locked`."""
        connection = await asyncpg.connect(**self.scene.cluster.connection)
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::regclass)"
        async with asyncio.timeout(TIMEOUT_S):
            while not await connection.fetchval(waits, f"relay.{table}"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await connection.close()
