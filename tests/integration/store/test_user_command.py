"""`roomserver user`, on the file of accounts and on a database, beside a server that runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import pytest
from typer.testing import CliRunner, Result

from roomserver.cli import app
from roomserver.store.database import Connection
from support.api_client import Api
from support.postgres import Cluster, open_directory
from support.server import ServerProcess

EMAIL = "ann@example.org"


@dataclass(frozen=True)
class Site:
    """Where accounts are, and how commands are told of it."""

    data_dir: Path
    variables: dict[str, str]

    async def run(self, *arguments: str, password: str = "") -> Result:
        return await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["user", *arguments, "--data-dir", str(self.data_dir)],
            input=password + "\n",
            env=self.variables | {"ROOMSERVER_BCRYPT_ROUNDS": "4"},
        )

    async def done(self, *arguments: str, password: str = "") -> list[str]:
        """What it prints."""
        result = await self.run(*arguments, password=password)
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    async def add(self, email: str, password: str = "first password") -> None:
        await self.done("add", email, "--password-stdin", password=password)


@pytest.fixture(params=["none", "embedded", "url"])
async def site(
    request: pytest.FixtureRequest, cluster: Cluster, tables: Connection, tmp_path: Path
) -> AsyncIterator[Site]:
    """Each way of keeping accounts."""
    if request.param == "url":
        yield Site(tmp_path, cluster.variables())
        return
    with open_directory() as directory:
        yield Site(directory, {"ROOMSERVER_DATABASE_URL": request.param})


@pytest.mark.parametrize("cluster", ["newest"], indirect=True)
async def test_accounts_are_managed_while_the_server_runs(site: Site) -> None:
    server = await asyncio.to_thread(ServerProcess.start, site.data_dir, env=site.variables)
    with server:
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)

            async def login(password: str, email: str = EMAIL) -> int:
                body = {"email": email, "password": password}
                return (await api.call("POST", "/auth/broadcaster", json=body)).status

            await site.add(EMAIL)
            await site.add("bob@example.org")
            tokens = await api.login(EMAIL, "first password")

            await site.done(
                "password", "ANN@example.org", "--password-stdin", password="second password"
            )
            refresh = {"refreshToken": tokens["refreshToken"]}
            assert (await api.call("POST", "/auth/refresh", json=refresh)).status == 401
            assert await login("first password") == 401
            tokens = await api.login(EMAIL, "second password")

            await site.done("disable", EMAIL)
            refresh = {"refreshToken": tokens["refreshToken"]}
            assert (await api.call("POST", "/auth/refresh", json=refresh)).status == 401
            mine = ("GET", "/api/broadcaster/me")
            assert (await api.call(*mine, token=tokens["accessToken"])).status == 401
            assert await login("second password") == 401
            await site.done("enable", EMAIL)
            assert await login("second password") == 200

            await site.done("role", EMAIL, "admin")
            fields = sorted(line.split("\t")[:3] for line in await site.done("list"))
            assert fields == [[EMAIL, "admin", "active"], ["bob@example.org", "user", "active"]]

            await site.done("anonymise", EMAIL, "--yes")
            assert await login("second password") == 401
            listed = {line.split("\t")[0]: line.split("\t") for line in await site.done("list")}
            assert EMAIL not in listed
            (gone,) = set(listed) - {"bob@example.org"}
            assert listed[gone][1:3] == ["user", "disabled"]
            assert await login("first password", "bob@example.org") == 200


async def test_what_can_not_be_done_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path, {"ROOMSERVER_DATABASE_URL": "none"})
    await site.add(EMAIL)
    for arguments, code, complaint in (
        (("disable", "nobody@example.org"), 1, "there is no account for nobody@example.org"),
        (("add", "ANN@example.org", "--password-stdin"), 1, "there is an account for"),
        (("add", "no address", "--password-stdin"), 2, "not an e-mail address"),
        (("anonymise", EMAIL), 2, "say --yes"),
        (("role", EMAIL, "king"), 2, "king"),
        (("password", EMAIL), 2, "--password-stdin"),
    ):
        refused = await site.run(*arguments, password="long enough")
        assert refused.exit_code == code, arguments
        assert complaint in " ".join(refused.output.split())
    for wrong, complaint in (("x" * 73, "at most 72 bytes"), ("x" * 7, "at least 8 characters")):
        refused = await site.run("password", EMAIL, "--password-stdin", password=wrong)
        assert refused.exit_code == 2
        assert complaint in refused.output
    away = Site(tmp_path, {"ROOMSERVER_DATABASE_URL": f"postgresql://u:hidden@/d?host={tmp_path}"})
    refused = await away.run("list")
    assert refused.exit_code != 0
    assert "hidden" not in refused.output


async def test_what_it_did_is_in_the_audit_log(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    site = Site(tmp_path, cluster.variables())
    await site.add(EMAIL)
    account = await tables.fetchval("SELECT id::text FROM relay.users")
    await site.done("password", EMAIL, "--password-stdin", password="another password")
    await site.done("role", EMAIL, "admin")
    await site.done("disable", EMAIL)
    await site.done("enable", EMAIL)
    await site.done("list")
    assert (await site.run("disable", "nobody@example.org")).exit_code == 1
    await site.done("anonymise", EMAIL, "--yes")
    lines = await tables.fetch("SELECT * FROM relay.audit_log ORDER BY created_at")
    by = {"account": account, "by": "command line"}
    assert [(line["event_type"], json.loads(line["details"])) for line in lines] == [
        ("account_created", by | {"role": "user"}),
        ("password_changed", by),
        ("account_role_changed", by | {"role": "admin"}),
        ("account_disabled", by),
        ("account_enabled", by),
        ("account_anonymised", by),
    ]
    assert {line["user_id"] for line in lines} == {None}


async def test_an_anonymised_user_is_in_no_table(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    site = Site(tmp_path, cluster.variables())
    await site.add(EMAIL)
    await site.add("bob@example.org")
    room: UUID = await tables.fetchval(
        "INSERT INTO relay.audio_rooms (code) VALUES ('ROOM') RETURNING id"
    )
    rows = await tables.fetch("SELECT id, email FROM relay.users")
    users = {row["email"]: row["id"] for row in rows}
    for email, mark in ((EMAIL, "Annie"), ("bob@example.org", "Bobby")):
        user = users[email]
        await tables.execute(
            "INSERT INTO relay.room_participants (room_id, user_id, participant_id, role, nickname,"
            " client_id, ip_address, user_agent, left_at)"
            " VALUES ($1, $2, $3, 'listener', $4, $4, '192.0.2.7', $4, now())",
            *(room, user, uuid4(), mark),
        )
        for who, details in (
            (user, f'{{"nickname": "{mark}"}}'),
            (None, f'{{"email": "{email}"}}'),
        ):
            await tables.execute(
                "INSERT INTO relay.audit_log (event_type, user_id, ip_address, user_agent, details)"
                " VALUES ('login_failure', $1, '192.0.2.7', $2, $3)",
                *(who, mark, details),
            )
        await tables.execute(
            "INSERT INTO relay.mix_presets (user_id, name) VALUES ($1, $2)", user, mark
        )
        await tables.execute(
            "INSERT INTO relay.room_bans (room_id, user_id, address, reason)"
            " VALUES ($1, $2, '192.0.2.7', $3)",
            *(room, user, mark),
        )
        await tables.execute(
            "INSERT INTO relay.dead_letters (stream_id, seq, kind, payload, error)"
            " VALUES ($1, 1, 'Joined', $2, 'no')",
            *(uuid4(), f'{{"stay": {{"user": "{user}", "nickname": "{mark}"}}}}'),
        )
        await tables.execute(
            "INSERT INTO relay.dead_letters (stream_id, seq, kind, payload, error)"
            " VALUES ($1, 1, 'Unreadable', $2, 'no')",
            *(uuid4(), json.dumps({"data": f'{{"email":"{email.upper()}",{mark}'})),
        )

    for email in (EMAIL.upper(), "carl.Bobby@example.org"):  # invites that nobody has used
        await tables.execute(
            "INSERT INTO relay.account_invites (hash, email, created_by, expires_at)"
            " VALUES (uuid_send(gen_random_uuid()), $1, $2, now() + interval '1 day')",
            *(email, users["bob@example.org"]),
        )

    await site.done("anonymise", EMAIL, "--yes")

    names = await tables.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'relay'")
    texts = {
        row["tablename"]: await tables.fetchval(
            f"SELECT string_agg(t::text, ' ') FROM relay.{row['tablename']} t"
        )
        or ""
        for row in names
    }
    everything = " ".join(texts.values())
    assert "Annie" not in everything
    assert EMAIL not in everything.lower()
    for table in (
        *("room_participants", "audit_log", "mix_presets", "room_bans", "dead_letters"),
        "account_invites",
    ):
        assert "Bobby" in texts[table]  # nothing of anybody else's is gone
    addresses = "SELECT count(*) FROM relay.{} WHERE {} IS NOT NULL"
    assert await tables.fetchval(addresses.format("room_participants", "ip_address")) == 1
    assert await tables.fetchval(addresses.format("audit_log", "ip_address")) == 2
    assert await tables.fetchval(addresses.format("room_bans", "address")) == 1
    # That somebody was there is still counted.
    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == 2
    assert await tables.fetchval("SELECT count(user_id) FROM relay.room_participants") == 2


async def test_dead_letters_of_those_whose_address_holds_the_forgotten_one_stay(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    site = Site(tmp_path, cluster.variables())
    await site.add(EMAIL)

    async def letters() -> set[str]:
        rows = await tables.fetch("SELECT payload::text FROM relay.dead_letters")
        return {row["payload"] for row in rows}

    async def write(*addresses: str) -> None:
        for address in addresses:
            details = {"email": address}
            whole = {"type": "audited", "record": {"details": details}}
            for payload in (whole, {"data": json.dumps(whole)[:-1] + "\ufffd"}):
                await tables.execute(
                    "INSERT INTO relay.dead_letters (stream_id, seq, kind, payload, error)"
                    " VALUES ($1, 1, 'x', $2, 'no')",
                    *(uuid4(), json.dumps(payload)),
                )

    await write("jo" + EMAIL, EMAIL + ".uk", "ann.example.org@example.org")
    others = await letters()
    await write(EMAIL, EMAIL.upper())
    await site.done("anonymise", EMAIL, "--yes")
    assert await letters() == others
    assert len(others) == 6
