"""Backups: all rows of schema `relay`, and the events that still wait in a server's outbox.

A backup is a ZIP file:

    manifest.json       what is in it, of which release and PostgreSQL
    tables/NAME         the rows of a table, as COPY writes them
    outbox.db           the outbox, as it was just before the tables were read

Rows only: the schema comes of the migrations, so that a backup does not depend on the version of
PostgreSQL, and is brought up to date by a later release. The outbox is copied before the tables are
read, all of them in one snapshot: what was taken over meanwhile is in both, and since its numbers
tell that, it is taken over once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import asyncpg
import msgspec

from roomserver.store.database import (
    AWAY,
    CONNECT_TIMEOUT_S,
    Connection,
    Database,
    DatabaseAwayError,
)
from roomserver.store.drain import BATCH, Drain
from roomserver.store.membership import BEATS_PER_LEASE
from roomserver.store.migrations import (
    Migration,
    load_migrations,
    lock,
    migrate,
    not_applied,
)
from roomserver.store.outbox import FILE_NAME as OUTBOX
from roomserver.store.outbox import Outbox, OutboxError

FORMAT = 1
MANIFEST = "manifest.json"
LONGEST_MANIFEST = 1 << 20
READ_BYTES = 1 << 18
# Whoever said so lately that it lives, does.
ALIVE_LEASES = 2.5 / BEATS_PER_LEASE
# Rows look the same whatever a database or role is set to; a policy that hides some is an error.
PLAIN = """
SET LOCAL row_security = off;
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL intervalstyle = 'iso_8601';
SET LOCAL bytea_output = 'hex';
SET LOCAL extra_float_digits = 1;
"""
APPLIED = "SELECT version, name, encode(sha256, 'hex') AS sha256 FROM relay.migrations ORDER BY 1"
# Tables with what they refer to first; columns that are computed come of themselves.
TABLES = """
WITH RECURSIVE tables AS (
    SELECT oid, relname FROM pg_class
    WHERE relnamespace = 'relay'::regnamespace AND relkind = 'r' AND relname <> 'migrations'
), depths (oid, depth) AS (
    SELECT oid, 0 FROM tables
    UNION
    SELECT conrelid, depth + 1 FROM depths
    JOIN pg_constraint ON confrelid = depths.oid AND contype = 'f' AND conrelid <> confrelid
    WHERE depth < 100
)
SELECT relname AS name, (
    SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = tables.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
) AS columns
FROM tables JOIN depths USING (oid)
GROUP BY tables.oid, relname
ORDER BY max(depth), relname
"""
ALIVE = """
SELECT extract(epoch FROM now() - heartbeat)::float8 AS ago, lease_s * $1::float8 AS alive_s
FROM relay.servers WHERE heartbeat > now() - make_interval(secs => lease_s * $1::float8)
ORDER BY heartbeat + make_interval(secs => lease_s * $1::float8) DESC LIMIT 1
"""


class BackupError(Exception):
    """It can't be backed up or restored; the message says why and what to do."""


class AppliedMigration(msgspec.Struct, frozen=True):
    """One that the database had."""

    version: int
    name: str
    sha256: str


