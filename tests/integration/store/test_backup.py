"""`roomserver backup` and `restore`: all rows, and what waited, once, in any PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from msgspec import structs
from typer.testing import CliRunner, Result

from roomserver.cli import app
from roomserver.protocol.codes import RoomState
from roomserver.store.backup import TABLES, back_up
from roomserver.store.database import Connection, Database
from roomserver.store.drain import Drain
from roomserver.store.embedded import EmbeddedPostgres
from roomserver.store.events import Audited, Event, Joined, Left, RoomChanged
from roomserver.store.migrations import Migration, load_migrations, migrate
from roomserver.store.outbox import Outbox
from support.api_client import Api
from support.events import new_audit, new_room, new_stay
from support.postgres import Cluster, open_directory, postgres, url
from support.server import ServerProcess

# A row of each table that no event makes, and what COPY could get wrong: tabs, backslashes, nulls,
# empty arrays, floats that have no short form, times in a zone.
ROWS = r"""
SET timezone = 'Asia/Kathmandu';
INSERT INTO relay.users (id, email, password_hash, role, disabled_at) VALUES
    ('00000000-0000-0000-0000-00000000000a', 'anna@example.org', '$2b$04$h', 'admin', NULL),
    ('00000000-0000-0000-0000-00000000000b', 'bert@example.org', '', 'user', now());
INSERT INTO relay.account_invites (hash, created_by, expires_at)
    VALUES ('\x5c00ff', '00000000-0000-0000-0000-00000000000a', 'infinity');
INSERT INTO relay.refresh_tokens (id, user_id, hash, family, parent, expires_at) VALUES
    ('00000000-0000-0000-0000-00000000000c', '00000000-0000-0000-0000-00000000000a', '\x01',
        gen_random_uuid(), '00000000-0000-0000-0000-00000000000d', now() + '1 day'),
    ('00000000-0000-0000-0000-00000000000d', '00000000-0000-0000-0000-00000000000a', '\x02',
        gen_random_uuid(), NULL, now() + '1 day');
INSERT INTO relay.room_analytics (room_id, date, avg_latency_ms, total_listen_minutes)
    SELECT id, '2026-11-24', 0.1::float8 + 0.2, 1e-300 FROM relay.audio_rooms LIMIT 1;
INSERT INTO relay.room_bans (room_id, address, reason)
    SELECT id, '2001:db8::/64', E'tab\t, line\n, \\N and \\. and "quotes"'
    FROM relay.audio_rooms LIMIT 1;
INSERT INTO relay.invites (room_id, created_by, secret_hash, expires_at)
    SELECT id, '00000000-0000-0000-0000-00000000000a', '\x5c2e', now()
    FROM relay.audio_rooms LIMIT 1;
INSERT INTO relay.mix_presets (user_id, name, faders, mutes)
    VALUES ('00000000-0000-0000-0000-00000000000b', 'Grüße, {"x"}', '{0.1, NULL, 4}', '{}');
INSERT INTO relay.dead_letters (stream_id, seq, kind, payload, error)
    VALUES (gen_random_uuid(), 7, 'Left', '{"deep": [null, "\\u00fc", 1.50]}', '');
