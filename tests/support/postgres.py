"""PostgreSQL to test with: private clusters of several versions, with and without a pooler.

Data directories are such that the account PostgreSQL runs as can work in them, root or not.
"""

from __future__ import annotations

import contextlib
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
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from roomserver.store.database import Database
from roomserver.store.embedded import EmbeddedPostgres

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
    """A directory whose parents are open to everybody, unlike pytest's own; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


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


@contextmanager
def postgres(major: int | None = None) -> Iterator[EmbeddedPostgres]:
    """A new cluster, of this version if one is named."""
    with open_directory() as directory:
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
