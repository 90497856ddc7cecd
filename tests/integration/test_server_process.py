"""The server as a process: how it starts, how it ends, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import signal
import socket
import ssl
import stat
import struct
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import bcrypt
import pytest
from aiohttp.client_proto import ResponseHandler
from typer.testing import CliRunner, Result

from roomserver.app import Server
from roomserver.cli import app
from roomserver.config import ConfigError, Settings, load_settings
from roomserver.store.accounts import AccountFile
from support.api_client import Api, noise
from support.certificates import write_certificate
from support.server import PASSWORD, ServerProcess, command, environment

RATE = 48000


def run(*arguments: str, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        command(*arguments),
        input=text,
        text=True,
        capture_output=True,
        env=environment(**env),
        timeout=30,
        check=False,
    )


def tls(directory: Path) -> tuple[tuple[str, ...], ssl.SSLContext]:
    """Options of a server with a certificate of its own, and what its clients need."""
    chain, key = write_certificate(directory, "server")
    options = ("--tls-cert", str(chain), "--tls-key", str(key))
    return options, ssl.create_default_context(cafile=str(chain))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_sigterm_says_1001_to_everyone_and_ends_in_time(tmp_path: Path, secure: bool) -> None:
    options, context = tls(tmp_path) if secure else ((), True)
    with ServerProcess.start(tmp_path / "data", "--shutdown-s", "5", *options) as server:
        server.add_user()
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session, context)
            room = await api.create_room((await api.login())["accessToken"])
            async with (
                api.source(room) as source,
                api.listener(room) as listener,
                api.listener(room) as stalled,
                api.socket() as unregistered,
            ):
                playing = asyncio.create_task(source.play(noise(2, RATE * 30), rate=RATE))
                await listener.frames(5)
                transport = stalled.ws._response.connection.transport  # type: ignore[union-attr]
                assert isinstance(transport, asyncio.Transport)
                transport.pause_reading()
                asked = time.monotonic()
                server.signal(signal.SIGTERM)
                assert (await listener.closed()).code == 1001
                assert (await unregistered.closed()).code == 1001
                playing.cancel()
                assert (await source.closed()).code == 1001
                code = await asyncio.to_thread(server.process.wait, 10)
                assert code == 0
                assert time.monotonic() - asked < 5
                transport.abort()


async def test_a_request_that_never_ends_does_not_hold_the_shutdown_up(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path, "--shutdown-s", "3") as server:
        address = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(
            b"POST /auth/broadcaster HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        await writer.drain()
        idle_reader, idle_writer = await asyncio.open_connection(address.hostname, address.port)
        asked = time.monotonic()
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 10) == 0
        assert time.monotonic() - asked < 3
        writer.close()
        idle_writer.close()
        assert not await idle_reader.read()
        with contextlib.suppress(ConnectionError):
            await reader.read()


async def test_a_second_server_in_the_same_place_says_why_it_cannot_start(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path) as server:
        port = server.url.rsplit(":", 1)[1]
        result = run("serve", "--port", port, "--data-dir", str(tmp_path / "other"))
        assert result.returncode == 2
        assert f"error: cannot listen on 127.0.0.1:{port}" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"data_dir": "{tmp}/file"}, "data directory"),
        ({"data_dir": "{tmp}/bad"}, "accounts in"),
        ({"data_dir": "{tmp}/binary"}, "signing key .* is not text"),
        ({"tls_cert": "nowhere", "tls_key": "nowhere"}, "certificate nowhere"),
        ({"unix_socket": "{tmp}/no/where.sock"}, "cannot listen on"),
    ],
)
async def test_a_start_that_cannot_be_says_why(
    tmp_path: Path, wish: dict[str, str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "accounts.db").write_bytes(b"no database" * 1000)
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "secret").write_bytes(bytes(range(256)))
    wish = {key: value.format(tmp=tmp_path) for key, value in wish.items()}
    settings = load_settings(None, **{"port": "0", "data_dir": str(tmp_path / "data")} | wish)
    with pytest.raises(ConfigError, match=message):
        await Server(settings).start()


async def test_accounts_are_added_while_the_server_runs(tmp_path: Path) -> None:
    add = ("user", "add", "Ann@Example.org", "--password-stdin", "--data-dir", str(tmp_path))
    with ServerProcess.start(tmp_path) as server:
        hint = server.wait_for_event("no_accounts")
        assert "roomserver user add" in hint["hint"]
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            body = {"email": "ann@example.org", "password": PASSWORD}
            assert (await api.call("POST", "/auth/broadcaster", json=body)).status == 401
            result = await asyncio.to_thread(run, *add, text=PASSWORD + "\n")
            assert result.returncode == 0, result.stderr
            assert PASSWORD not in result.stderr + result.stdout
            await api.login("ann@example.org")


@pytest.mark.parametrize(
    ("email", "text", "message", "code"),
    [
        ("b@c", "", "empty", 2),
        ("b@c", "x" * 73, "72 bytes", 2),
        ("nobody", "a secret", "not an e-mail address", 2),
        ("Ann@example.org", "a secret", "already", 1),
    ],
)
def test_an_account_that_cannot_be_is_refused(
    tmp_path: Path, email: str, text: str, message: str, code: int
) -> None:
    def add(email: str, text: str) -> Result:
        arguments = ["user", "add", email, "--password-stdin", "--data-dir", str(tmp_path)]
        env = {"ROOMSERVER_BCRYPT_ROUNDS": "4", "PORT": None}
        return CliRunner().invoke(app, arguments, input=text + "\n", env=env)

    assert add("ann@example.org", "a secret").exit_code == 0
    result = add(email, text)
    assert result.exit_code == code
    assert message in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize(("options", "role"), [((), "user"), (("--admin",), "admin")])
def test_an_account_has_the_role_that_it_was_added_with(
    tmp_path: Path, options: tuple[str, ...], role: str
) -> None:
    arguments = ["user", "add", "a@b", "--password-stdin", "--data-dir", str(tmp_path), *options]
    env = {"ROOMSERVER_BCRYPT_ROUNDS": "4", "PORT": None}
    result = CliRunner().invoke(app, arguments, input="a secret\n", env=env)
    assert result.exit_code == 0, result.output
    with AccountFile(tmp_path) as accounts:
        account = accounts.account_by_email("a@b")
    assert account is not None
    assert account.role == role


async def test_a_server_that_has_accounts_says_nothing_about_it(tmp_path: Path) -> None:
    with AccountFile(tmp_path) as accounts:
        accounts.add_account("a@b", b"hash", "user")
    with ServerProcess.start(tmp_path) as server:
        assert "no_accounts" not in {event["event"] for event in server.events}


class UnixConnector(aiohttp.UnixConnector):
    """aiohttp's own, which leaves TLS out."""

    def __init__(self, path: Path, context: ssl.SSLContext | bool) -> None:
        super().__init__(str(path))
        self._tls = context if isinstance(context, ssl.SSLContext) else None

    async def _create_connection(self, *request: object) -> ResponseHandler:
        name = "127.0.0.1" if self._tls is not None else None
        _, protocol = await self._loop.create_unix_connection(
            self._factory, self.path, ssl=self._tls, server_hostname=name
        )
        return protocol


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_unix_socket_serves_proxies(tmp_path: Path, secure: bool) -> None:
    path = tmp_path / "roomserver.sock"
    options, context = tls(tmp_path) if secure else ((), True)
    options += ("--unix-socket", str(path), "--log-level", "debug")
    scheme = "https" if secure else "http"
    with ServerProcess.start(tmp_path / "data", *options) as server:
        server.add_user()
        assert server.url == f"{scheme}+unix://{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with aiohttp.ClientSession(connector=UnixConnector(path, context)) as session:
            api = Api(f"{scheme}://127.0.0.1", session, context)
            room = await api.create_room((await api.login())["accessToken"])
            token = await api.join(room.code)
            async with api.source(room) as source:
                headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
                async with api.socket(headers=headers) as listener:
                    await listener.say("registerListener", roomId=room.id, roomToken=token)
                    playing = asyncio.create_task(source.play(noise(2, RATE * 5), rate=RATE))
                    await listener.frames(10)
                    playing.cancel()
        joined = server.wait_for_event("room_joined", where=lambda e: e["role"] == "listener")
        assert joined["address"] == "203.0.113.7"
    assert not path.exists()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_one_server_does_not_take_the_unix_socket_of_another(
    tmp_path: Path, secure: bool
) -> None:
    options, _ = tls(tmp_path) if secure else ((), None)
    path = tmp_path / "roomserver.sock"
    options += ("--unix-socket", str(path), "--unix-socket-mode", "600")
    with ServerProcess.start(tmp_path / "data", *options):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        result = run("serve", *options, "--data-dir", str(tmp_path / "other"))
        assert result.returncode == 2
        assert f"cannot listen on {path}: another server is listening there" in result.stderr
        assert "Traceback" not in result.stderr
        assert path.is_socket()