UPDATE relay.audio_rooms SET updated_at = '2020-02-29 12:00:00.123456+05:45';
"""


@pytest.fixture(scope="module")
def fifteen() -> Iterator[EmbeddedPostgres]:
    with postgres(15) as server:
        yield server


@pytest.fixture
def source(fifteen: EmbeddedPostgres) -> EmbeddedPostgres:
    """The oldest PostgreSQL, up to date and without rows."""

    async def clear() -> None:
        connection = await asyncpg.connect(**fifteen.connection)
        await connection.execute("DROP SCHEMA IF EXISTS relay CASCADE")
        await migrate(connection)
        await connection.close()

    asyncio.run(clear())
    return fifteen


def query(server: EmbeddedPostgres, statement: str) -> Any:
    """Runs a script, or one query whose first value it returns."""

    async def work() -> Any:
        connection = await asyncpg.connect(**server.connection)
        try:
            if statement.startswith("SELECT "):
                return await connection.fetchval(statement)
            return await connection.execute(statement)
        finally:
            await connection.close()

    return asyncio.run(work())


def roomserver(*arguments: str | Path, database: str = "embedded") -> Result:
    """A command, in this process."""
    return CliRunner().invoke(
        app,
        [str(argument) for argument in arguments],
        env={"ROOMSERVER_DATABASE_URL": database, "ROOMSERVER_BCRYPT_ROUNDS": "4"},
    )


def run(*arguments: str | Path, database: str = "embedded") -> Result:
    """A command that has to succeed."""
    result = roomserver(*arguments, database=database)
    assert result.exit_code == 0, result.output
    return result


def all_rows(server: EmbeddedPostgres) -> dict[str, list[str]]:
    """Every row of every table as text, in order; without when an outbox was last read."""

    async def work() -> dict[str, list[str]]:
        connection = await asyncpg.connect(**server.connection)
        await connection.execute("SET timezone = 'UTC'")
        rows = {}
        for table in await connection.fetch(TABLES):
            row = "(stream_id, last_seq)" if table["name"] == "outbox_progress" else "t"
            found = await connection.fetch(f"SELECT {row}::text AS t FROM relay.{table['name']} t")
            rows[table["name"]] = sorted(row["t"] for row in found)
        await connection.close()
        return rows

    return asyncio.run(work())


async def fill(server: EmbeddedPostgres, data_dir: Path) -> None:
    """Rows in every table, some of them by a drain, and events that still wait in an outbox."""
    outbox = Outbox(data_dir, capacity=10**6)
    database = Database(server.connection)
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO relay.servers (id, url, heartbeat)"
            " VALUES ($1, 'http://a', now() - interval '1 minute')",
            outbox.stream_id,
        )
    drain = Drain(outbox, database, server_id=outbox.stream_id, room=lambda _: None)
    room = new_room()
    stay = new_stay(room)
    left = structs.replace(stay, left_at=1_700_000_011.5, duration_s=10.25)
    closed = replace(room, version=2, state=RoomState.CLOSED, closed_at=1_700_000_100.0)
    gone: list[Event] = [RoomChanged(new_room()), RoomChanged(room), Joined(stay), new_audit()]
    for event in gone:
        outbox.append_soon(event)
    drain.start()
    async with asyncio.timeout(60):
        await drain.reached(await outbox.flush())
    await drain.stop()
    waiting: list[Event] = [
        RoomChanged(closed),
        Left(left),
        Audited("00000000-0000-0000-0000-0000000000ff", new_audit().record),
        RoomChanged(new_room(name="made while the database was away")),
    ]
    for event in waiting:
        outbox.append_soon(event)
    await outbox.flush()
    await outbox.close()
    async with database.transaction() as connection:
        await connection.execute(ROWS)
    await database.close()


def test_all_of_one_version_is_there_in_another_and_what_waited_once(
    source: EmbeddedPostgres, tmp_path: Path
) -> None:
    asyncio.run(fill(source, tmp_path))
    before = all_rows(source)
    assert [table for table, rows in before.items() if not rows] == []
    file = tmp_path / "relay.backup"
    said = run("backup", file, "--data-dir", tmp_path, database=url(source.connection))
    assert "4 events from the outbox" in said.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert all_rows(source) == before  # nothing was touched
    assert not list(tmp_path.glob("*.unfinished"))

    with open_directory() as directory:
        run("restore", file, "--data-dir", directory)
        assert not (directory / "outbox.db").exists()
        newest = EmbeddedPostgres(directory)
        newest.start()
        try:
            assert query(newest, "SELECT current_setting('server_version_num')::int") >= 160000
            assert run("migrate", "--check", "--data-dir", directory).stderr == "up to date\n"
            restored = all_rows(newest)
            # The old server goes on with its outbox: all of that is known already.
            asyncio.run(replay(tmp_path, newest))
            assert all_rows(newest) == restored
        finally:
            newest.stop()

    # What waited is all that differs, and it is what the old database gets of it as well.
    asyncio.run(replay(tmp_path, source))
    after = all_rows(source)
    changed_by_events = {"audio_rooms", "room_participants", "audit_log", "outbox_progress"}
    assert {table for table, rows in after.items() if rows != before[table]} == changed_by_events
    for table, rows in restored.items():
        if table != "audio_rooms":  # which say when they were changed
            assert rows == after[table], table
    untouched = set(before["audio_rooms"]) & set(after["audio_rooms"])
    assert len(untouched) == 1
    assert untouched < set(restored["audio_rooms"])
    assert len(restored["audio_rooms"]) == len(after["audio_rooms"]) == 3


async def replay(data_dir: Path, server: EmbeddedPostgres) -> None:
    """What a server with this outbox would send again after a crash, without acknowledging it."""
    with open_directory() as directory:
        shutil.copy(data_dir / "outbox.db", directory)
        outbox = Outbox(directory, capacity=1)
        database = Database(server.connection)
        drain = Drain(outbox, database, server_id=outbox.stream_id, room=lambda _: None)
        drain.start()
        async with asyncio.timeout(60):
            await drain.reached(await outbox.flush())
        await drain.stop()
        await database.close()
        await outbox.close()


async def test_a_running_server_is_backed_up_and_its_rooms_are_found_elsewhere(
    tmp_path: Path,
) -> None:
    file = tmp_path / "relay.backup"
    made: list[str] = []
    with open_directory() as first, open_directory() as second:
        async with aiohttp.ClientSession() as session:
            with ServerProcess.start(first, "--database-url", "embedded") as server:
                await asyncio.to_thread(server.add_user)
                api = Api(server.url, session)
                token = (await api.login())["accessToken"]

                async def go_on() -> None:
                    while True:
                        made.append((await api.create_room(token)).code)

                made.append((await api.create_room(token)).code)
                known = list(made)
                creating = asyncio.create_task(go_on())
                await asyncio.to_thread(run, "backup", file, "--data-dir", first)
                assert not creating.done()  # rooms were being made all the time
                creating.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await creating

            await asyncio.to_thread(run, "restore", file, "--data-dir", second)
            with ServerProcess.start(second, "--database-url", "embedded") as server:
                warning = server.wait_for_event("new_signing_key_for_a_used_database")
                assert warning["level"] == "warning"
                warning = server.wait_for_event("new_data_directory_for_a_used_database")
                assert "what waits in the outbox of another is not here" in warning["hint"]
                await Api(server.url, session).login()
                database = await asyncpg.connect(**EmbeddedPostgres(second).connection)
                codes = await database.fetchval("SELECT array_agg(code) FROM relay.audio_rooms")
                await database.close()
    assert set(known) <= set(codes)


async def test_a_private_database_comes_to_the_newest_postgresql(tmp_path: Path) -> None:
    file = tmp_path / "relay.backup"
    options = ("--database-url", "embedded")

    def restore(directory: Path) -> None:
        run("backup", file, "--data-dir", directory)
        refused = roomserver("restore", file, "--data-dir", directory)
        assert refused.exit_code == 2
        assert "--overwrite" in refused.stderr
        run("restore", file, "--data-dir", directory, "--overwrite")
        assert int((directory / "postgres" / "data" / "PG_VERSION").read_text()) > 15
        assert clusters(directory) == ["data"]

    with open_directory() as directory:
        old = EmbeddedPostgres(directory, major=15)
        old.start()
        old.stop()
        async with aiohttp.ClientSession() as session:
            with ServerProcess.start(directory, *options) as server:
                await asyncio.to_thread(server.add_user)
                api = Api(server.url, session)
                token = (await api.login())["accessToken"]
                room = await api.create_room(token)
            await asyncio.to_thread(restore, directory)
            with ServerProcess.start(directory, *options) as server:
                # Neither key nor outbox have changed: what was given out still holds.
                assert "for_a_used_database" not in server.output()
                async with session.get(
                    f"{server.url}/api/broadcaster/rooms/{room.id}",
                    headers={"Authorization": f"Bearer {token}"},
                ) as response:
                    assert response.status == 200, await response.text()


def clusters(directory: Path) -> list[str]:
    """What there is of databases in a data directory."""
    return sorted(path.name for path in (directory / "postgres").glob("data*"))


def test_a_database_that_a_server_uses_is_not_restored(tmp_path: Path) -> None:
    file = tmp_path / "relay.backup"
    with open_directory() as directory, postgres() as other:
        with ServerProcess.start(directory, "--database-url", "embedded"):
            assert roomserver("backup", file, "--data-dir", directory).exit_code == 0
            refused = roomserver("restore", file, "--data-dir", directory, "--overwrite")
            assert refused.exit_code == 2
            assert "in use by another server" in refused.stderr
        address = url(other.connection)
        with ServerProcess.start(tmp_path / "other", "--database-url", address):
            refused = roomserver("restore", file, "--overwrite", database=address)
            assert refused.exit_code == 1
            assert "a server used this database" in refused.stderr


@pytest.fixture
def backup(source: EmbeddedPostgres, tmp_path: Path) -> Path:
    """Of the database as it is then: with an account and nothing else."""
    file = tmp_path / "relay.backup"
    query(source, "INSERT INTO relay.users (email, password_hash) VALUES ('a@example.org', 'x')")
    nowhere = ("--data-dir", tmp_path / "none")
    result = run("backup", file, *nowhere, database=url(source.connection))
    assert "no outbox in" in result.stderr
    return file


def changed(file: Path, name: str, content: bytes) -> None:
    """Puts other bytes in place of an entry."""
    with zipfile.ZipFile(file) as old:
        entries = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for entry, old_content in (entries | {name: content}).items():
            new.writestr(entry, old_content)


def middle(file: Path, name: str) -> int:
    """Where the content of an entry is half over."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(name)
    header = file.read_bytes()[entry.header_offset :][:30]
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + 30 + names + entry.compress_size // 2


