"""The server as a service: ended while it still starts, and what it tells who runs it."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from uuid import uuid4

import pytest

from roomserver.store.postmaster import in_use, read_postmaster
from support.postgres import open_directory, put_new_cluster
from support.server import ServerProcess

TIMEOUT_S = 30.0


def started(server: ServerProcess) -> bool:
    return "listening" in {event["event"] for event in server.events}


def test_a_start_that_waits_for_a_database_that_says_nothing_can_be_ended(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(TIMEOUT_S)
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing"
        with ServerProcess.start(
            tmp_path, env={"ROOMSERVER_DATABASE_URL": url}, wait=False
        ) as server:
            asked, _ = silent.accept()
            server.signal(signal.SIGTERM)
        asked.close()
        assert not started(server)


def test_a_start_that_waits_for_its_own_database_can_be_ended() -> None:
    with open_directory() as directory:
        put_new_cluster(directory)
        cluster = directory / "postgres" / "data"
        # PostgreSQL waits for what an archive has, as long as it would after a bad crash.
        (cluster / "standby.signal").touch()
        with (cluster / "postgresql.conf").open("a") as file:
            file.write("restore_command = 'sleep 600'\n")
        variables = {"ROOMSERVER_DATABASE_URL": "embedded"}
        with ServerProcess.start(directory, env=variables, wait=False) as server:
            end = time.monotonic() + TIMEOUT_S
            while read_postmaster(cluster) is None:
                assert time.monotonic() < end, server.output()
                time.sleep(0.02)
            server.signal(signal.SIGTERM)
        assert not started(server)
        assert read_postmaster(cluster) is None
        assert not in_use(cluster)


def test_a_start_that_makes_its_database_can_be_ended() -> None:
    with open_directory() as directory:
        variables = {"ROOMSERVER_DATABASE_URL": "embedded"}
        with ServerProcess.start(directory, env=variables, from_nothing=True, wait=False) as server:
            server.wait_for_event("postgres_initialising")
            server.signal(signal.SIGTERM)
        assert not started(server)
        with ServerProcess.start(directory, env=variables):  # nothing is in the way of the next
            pass


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a service manager's socket, as it stands in the environment."""
    return str(tmp_path / "notify") if request.param == "file" else f"@roomserver-{uuid4()}"


@pytest.mark.parametrize("watched", [True, False])
def test_the_service_manager_is_told(tmp_path: Path, address: str, watched: bool) -> None:
    variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "500000"}
    if not watched:
        variables["WATCHDOG_PID"] = "1"  # the watchdog is another process's
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        manager.settimeout(TIMEOUT_S)
        with ServerProcess.start(tmp_path / "data", env=variables, wait=False) as server:
            assert manager.recv(100) == b"READY=1"
            server.wait_for_event("listening")
            if watched:
                assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            server.signal(signal.SIGTERM)
            said = [manager.recv(100)]
            while said[-1] == b"WATCHDOG=1":
                said.append(manager.recv(100))
            assert said[-1] == b"STOPPING=1"
            assert watched or len(said) == 1


def test_a_service_manager_that_is_gone_does_not_matter(tmp_path: Path) -> None:
    variables = {"NOTIFY_SOCKET": str(tmp_path / "nowhere"), "WATCHDOG_USEC": "1000000"}
    with ServerProcess.start(tmp_path / "data", env=variables) as server:
        server.wait_for_event("service_manager_not_told")