def test_servers_that_start_at_once_do_not_share_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "roomserver.sock"
    lock = tmp_path / "roomserver.sock.lock"
    with lock.open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)  # as a server that has not bound its socket yet
        result = run("serve", "--unix-socket", str(path), "--data-dir", str(tmp_path / "data"))
        assert result.returncode == 2
        assert f"cannot listen on {path}: another server is listening there" in result.stderr
        assert "Traceback" not in result.stderr
        assert not path.exists()
    killed = ServerProcess.start(tmp_path / "data", "--unix-socket", str(path))
    killed.signal(signal.SIGKILL)
    assert killed.stop() == -signal.SIGKILL
    with (
        ServerProcess.start(tmp_path / "data", "--unix-socket", str(path)),  # the dead gave it back
        lock.open() as later,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(later, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_unix_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "roomserver.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with ServerProcess.start(tmp_path / "data", "--unix-socket", str(path)):
        pass
    assert not path.exists()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_server_removes_no_unix_socket_but_its_own(tmp_path: Path, secure: bool) -> None:
    options, _ = tls(tmp_path) if secure else ((), None)
    path = tmp_path / "roomserver.sock"
    options += ("--unix-socket", str(path))
    with ServerProcess.start(tmp_path / "data", *options), socket.socket(socket.AF_UNIX) as other:
        path.unlink()
        other.bind(str(path))
        ours = path.stat().st_ino
    assert path.stat().st_ino == ours


async def test_port_and_file_are_honoured(tmp_path: Path) -> None:
    config = tmp_path / "roomserver.toml"
    config.write_text('grace_s = 2.5\nlog_level = "debug"\n')
    with ServerProcess.start(
        tmp_path / "data", "--config", str(config), env={"PORT": "1", "ROOMSERVER_GRACE_S": "3"}
    ) as server:
        assert server.url.startswith("http://0.0.0.0:")


def resources() -> tuple[set[str], int, int]:
    """Descriptors other than those of the test's own machinery, and how many threads there are."""
    gc.collect()
    descriptors = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            descriptors.add(f"{link.name} {link.readlink()}")
    threads = len(list(Path("/proc/self/task").iterdir()))
    return descriptors, threads, threading.active_count()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_starting_and_stopping_in_one_process_leaves_nothing(
    tmp_path: Path, secure: bool
) -> None:
    options, context = tls(tmp_path) if secure else ((), True)
    settings = Settings(
        port=0,
        data_dir=tmp_path,
        bcrypt_rounds=4,
        shutdown_s=2,
        tls_cert=Path(options[1]) if secure else None,
        tls_key=Path(options[3]) if secure else None,
    )

    async def once() -> None:
        server = Server(settings)
        await server.start()
        async with aiohttp.ClientSession() as session:
            api = Api(server.urls[0], session, context)
            token = (await api.login())["accessToken"]
            room = await api.create_room(token)
            async with (
                api.listener(room) as listener,
                api.listener(room) as stalled,
                api.source(room) as source,
            ):
                transport = stalled.ws._response.connection.transport  # type: ignore[union-attr]
                assert isinstance(transport, asyncio.Transport)
                transport.pause_reading()
                await source.play(noise(2, RATE // 5), rate=RATE)
                asked = time.monotonic()
                await asyncio.gather(server.stop(), listener.closed(), source.closed())
                assert time.monotonic() - asked < settings.shutdown_s
                transport.abort()

    with AccountFile(tmp_path) as accounts:
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))
        accounts.add_account("engineer@example.org", hashed, "user")
    await once()
    await asyncio.to_thread(int)  # or the executor might begin a thread for the first time later
    before = resources()
    tasks = len(asyncio.all_tasks())
    for _ in range(3):
        await once()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == tasks
    after = resources()
    assert len(after[0]) == len(before[0]), after[0] ^ before[0]
    assert after[1:] == before[1:]


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roomserver.edge.requests.BODY_TIMEOUT_S", 0.1)
    server = Server(Settings(port=0, data_dir=tmp_path, bcrypt_rounds=4))
    await server.start()
    address = urlsplit(server.urls[0])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        b"POST /auth/room/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10\r\n\r\n{"
    )
    answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    writer.close()
    await server.stop()


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    tmp_path: Path, reset: bool
) -> None:
    with ServerProcess.start(tmp_path) as server:  # whose end fails if it logged one
        address = urlsplit(server.url)
        assert address.port is not None
        for _ in range(20):
            with socket.create_connection((address.hostname, address.port)) as client:
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.sendall(
                    b"POST /auth/room/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
                    b"\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n{"
                )
                assert client.recv(100).startswith(b"HTTP/1.1 100 ")  # its handler reads the body
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.0 200 ")


