"""PostgreSQL to test with: private clusters of several versions, with and without a pooler.

Data directories are such that the account PostgreSQL runs as can work in them, root or not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from roomserver.store import embedded
from roomserver.store.database import Database
from roomserver.store.embedded import EmbeddedPostgres, find_binaries

KEPT = Path(__file__).parents[2] / "build" / "postgres"
MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 2 << 30
START_TIMEOUT_S = 30.0
POOLER_PORT = 6432  # of its Unix socket; there is no other
# Every transaction may get another connection: whatever is left in one is missed in the next.
POOLER_SETTINGS = """\
[databases]
* = host={server}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {directory}
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = transaction
server_round_robin = 1
server_login_retry = 0.2
default_pool_size = 10
max_client_conn = 200
"""


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory whose parents are open to everybody, unlike pytest's own; removed afterwards.

    In memory, if there is enough of it and programs may be there: a cluster is a thousand files.
    """
    with tempfile.TemporaryDirectory(prefix="relay-", dir=MEMORY if _roomy() else "/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _roomy() -> bool:
    if not MEMORY.is_dir():
        return False
    about = os.statvfs(MEMORY)
    return about.f_bavail * about.f_frsize > ENOUGH_BYTES and not about.f_flag & os.ST_NOEXEC


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL, as a role that is no superuser but may make roles."""

    server: EmbeddedPostgres
    pooler: Path | None = None  # the directory of its socket

    @property
    def connection(self) -> dict[str, Any]:
        """How a test gets in, past the pooler: keyword arguments of asyncpg."""
        return self.server.connection

    @property
    def pid(self) -> int | None:
        """PostgreSQL's process."""
        return self.server.pid

    def signal_all(self, number: signal.Signals) -> None:
        """A signal to every process of it."""
        signal_all(Path(self.connection["host"]).parent / "data", number)

    def database(self) -> Database:
        """As a server would use it."""
        if self.pooler is None:
            return Database(self.connection)
        return Database(
            self.connection | {"host": str(self.pooler), "port": POOLER_PORT}, pooler="transaction"
        )

    def variables(self) -> dict[str, str]:
        """The environment of a server or command that uses this database, as `database` does."""
        if self.pooler is None:
            return {"ROOMSERVER_DATABASE_URL": url(self.connection)}
        address = url(self.connection | {"host": str(self.pooler), "port": POOLER_PORT})
        return {"ROOMSERVER_DATABASE_URL": address, "ROOMSERVER_DATABASE_POOLER": "transaction"}


def signal_all(directory: Path, number: signal.Signals) -> None:
    """A signal to every process of the database whose data are there: they work in it."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == directory:
                os.kill(int(process.name), number)


def url(connection: dict[str, Any]) -> str:
    """The address as one text."""
    query = {"host": connection["host"]}
    if "port" in connection:
        query["port"] = str(connection["port"])
    user, password = quote(connection["user"]), quote(connection["password"])
    return f"postgresql://{user}:{password}@/{connection['database']}?{urlencode(query)}"


def put_new_cluster(data_dir: Path, major: int | None = None) -> None:
    """Gives a data directory that has none a cluster as EmbeddedPostgres makes it, of this version
    if one is named, in a tenth of the time: it is a copy.

    It does not write through to the disk. What tests kill are processes, and what those have
    written the kernel keeps.
    """
    root = data_dir / "postgres"
    if root.exists():
        return
    template = _template(major)
    for folder in (data_dir, root):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        owner = (template / "data").stat()
        os.chown(root, owner.st_uid, owner.st_gid)
    subprocess.run(["cp", "-a", template / "data", root], check=True)
    subprocess.run(["cp", "-a", template / "postgres.password", data_dir], check=True)


@cache
def _template(major: int | None) -> Path:
    """A cluster to copy: made once for each PostgreSQL and each way of making it, and kept."""
    binaries = find_binaries(major)
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, check=True)
    key = hashlib.sha256(version.stdout + Path(embedded.__file__).read_bytes()).hexdigest()[:16]
    kept = KEPT / key
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock, open_directory() as directory:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if kept.exists():
            return kept
        server = EmbeddedPostgres(directory, major=major)
        server.start()
        server.stop()
        data = directory / "postgres" / "data"
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")
        unfinished = kept.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        subprocess.run(["cp", "-a", data, directory / "postgres.password", unfinished], check=True)
        unfinished.rename(kept)
    return kept


@contextmanager
def postgres(major: int | None = None) -> Iterator[EmbeddedPostgres]:
    """A new cluster, of this version if one is named."""
    with open_directory() as directory:
        put_new_cluster(directory, major)
        server = EmbeddedPostgres(directory, major=major)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def pgbouncer(server: EmbeddedPostgres) -> Iterator[Path]:
    """pgbouncer in transaction mode before a cluster; the directory of its Unix socket."""
    program = shutil.which("pgbouncer", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
    assert program is not None, "pgbouncer is not installed: apt-get install pgbouncer"
    connection = server.connection
    with open_directory() as directory:
        # It refuses root, as PostgreSQL does, and has to get to that one's socket.
        owner = Path(connection["host"]).stat()
        (directory / "users").write_text(f'"{connection["user"]}" "{connection["password"]}"\n')
        settings = directory / "pgbouncer.ini"
        settings.write_text(
            POOLER_SETTINGS.format(server=connection["host"], port=POOLER_PORT, directory=directory)
        )
        os.chown(directory, owner.st_uid, owner.st_gid)
        log = (directory / "log").open("w")
        process = subprocess.Popen(
            [program, settings],
            user=owner.st_uid if os.geteuid() == 0 else None,
            group=owner.st_gid if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            end = time.monotonic() + START_TIMEOUT_S
            while not _listens(directory / f".s.PGSQL.{POOLER_PORT}"):
                said = (directory / "log").read_text()
                assert process.poll() is None, f"pgbouncer did not start: {said}"
                assert time.monotonic() < end, f"pgbouncer does not listen: {said}"
                time.sleep(0.02)
            yield directory
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            log.close()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
