"""The database's schema: plain SQL files, numbered, applied in order and never changed again.

`sql/migrations/NNNN_name.sql` is one transaction. `relay.migrations` holds what was applied, with a
hash of each file: a file that was changed afterwards is an error, because the databases that have
it differ from those that get it now.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable

import asyncpg

from roomserver.store.database import AWAY, Connection, Database, DatabaseAwayError

# Any number will do, so long as nothing else in the database locks the same.
LOCK_KEY = 0x72656C6179  # "relay"
LOCK_POLL_S = 0.1
OLDEST_VERSION = 150_000
FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
# Everything lives in a schema of its own: Supabase shows `public` to the world, and tables of the
# server that this one replaces may be there. IF NOT EXISTS would ask for the right to make one even
# where an administrator has made it.
LEDGER = """
DO $$
BEGIN
    IF to_regnamespace('relay') IS NULL THEN
        CREATE SCHEMA relay;
    END IF;
END
$$;
CREATE TABLE IF NOT EXISTS relay.migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE relay.migrations ENABLE ROW LEVEL SECURITY;
"""


class MigrationError(Exception):
    """The schema can't be brought up to date; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str = field(repr=False)

    @property
    def sha256(self) -> bytes:
        """Of its text, so that only a change of the text counts."""
        return hashlib.sha256(self.sql.encode()).digest()


def load_migrations(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """All migrations in their order. Raises MigrationError for a name or number out of line."""
    found = []
    for file in (folder or files("roomserver.store") / "sql" / "migrations").iterdir():
        match = FILE_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name} is not named like 0001_what_it_does.sql")
        found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.version)
    for number, migration in enumerate(found, 1):
        if migration.version != number:
            raise MigrationError(f"migration {number:04} is missing, or there are two of one")
    return tuple(found)


def roles_sql() -> str:
    """What makes the roles that the schema names; repeatable."""
    return (files("roomserver.store") / "sql" / "roles.sql").read_text("utf-8")


def administrator_sql(service: str, missing: Sequence[Migration]) -> str:
    """What gives a database its roles and these migrations, for an administrator to run.

    service: the role that the server connects as, which is to own everything.
    """
    identifier = '"' + service.replace('"', '""') + '"'
    literal = "'" + service.replace("'", "''") + "'"
    parts = [
        "BEGIN;",
        f"SELECT pg_advisory_xact_lock({LOCK_KEY});",
        f"SELECT set_config('relay.service', {literal}, true);",
        roles_sql(),
        f"CREATE SCHEMA IF NOT EXISTS relay AUTHORIZATION {identifier};",
        f"SET LOCAL ROLE {identifier};",
        LEDGER,
    ]
    for migration in missing:
        parts += [
            f"-- {migration.version:04} {migration.name}",
            migration.sql,
            f"INSERT INTO relay.migrations (version, name, sha256) VALUES"  # noqa: S608 - ours
            f" ({migration.version}, '{migration.name}', '\\x{migration.sha256.hex()}');",
        ]
    return "\n".join([*parts, "COMMIT;", ""])


async def pending(connection: Connection, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """Those that the database does not have yet.

    Raises MigrationError when one that it has was changed since, or is of a later version.
    """
    if await connection.fetchval("SELECT to_regclass('relay.migrations')") is None:
        return tuple(migrations)
    rows = await connection.fetch(
        "SELECT version, name, sha256 FROM relay.migrations ORDER BY version"
    )
    return not_applied([tuple(row) for row in rows], migrations)


def not_applied(
    applied: Sequence[tuple[int, str, bytes]], migrations: Sequence[Migration]
) -> tuple[Migration, ...]:
    """Those that are missing where these versions, names and hashes were applied.

    Raises MigrationError as `pending` does.
    """
    for (version, name, sha256), migration in zip(applied, migrations, strict=False):
        if (version, sha256) != (migration.version, migration.sha256):
            raise MigrationError(
                f"migration {migration.version:04} ({migration.name}) is not the one that was "
                f"applied to this database ({version:04} {name}): an old migration must never "
                f"change; install the release that made this database, or a later one"
            )
    if len(applied) > len(migrations):
        raise MigrationError(
            f"the database is at version {len(applied)}, this release knows only "
            f"{len(migrations)}: install a later release"
        )
    return tuple(migrations[len(applied) :])


async def bring_up_to_date(database: Database) -> tuple[Migration, ...]:
    """Applies what is missing and returns it; several servers may do so at once.

    Through a pooler nothing can be applied, only looked whether something is missing. Raises
    MigrationError and DatabaseAwayError.
    """
    try:
        if not database.pooled:
            connection = await database.connect()
            try:
                return await migrate(connection)
            finally:
                await connection.close()
        async with database.transaction() as transaction:
            missing = await pending(transaction, load_migrations())
    except asyncpg.InsufficientPrivilegeError as error:
        raise _without_right(error) from error
    except AWAY as error:
        raise DatabaseAwayError(str(error) or type(error).__name__) from error
    if missing:
        raise MigrationError(
            f"{describe(missing)} missing, and nothing can be applied through a pooler: run "
            f"`roomserver migrate` with the database's own address"
        )
    return missing


def describe(missing: Sequence[Migration]) -> str:
    """The beginning of a sentence that says what is missing."""
    names = ", ".join(f"{migration.version:04} {migration.name}" for migration in missing)
    return f"migration {names} is" if len(missing) == 1 else f"migrations {names} are"


async def migrate(
    connection: Connection, migrations: Sequence[Migration] | None = None
) -> tuple[Migration, ...]:
    """Applies what is missing and returns it; several servers may do so at once.

    Needs a connection of its own, not one of a pooler. Raises MigrationError.
    """
    if migrations is None:
        migrations = load_migrations()
    version = connection.get_server_version()
    if version.major * 10_000 < OLDEST_VERSION:
        raise MigrationError(
            f"the server is PostgreSQL {version.major}; {OLDEST_VERSION // 10_000} is the oldest"
        )
    await lock(connection)
    try:
        missing = await pending(connection, migrations)
        if missing:
            await _make_roles(connection)
        for migration in missing:
            await _apply(connection, migration)
        return missing
    finally:
        await connection.execute(f"SELECT pg_advisory_unlock({LOCK_KEY})")


async def lock(connection: Connection) -> None:
    """Keeps others from changing the schema for as long as the connection lasts.

    Asked for again and again: waiting inside the database would keep a snapshot open, which whoever
    builds an index concurrently waits for.
    """
    while not await connection.fetchval(  # noqa: ASYNC110 - the database sends no event
        f"SELECT pg_try_advisory_lock({LOCK_KEY})"
    ):
        await asyncio.sleep(LOCK_POLL_S)


async def _make_roles(connection: Connection) -> None:
    try:
        async with connection.transaction():
            await connection.execute(roles_sql())
    except asyncpg.InsufficientPrivilegeError as error:
        raise _without_right(error) from error


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(LEDGER)
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO relay.migrations (version, name, sha256) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.sha256,
            )
    except asyncpg.InsufficientPrivilegeError as error:
        raise _without_right(error) from error
    except asyncpg.PostgresError as error:
        raise MigrationError(
            f"migration {migration.version:04} {migration.name}: {error}"
        ) from error


def _without_right(error: asyncpg.InsufficientPrivilegeError) -> MigrationError:
    return MigrationError(
        f"the role this server connects as may not do that ({error}): have an administrator run "
        f"what `roomserver migrate --print-sql` prints"
    )