async def test_a_start_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    blocker = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = blocker.sockets[0].getsockname()[1]
    before = resources()
    for _ in range(3):
        server = Server(Settings(port=port, data_dir=tmp_path))
        with pytest.raises(ConfigError, match="cannot listen"):
            await server.start()
        await server.stop()
    after = resources()
    assert after[1:] == before[1:]
    assert len(after[0]) == len(before[0]), after[0] ^ before[0]
    blocker.close()


async def test_connections_that_come_and_go_leave_nothing(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path) as server:
        server.add_user()

        def descriptors() -> int:
            return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))

        connector = aiohttp.TCPConnector(force_close=True)  # none is kept for later
        async with aiohttp.ClientSession(connector=connector) as session:
            api = Api(server.url, session)
            room = await api.create_room((await api.login())["accessToken"])
            token = await api.join(room.code)

            async def once(*, politely: bool) -> None:
                async with api.socket() as socket:
                    await socket.say("registerListener", roomId=room.id, roomToken=token)
                    await socket.until("listenerRegistered")
                    if not politely:
                        connection = socket.ws._response.connection
                        assert connection is not None
                        assert connection.transport is not None
                        connection.transport.abort()

            await once(politely=True)
            before = descriptors()
            for _ in range(10):
                await asyncio.gather(*(once(politely=n % 2 == 0) for n in range(20)))
            health = await api.call("GET", "/health")
            for _ in range(100):
                if health.body["connections"] == 0 and descriptors() <= before:
                    break
                await asyncio.sleep(0.05)
                health = await api.call("GET", "/health")
            assert health.body["connections"] == 0
            assert descriptors() <= before
