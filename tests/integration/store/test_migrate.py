"""`roomserver migrate`, and servers that find a database with nothing in it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from roomserver.cli import app
from roomserver.store.embedded import EmbeddedPostgres
from roomserver.store.migrations import load_migrations
from support.postgres import open_directory, url
from support.postgres import postgres as new_postgres
from support.server import ServerProcess

NAMES = [f"{migration.version:04} {migration.name}" for migration in load_migrations()]


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of the tests' own, which servers know by its address."""
    with new_postgres() as server:
        yield server


@pytest.fixture
def address(postgres: EmbeddedPostgres) -> str:
    """Of a database with nothing in it."""
    run_sql(postgres.connection, "DROP SCHEMA IF EXISTS relay CASCADE")
    return url(postgres.connection)


def run_sql(connection: dict[str, Any], statement: str) -> Any:
    """A script, or one query, whose first value is returned."""

    async def execute() -> Any:
        database = await asyncpg.connect(**connection)
        try:
            if statement.startswith("SELECT "):
                return await database.fetchval(statement)
            return await database.execute(statement)
        finally:
            await database.close()

    return asyncio.run(execute())


def migrate(
    address: str, *options: str, data_dir: Path | None = None, pooler: str = "none"
) -> Result:
    variables = {"ROOMSERVER_DATABASE_URL": address, "ROOMSERVER_DATABASE_POOLER": pooler}
    arguments = ["migrate", *options, *(("--data-dir", str(data_dir)) if data_dir else ())]
    return CliRunner().invoke(app, arguments, env=variables)


def test_four_servers_that_start_together_make_one_schema(
    address: str, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    def start(number: int) -> ServerProcess:
        return ServerProcess.start(tmp_path / str(number), "--database-url", address)

    with ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        starting = [pool.submit(start, number) for number in range(4)]
        for server in starting:
            stack.enter_context(server.result())  # whose end fails if it logged an error
        assert run_sql(postgres.connection, "SELECT count(*) FROM relay.servers") == 4
    applied = run_sql(postgres.connection, "SELECT array_agg(version) FROM relay.migrations")
    assert applied == [migration.version for migration in load_migrations()]


def test_what_is_missing_is_told_applied_and_then_there(address: str) -> None:
    looked = migrate(address, "--check")
    assert looked.exit_code == 1
    assert looked.stderr.splitlines() == [f"missing: {name}" for name in NAMES]
    assert migrate(address, "--check").exit_code == 1  # that changed nothing

    applied = migrate(address)
    assert applied.exit_code == 0, applied.output
    assert applied.stderr.splitlines() == [f"applied {name}" for name in NAMES]

    for options in (("--check",), ()):
        done = migrate(address, *options)
        assert (done.exit_code, done.stderr) == (0, "up to date\n")


def test_an_old_migration_that_changed_is_an_error(
    address: str, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    migrate(address)
    run_sql(postgres.connection, "UPDATE relay.migrations SET sha256 = '\\x00' WHERE version = 1")
    for options in (("--check",), (), ("--print-sql",)):
        refused = migrate(address, *options)
        assert refused.exit_code == 1
        assert "0001" in refused.stderr
        assert "must never change" in refused.stderr
    with pytest.raises(AssertionError, match="must never change"):
        ServerProcess.start(tmp_path, "--database-url", address)


def test_an_administrator_runs_what_is_printed_for_a_role_that_may_make_nothing(
    address: str, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    name = 'the "service"'
    role = '"the ""service"""'
    administrator = superuser(postgres) | {"database": "theirs"}
    run_sql(superuser(postgres), "CREATE DATABASE theirs")
    run_sql(administrator, f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    service = postgres.connection | {"user": name, "password": "p", "database": "theirs"}
    address = url(service)

    refused = migrate(address)
    assert refused.exit_code == 1
    assert "--print-sql" in refused.stderr
    printed = migrate(address, "--print-sql")
    assert printed.exit_code == 0, printed.output
    run_sql(administrator, printed.stdout)
    assert migrate(address, "--check").exit_code == 0
    # Later releases need no administrator, so long as they make no role.
    run_sql(service, "CREATE TABLE relay.later (id uuid); SET ROLE authenticated")
    owner = "SELECT bool_and(tableowner = current_user) FROM pg_tables WHERE schemaname = 'relay'"
    assert run_sql(service, owner) is True
    with ServerProcess.start(tmp_path, "--database-url", address) as server:
        server.add_user()
    assert migrate(address, "--print-sql").stdout.count("CREATE TABLE relay.users") == 0


def superuser(postgres: EmbeddedPostgres) -> dict[str, Any]:
    """Nobody can be it, until whoever owns the files says so."""
    rules = postgres._cluster / "pg_hba.conf"
    rules.write_text("local all postgres trust\n" + rules.read_text())
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGHUP)
    return postgres.connection | {"user": "postgres", "database": "postgres"}


def test_behind_a_pooler_a_direct_connection_is_asked_for(address: str, tmp_path: Path) -> None:
    for options in ((), ("--check",), ("--print-sql",)):
        refused = migrate(address, *options, pooler="transaction")
        assert refused.exit_code == 2
        assert "needs a direct connection" in refused.stderr
        assert "postgresql://" not in refused.output  # it carries a password
    behind = ("--database-url", address, "--database-pooler", "transaction")
    with pytest.raises(AssertionError, match=r"can't be applied|nothing can be applied"):
        ServerProcess.start(tmp_path, *behind)
    migrate(address)
    with ServerProcess.start(tmp_path, *behind) as server:
        server.add_user()


def test_the_private_database_is_looked_at_but_not_made(tmp_path: Path) -> None:
    looked = migrate("embedded", "--check", data_dir=tmp_path / "data")
    assert looked.exit_code == 2
    assert "no database in" in looked.stderr
    assert not (tmp_path / "data").exists()
    refused = migrate("embedded", "--print-sql", data_dir=tmp_path / "data")
    assert refused.exit_code == 2
    assert "needs no administrator" in refused.stderr


def test_the_private_database_is_brought_up_to_date_also_while_a_server_runs() -> None:
    with open_directory() as directory:
        first = migrate("embedded", data_dir=directory)
        assert first.exit_code == 0, first.output
        assert first.stderr.splitlines() == [f"applied {name}" for name in NAMES]
        with ServerProcess.start(directory, "--database-url", "embedded"):
            again = migrate("embedded", "--check", data_dir=directory)
            assert (again.exit_code, again.stderr) == (0, "up to date\n")


def test_without_a_database_there_is_nothing_to_migrate() -> None:
    refused = migrate("none")
    assert refused.exit_code == 2
    assert "there is no database" in refused.stderr


def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    refused = migrate(f"postgresql://u:hidden@/d?host={tmp_path}")
    assert refused.exit_code == 1
    assert "the database is away" in refused.stderr
    assert "hidden" not in refused.output