class Table(msgspec.Struct, frozen=True):
    """A table's part of a backup."""

    name: str
    columns: list[str]
    rows: int


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds."""

    format: int
    made_at: datetime
    release: str
    postgres: str
    migrations: list[AppliedMigration]
    tables: list[Table]
    waiting: int | None  # events in the outbox; None: there was no outbox

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(table.rows for table in self.tables)


# ---- backup ----


async def back_up(database: Database, data_dir: Path, path: Path) -> Manifest:
    """Writes a backup to `path`, for its owner alone; a server may go on meanwhile.

    Raises BackupError and DatabaseAwayError; then `path` is as it was.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
                waiting = _add_outbox(data_dir, archive)
                manifest = await _add_tables(database, archive, waiting)
                archive.writestr(MANIFEST, msgspec.json.encode(manifest))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise BackupError(f"{error.filename or path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return manifest


def _add_outbox(data_dir: Path, archive: zipfile.ZipFile) -> int | None:
    """Adds a copy of the outbox, which a server may be writing to; how many events wait in it."""
    path = data_dir / OUTBOX
    if not path.exists():
        return None
    with tempfile.TemporaryDirectory(prefix="roomserver-") as directory:
        copy = Path(directory) / OUTBOX
        try:
            with (
                closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
                waiting = int(target.execute("SELECT count(*) FROM events").fetchone()[0])
        except sqlite3.Error as error:
            raise BackupError(f"{path}: {error}") from error
        archive.write(copy, OUTBOX)
    return waiting


async def _add_tables(
    database: Database, archive: zipfile.ZipFile, waiting: int | None
) -> Manifest:
    async with _session(database) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await connection.execute(PLAIN)
        if not await _has_schema(connection):
            raise BackupError("the database is empty: there is no schema relay in it")
        applied = await connection.fetch(APPLIED)
        tables = [
            await _add_table(connection, archive, row["name"], row["columns"])
            for row in await connection.fetch(TABLES)
        ]
        return Manifest(
            format=FORMAT,
            made_at=datetime.now(UTC),
            release=version("relaycore"),
            postgres=await connection.fetchval("SHOW server_version"),
            migrations=[AppliedMigration(**row) for row in applied],
            tables=tables,
            waiting=waiting,
        )


async def _add_table(
    connection: Connection, archive: zipfile.ZipFile, name: str, columns: list[str]
) -> Table:
    with archive.open(f"tables/{name}", "w", force_zip64=True) as entry:

        async def write(rows: bytes) -> None:
            try:
                entry.write(rows)
            except OSError as error:  # of the file; the database's own mean that it is away
                raise BackupError(f"{archive.filename}: {error.strerror}") from error

        names = ", ".join(f'"{column}"' for column in columns)
        status = await connection.copy_from_query(
            f'SELECT {names} FROM relay."{name}"',  # noqa: S608 - names of our own schema
            output=write,
        )
    return Table(name, columns, int(status.split()[-1]))


# ---- restore ----


async def restore(database: Database, path: Path, *, overwrite: bool = False) -> Manifest:
    """Gives a database what a backup holds, and brings its schema up to date.

    overwrite: what there is is thrown away; unless told, a database that has any rows is refused.

    Raises BackupError, MigrationError and DatabaseAwayError. Then nothing has changed, save when
    that happens while events that waited are taken over; the message says so.
    """
    with _open(path) as (archive, manifest):
        async with _waiting(archive, manifest) as outbox:
            async with _session(database) as connection:
                await lock(connection)
                await _clear(connection, overwrite=overwrite)
                await migrate(connection, _same_migrations(manifest))
                await connection.execute(PLAIN)
                for table in await _ordered(connection, manifest):
                    await _load_table(connection, archive, table)
                await migrate(connection)
            if outbox is not None:
                await _take_over(database, outbox)
    return manifest


def _same_migrations(manifest: Manifest) -> tuple[Migration, ...]:
    ours = load_migrations()
    theirs = [(m.version, m.name, bytes.fromhex(m.sha256)) for m in manifest.migrations]
    return ours[: len(ours) - len(not_applied(theirs, ours))]


async def _clear(connection: Connection, *, overwrite: bool) -> None:
    """Leaves a database without the schema."""
    if not await _has_schema(connection):
        return
    used = await connection.fetchval("SELECT to_regclass('relay.servers') IS NOT NULL")
    if used and (alive := await connection.fetchrow(ALIVE, ALIVE_LEASES)) is not None:
        raise BackupError(
            f"a server used this database {alive['ago']:.0f} s ago: stop it, and try again "
            f"{alive['alive_s']:.0f} s later"
        )
    for table in await connection.fetch(TABLES):
        query = f'SELECT EXISTS (SELECT FROM relay."{table["name"]}")'  # noqa: S608 - as above
        if not overwrite and await connection.fetchval(query):
            raise BackupError(
                f"the database is in use: there are rows in relay.{table['name']}; with "
                f"--overwrite they, and all else in schema relay, are thrown away"
            )
    await connection.execute("DROP SCHEMA relay CASCADE")


async def _ordered(connection: Connection, manifest: Manifest) -> list[Table]:
    """The tables as they are to be loaded; they must be those of the schema."""
    ours = {row["name"]: row["columns"] for row in await connection.fetch(TABLES)}
    theirs = {table.name: table for table in manifest.tables}
    if {table.name: table.columns for table in manifest.tables} != ours:
        raise BackupError("the tables in the backup are not those that its migrations make")
    return [theirs[name] for name in ours]


async def _load_table(connection: Connection, archive: zipfile.ZipFile, table: Table) -> None:
    async def rows() -> AsyncIterator[bytes]:
        with archive.open(f"tables/{table.name}") as entry:
            while chunk := entry.read(READ_BYTES):
                yield chunk

    # The rows are as they are to be; a trigger would make others of them.
    await connection.execute(f'ALTER TABLE relay."{table.name}" DISABLE TRIGGER USER')
    status = await connection.copy_to_table(
        table.name, schema_name="relay", columns=table.columns, source=rows()
    )
    await connection.execute(f'ALTER TABLE relay."{table.name}" ENABLE TRIGGER USER')
    if int(status.split()[-1]) != table.rows:
        raise BackupError(f"the backup is damaged: rows of {table.name} are missing")


@asynccontextmanager
async def _waiting(archive: zipfile.ZipFile, manifest: Manifest) -> AsyncIterator[Outbox | None]:
    """The copy of an outbox in which events wait, if there is one; thrown away afterwards.

    A server that went on from it would give its next events numbers that the database may have
    seen. Raises BackupError when it can't be read.
    """
    if not manifest.waiting:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="roomserver-") as directory:
        archive.extract(OUTBOX, directory)
        try:
            outbox = Outbox(Path(directory), capacity=1)
        except OutboxError as error:
            raise BackupError(
                f"the outbox in {archive.filename} is damaged, or of a later release"
            ) from error
        try:
            await outbox.rooms()
            if outbox.waiting != manifest.waiting:
                raise BackupError(
                    f"the outbox in {archive.filename} holds {outbox.waiting} events, and not the"
                    f" {manifest.waiting} that waited"
                )
            yield outbox
        finally:
            await outbox.close()


async def _take_over(database: Database, outbox: Outbox) -> None:
    """What waited in the outbox, as its server would have done, and as often: once."""
    try:
        rooms = {room.id: room for room in await outbox.rooms()}
        async with database.transaction() as connection:
            known = await connection.fetchval(
                "SELECT id::text FROM relay.servers WHERE id = $1", outbox.stream_id
            )
        drain = Drain(outbox, database, server_id=known, room=rooms.get)
        last = 0
        while entries := await outbox.read(last, BATCH):
            await drain.take_over(entries)
            last = entries[-1].seq
    except DatabaseAwayError as error:
        raise BackupError(
            f"all rows are there, but not all of what waited in the outbox, since the database "
            f"went away ({error}): restore once more, with --overwrite"
        ) from error


@contextmanager
def _open(path: Path) -> Iterator[tuple[zipfile.ZipFile, Manifest]]:
    """A backup. What turns out to be wrong with the file, also later, is a BackupError."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MANIFEST).file_size > LONGEST_MANIFEST:
                raise BackupError(f"{path} is no backup")
            manifest = msgspec.json.decode(archive.read(MANIFEST), type=Manifest)
            if manifest.format != FORMAT:
                raise BackupError(f"{path} was made by another release ({manifest.release})")
            yield archive, manifest
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, msgspec.MsgspecError) as error:
        raise BackupError(f"{path} is no backup, or a damaged one ({error})") from error
    except asyncpg.PostgresError as error:
        raise BackupError(f"the database refuses what is in {path}: {error}") from error


@asynccontextmanager
async def _session(database: Database) -> AsyncIterator[Connection]:
    """One transaction that may take its time."""
    connection = await database.connect()
    try:
        async with connection.transaction():
            yield connection
    except AWAY as error:
        raise DatabaseAwayError(str(error) or type(error).__name__) from error
    finally:
        with contextlib.suppress(*AWAY):
            await connection.close(timeout=CONNECT_TIMEOUT_S)


async def _has_schema(connection: Connection) -> bool:
    found: bool = await connection.fetchval("SELECT to_regclass('relay.migrations') IS NOT NULL")
    return found