def manifest(file: Path, **changes: Any) -> dict[str, Any]:
    """The manifest, after some of it was changed."""
    with zipfile.ZipFile(file) as archive:
        found: dict[str, Any] = json.loads(archive.read("manifest.json")) | changes
    changed(file, "manifest.json", json.dumps(found).encode())
    return found


def refused(source: EmbeddedPostgres, file: Path, *options: str) -> str:
    """What a restore says that fails, and changes nothing."""
    before = all_rows(source)
    address = url(source.connection)
    result = roomserver("restore", file, *options, database=address)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert all_rows(source) == before
    said: str = result.stderr
    return said


def test_a_database_with_rows_is_overwritten_only_when_told(
    source: EmbeddedPostgres, backup: Path
) -> None:
    query(source, "UPDATE relay.users SET email = 'other@example.org'")
    assert "there are rows in relay.users" in refused(source, backup)
    run("restore", backup, "--overwrite", database=url(source.connection))
    assert query(source, "SELECT email FROM relay.users") == "a@example.org"
    query(source, "DELETE FROM relay.users")  # the schema alone is no reason
    run("restore", backup, database=url(source.connection))
    assert query(source, "SELECT count(*) FROM relay.users") == 1


def test_a_damaged_backup_changes_nothing(source: EmbeddedPostgres, backup: Path) -> None:
    whole = backup.read_bytes()

    def said() -> str:
        text = refused(source, backup, "--overwrite")
        backup.write_bytes(whole)
        return text

    backup.write_bytes(whole[: len(whole) // 2])
    assert "is no backup, or a damaged one" in said()
    at = middle(backup, "tables/users")
    backup.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    assert "damaged" in said()
    changed(backup, "tables/users", b"")
    assert "rows of users are missing" in said()
    changed(backup, "tables/users", b"nonsense\n")
    assert "the database refuses" in said()
    manifest(backup, format=99)
    assert "another release" in said()
    tables = manifest(backup)["tables"]
    manifest(backup, tables=[table | {"name": 'users"; --'} for table in tables])
    assert "are not those that its migrations make" in said()


async def test_an_outbox_that_can_not_be_read_changes_nothing(
    source: EmbeddedPostgres, tmp_path: Path
) -> None:
    """It is looked at before anything is thrown away."""
    await fill(source, tmp_path)
    backup = tmp_path / "relay.backup"
    arguments = ("backup", backup, "--data-dir", tmp_path)
    await asyncio.to_thread(run, *arguments, database=url(source.connection))
    whole = backup.read_bytes()
    with zipfile.ZipFile(backup) as archive:
        outbox = archive.read("outbox.db")
    later = tmp_path / "later.db"
    later.write_bytes(outbox)
    with contextlib.closing(sqlite3.connect(later)) as db:
        db.execute("PRAGMA user_version = 99")
    rooms = tmp_path / "rooms.db"
    rooms.write_bytes(outbox)
    with contextlib.closing(sqlite3.connect(rooms)) as db, db:
        db.execute("UPDATE rooms SET room = CAST('{' AS BLOB)")
    for content, complaint in (
        (outbox[: len(outbox) // 2], "damaged"),
        (b"SQLite format 3\0" + outbox[16:100] + b"\xff" * (len(outbox) - 100), "damaged"),
        (later.read_bytes(), "of a later release"),
        (rooms.read_bytes(), "damaged"),
        (b"", "holds 0 events"),
    ):
        changed(backup, "outbox.db", content)
        said = await asyncio.to_thread(refused, source, backup, "--overwrite")
        assert complaint in said, said
        backup.write_bytes(whole)
    await asyncio.to_thread(run, "restore", backup, "--overwrite", database=url(source.connection))


def test_a_damaged_backup_leaves_a_private_database_as_it_is(backup: Path) -> None:
    with open_directory() as directory:
        for there in ([], ["data"]):
            whole = backup.read_bytes()
            changed(backup, "tables/users", b"nonsense\n")
            result = roomserver("restore", backup, "--overwrite", "--data-dir", directory)
            assert result.exit_code == 1, result.output
            assert clusters(directory) == there
            backup.write_bytes(whole)
            if not there:
                run("restore", backup, "--data-dir", directory)
        run("migrate", "--check", "--data-dir", directory)


async def test_a_database_is_backed_up_through_a_pooler_too(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    await tables.execute(
        "INSERT INTO relay.users (email, password_hash) VALUES ('a@example.org', 'x')"
    )
    database = cluster.database()
    manifest = await back_up(database, tmp_path, tmp_path / "relay.backup")
    await database.close()
    assert [(table.name, table.rows) for table in manifest.tables if table.rows] == [("users", 1)]


def test_a_backup_of_a_later_release_is_refused_and_one_of_an_earlier_is_brought_up_to_date(
    source: EmbeddedPostgres, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backup.read_bytes()
    later = {"version": 99, "name": "later", "sha256": "00"}
    manifest(backup, migrations=[*manifest(backup)["migrations"], later])
    assert "install a later release" in refused(source, backup, "--overwrite")
    backup.write_bytes(whole)
    known = load_migrations()
    change = "ALTER TABLE relay.users ADD extra text DEFAULT 'x'"
    following = Migration(len(known) + 1, "next", change)
    for module in ("backup", "migrations"):
        monkeypatch.setattr(
            f"roomserver.store.{module}.load_migrations", lambda: (*known, following)
        )
    run("restore", backup, "--overwrite", database=url(source.connection))
    assert query(source, "SELECT extra FROM relay.users") == "x"
    assert query(source, "SELECT max(version) FROM relay.migrations") == following.version


def test_a_backup_that_cannot_be_written_leaves_the_last_one(
    source: EmbeddedPostgres, backup: Path
) -> None:
    address = url(source.connection)
    whole = backup.read_bytes()
    (backup.parent / "outbox.db").write_bytes(b"no database" * 1000)
    bad = ("backup", backup, "--data-dir", backup.parent)
    result = roomserver(*bad, database=address)
    assert result.exit_code == 1
    assert "outbox.db" in result.stderr
    assert backup.read_bytes() == whole
    nowhere = ("backup", backup.parent / "missing" / "file")
    result = roomserver(*nowhere, database=address)
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr


def test_where_there_is_no_database_nothing_is_backed_up_or_made(tmp_path: Path) -> None:
    file = tmp_path / "relay.backup"
    result = roomserver("backup", file, "--data-dir", tmp_path / "data")
    assert result.exit_code == 2
    assert "there is no database in" in result.stderr
    assert roomserver("backup", file, database="none").exit_code == 2
    assert roomserver("restore", file, database="none").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_a_restored_database_takes_its_place_leaves_one_of_the_two(
    backup: Path,
) -> None:
    with open_directory() as directory:
        run("restore", backup, "--data-dir", directory)
        cluster = directory / "postgres"
        # Before the swap: a restore that was under way is forgotten.
        shutil.copytree(cluster / "data", cluster / "data.fresh")
        (cluster / "data.fresh" / "PG_VERSION").unlink()
        run("migrate", "--data-dir", directory)
        # In the middle of it: the new one was whole.
        shutil.rmtree(cluster / "data.fresh")
        shutil.copytree(cluster / "data", cluster / "data.old")
        (cluster / "data").rename(cluster / "data.fresh")
        run("migrate", "--check", "--data-dir", directory)
        assert clusters(directory) == ["data"]
