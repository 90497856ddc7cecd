"""The private database: made, found again, guarded, and gone when its server is gone."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from roomserver.store import embedded
from roomserver.store.embedded import (
    EmbeddedError,
    EmbeddedPostgres,
    copy_programs,
    find_binaries,
    programs_in,
)
from support.postgres import open_directory

TIMEOUT_S = 60.0
# A server with nothing but its database, which it is killed with. Its log goes to the standard
# output, from other threads, and would get between the words of a line that we look for there.
OWNER = """
import sys, time
from pathlib import Path
from roomserver.store.embedded import EmbeddedPostgres
database = EmbeddedPostgres(Path(sys.argv[1]))
database.start()
print("pid", database.pid, file=sys.stderr)
time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path / "data"


@pytest.fixture
def database(directory: Path) -> Iterator[EmbeddedPostgres]:
    database = EmbeddedPostgres(directory)
    database.start()
    try:
        yield database
    finally:
        database.stop()


async def connect(database: EmbeddedPostgres) -> asyncpg.Connection[asyncpg.Record]:
    """Waits, while it is being started again."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                return await asyncpg.connect(**database.connection)
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.02)


async def execute(database: EmbeddedPostgres, statement: str) -> None:
    connection = await connect(database)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def count(database: EmbeddedPostgres) -> int:
    connection = await connect(database)
    try:
        rows: int = await connection.fetchval("SELECT count(*) FROM kept")
        return rows
    finally:
        await connection.close()


def exists(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + TIMEOUT_S
    while exists(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.02)


async def test_what_was_written_is_there_after_a_restart(directory: Path) -> None:
    for expected in (1, 2):
        database = EmbeddedPostgres(directory)
        database.start()
        try:
            await execute(database, "CREATE TABLE IF NOT EXISTS kept (n int)")
            await execute(database, "INSERT INTO kept VALUES (1)")
            assert await count(database) == expected
        finally:
            database.stop()


async def test_the_server_is_no_superuser_and_nobody_else_gets_in(
    database: EmbeddedPostgres, directory: Path
) -> None:
    connection = await connect(database)
    assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = user") is False
    assert await connection.fetchval("SHOW data_checksums") == "on"
    assert await connection.fetchval("SHOW listen_addresses") == ""
    await connection.close()
    for name in ("roomserver", "postgres"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(**(database.connection | {"user": name, "password": "guess"}))
    assert (directory / "postgres.password").stat().st_mode & 0o777 == 0o600
    assert (directory / "postgres" / "data").stat().st_mode & 0o777 == 0o700


async def test_it_is_started_again_when_it_was_killed(database: EmbeddedPostgres) -> None:
    await execute(database, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    killed = database.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_until_gone(killed)
    assert await count(database) == 1
    assert database.pid != killed


async def test_it_goes_when_its_server_is_killed_and_nothing_is_lost(directory: Path) -> None:
    for expected in (0, 1):
        owner = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here
            [sys.executable, "-c", OWNER, str(directory)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert owner.stderr is not None
        with owner.stderr:
            pid = next(int(line.split()[1]) for line in owner.stderr if line.startswith("pid "))
        database = EmbeddedPostgres(directory)  # for its address: it is another's
        await execute(database, "CREATE TABLE IF NOT EXISTS kept (n int)")
        assert await count(database) == expected
        await execute(database, "INSERT INTO kept VALUES (1)")
        owner.kill()
        owner.wait(TIMEOUT_S)
        if expected == 0:
            wait_until_gone(pid)  # the other time the next server finds it still there
    last = EmbeddedPostgres(directory)
    last.start()
    try:
        assert await count(last) == 2
    finally:
        last.stop()


def test_a_second_server_is_refused(database: EmbeddedPostgres, directory: Path) -> None:
    with pytest.raises(EmbeddedError, match="in use by another server"):
        EmbeddedPostgres(directory).start()
    assert database.pid is not None
    assert exists(database.pid)


def test_data_of_another_major_version_are_refused(directory: Path) -> None:
    database = EmbeddedPostgres(directory)
    database.start()
    database.stop()
    version = directory / "postgres" / "data" / "PG_VERSION"
    version.write_text("99\n")
    with pytest.raises(EmbeddedError, match=r"of PostgreSQL 99, but here is .*restore a backup"):
        database.start()


def test_the_older_programs_serve_older_data(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = find_binaries()
    others = [path for path in embedded._candidates() if path != newest]
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_candidates", lambda: others)
        database = EmbeddedPostgres(directory)
        database.start()
        database.stop()
    database = EmbeddedPostgres(directory)
    database.start()
    database.stop()
    assert embedded._major_of(database._binaries) != embedded._major_of(newest)


def test_what_keeps_it_from_starting_is_told(directory: Path) -> None:
    database = EmbeddedPostgres(directory)
    database.start()
    database.stop()
    (directory / "postgres" / "data" / "pg_hba.conf").write_text("nonsense\n")
    with pytest.raises(EmbeddedError, match=r"did not start(.|\n)*pg_hba.conf"):
        database.start()
    shutil.rmtree(directory / "postgres" / "data")
    database.start()  # and nothing of the failure is in the way
    database.stop()


def test_a_long_path_does_not_matter(directory: Path) -> None:
    database = EmbeddedPostgres(directory / ("long" * 30))
    database.start()
    asyncio.run(execute(database, "SELECT 1"))
    database.stop()
    assert not Path(database.connection["host"]).exists()


def test_programs_that_its_account_cannot_get_to_do_not_matter(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory.with_name("closed")  # as an environment in root's home is
    copy_programs(find_binaries(), closed)
    closed.chmod(0o700)
    programs = programs_in(closed, find_binaries())
    monkeypatch.setattr(embedded, "_candidates", lambda: [programs])
    for _ in range(2):
        database = EmbeddedPostgres(directory)
        database.start()
        asyncio.run(execute(database, "SELECT 1"))
        database.stop()


# Becomes an ordinary account and serves the directory's database once.
AS_NOBODY = """
import encodings.ascii, os, pwd, sys
from pathlib import Path
from roomserver.store import embedded
if os.geteuid() == 0:
    account = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
# The one that runs here may be out of this account's reach, in somebody's home.
pythons = (os.path.realpath(sys.executable), "/usr/bin/python3")
sys.executable = next(path for path in pythons if os.access(path, os.X_OK))
embedded._candidates = lambda: [Path(sys.argv[2])]
database = embedded.EmbeddedPostgres(Path(sys.argv[1]))
database.start()
database.stop()
"""


def test_an_ordinary_user_and_root_serve_the_same_database() -> None:
    with open_directory() as directory:
        copy_programs(find_binaries(), directory / "programs")
        programs = programs_in(directory / "programs", find_binaries())
        home = directory / "home"
        home.mkdir()
        if os.geteuid() == 0:
            os.chown(home, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)

        def as_nobody() -> None:
            arguments = [sys.executable, "-c", AS_NOBODY, str(home / "data"), str(programs)]
            done = subprocess.run(
                arguments, check=False, capture_output=True, text=True, timeout=TIMEOUT_S
            )
            assert done.returncode == 0, done.stderr

        as_nobody()
        owner = (home / "data" / "postgres").stat().st_uid
        database = EmbeddedPostgres(home / "data")  # as whoever runs the tests: root, in CI
        database.start()
        asyncio.run(execute(database, "CREATE TABLE kept (n int)"))
        database.stop()
        for path in (home / "data" / "postgres").rglob("*"):
            assert path.stat().st_uid == owner, path
        as_nobody()
