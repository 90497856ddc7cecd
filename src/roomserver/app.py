"""The composition root: what a server is made of, in the order it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import os
import resource
import shlex
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvloop
from aiohttp import web

from roomserver.auth.accounts import Accounts
from roomserver.auth.passwords import PasswordPool, RoomPasswords
from roomserver.auth.secret import SigningKeys, prepare_data_dir
from roomserver.auth.tokens import Tokens
from roomserver.config import ConfigError, Settings
from roomserver.edge.addresses import Asker, ClientAddresses
from roomserver.edge.application import private_application, public_application
from roomserver.edge.entrance import Entrance
from roomserver.edge.handover import HandOver
from roomserver.edge.http import Answerer, HttpConnection, Opener, connection_factory
from roomserver.edge.limits import Limits
from roomserver.edge.origins import Origins
from roomserver.edge.self_signed import SelfSigned, own_addresses, own_names, self_signed
from roomserver.edge.services import Services
from roomserver.edge.shared_limits import open_limit_storage
from roomserver.edge.tls import (
    BACKLOG,
    COMFORTABLE_CONNECTIONS,
    MEASURED_LIMIT,
    Certificate,
    TlsBridge,
)
from roomserver.logs import configure_logging
from roomserver.metrics import Metrics
from roomserver.notify import told_to_service_manager
from roomserver.protocol.client import MAX_INTERVAL_MS
from roomserver.rooms.connections import Connections
from roomserver.rooms.control import RoomControl
from roomserver.rooms.invites import Invites
from roomserver.rooms.media import Media
from roomserver.rooms.moderation import Moderation
from roomserver.rooms.owners import DisabledOwners
from roomserver.rooms.places import Places
from roomserver.rooms.presets import Presets
from roomserver.rooms.registry import Rooms
from roomserver.store.database import DatabaseAwayError
from roomserver.store.durable import DurableRoomStore
from roomserver.store.interfaces import AccountStore
from roomserver.store.stores import open_stores

# Of the time to shut down in: what requests under way, and what TLS still has to send, may take.
HTTP_SHARE = 0.2
ADMIN_SHARE = 0.05
TLS_SHARE = 0.2
# For the database, files, and those who still speak HTTP.
RESERVED_DESCRIPTORS = 200
DESCRIPTORS_WITH_TLS = 3  # the client's, and the two ends between TLS and the relay
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, not bound

log = structlog.stdlib.get_logger("roomserver")


class Server:
    """A server that can be started and stopped inside any event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.urls: list[str] = []
        self.admin_urls: list[str] = []  # none: those are not apart
        self._stack = AsyncExitStack()
        self._bridge: TlsBridge | None = None
        self._reloads: list[Callable[[], object]] = []

    async def start(self) -> None:
        """Starts everything; on an error all that was started is stopped again.

        Read downwards this is the order of the start, read upwards that of the stop: no new
        connections, 1001 to everyone, the rest of HTTP and TLS, then what they stood on.

        Raises ConfigError when a setting turns out to be wrong.
        """
        settings = self.settings
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            # What is kept
            prepare_data_dir(settings.data_dir)
            signing = SigningKeys(
                settings.data_dir,
                given=settings.secret.get_secret_value() if settings.secret else None,
                old=[old.get_secret_value() for old in settings.old_secrets],
                keep_s=settings.longest_token_s,
            )
            tokens = Tokens(
                signing.keys,
                access_s=settings.access_token_s,
                room_s=settings.room_token_s,
            )
            certificate = None
            own = self._own_certificate() if settings.tls_self_signed else None
            chain = own.certificate if own is not None else settings.tls_cert
            key = own.key if own is not None else settings.tls_key
            if chain is not None and key is not None:
                certificate = Certificate(chain, key)
                self._reloads.append(certificate.reload)
            stores = await stack.enter_async_context(open_stores(settings, url=settings.public_url))

            # Who may come in
            account_pool = self._password_pool("accounts")
            stack.callback(account_pool.close)
            room_pool = self._password_pool("rooms")
            stack.callback(room_pool.close)
            accounts = Accounts(
                stores.accounts, account_pool, tokens, refresh_s=settings.refresh_token_s
            )
            room_passwords = RoomPasswords(room_pool)

            # Rooms and the relay
            media = Media(settings)
            rooms = Rooms(
                media=media,
                store=stores.rooms,
                passwords=room_passwords,
                timers=loop,
                grace_s=settings.grace_s,
                max_listeners=settings.max_room_listeners,
            )
            room_control = RoomControl(
                rooms=rooms,
                store=stores.rooms,
                media=media,
                tokens=tokens,
                passwords=room_passwords,
            )
            moderation = Moderation(media=media, control=room_control)
            connections = Connections(
                media=media,
                rooms=rooms,
                store=stores.rooms,
                tokens=tokens,
                presets=Presets(stores.presets, media),
                timers=loop,
                places=Places(
                    max_connections=most_connections(settings, tls=certificate is not None),
                    max_unregistered=settings.max_unregistered_per_address,
                    max_per_participant=settings.max_connections_per_participant,
                ),
                max_interval_ms=min(settings.max_lag_ms, MAX_INTERVAL_MS),
                counters_interval_s=settings.counters_interval_s,
            )
            owners = DisabledOwners(rooms, room_control, stores.accounts.disabled_among)

            metrics = Metrics(
                media=media,
                rooms=rooms,
                connections=connections,
                store=stores.rooms,
                pools=(account_pool, room_pool),
                most_rooms=settings.metrics_rooms,
            )

            # HTTP
            limit_storage = await stack.enter_async_context(
                open_limit_storage(settings.limits_url.get_secret_value())
            )
            token = settings.metrics_token
            services = Services(
                accounts=accounts,
                registration=settings.registration,
                owners=owners,
                room_passwords=room_passwords,
                tokens=tokens,
                rooms=rooms,
                room_control=room_control,
                moderation=moderation,
                invites=Invites(stores.invites, tokens),
                public_url=settings.public_url,
                room_directory=stores.directory,
                reports=stores.reports,
                connections=connections,
                addresses=ClientAddresses(settings.trusted_proxies, self._tls_peer),
                limits=Limits(settings, limit_storage),
                origins=Origins(settings.allowed_origins),
                metrics=metrics,
                metrics_token=token.get_secret_value() if token is not None else None,
            )
            public = public_application(
                services,
                max_body_bytes=settings.max_body_bytes,
                with_private=settings.admin_port is None,
            )
            entrance = Entrance(services, max_body_bytes=settings.max_body_bytes)
            make_connection = await self._connections_of(
                public, HTTP_SHARE, stack, HandOver(services).open, entrance.answer
            )
            private = private_application(services, max_body_bytes=settings.max_body_bytes)
            make_admin_connection = await self._connections_of(private, ADMIN_SHARE, stack)
            if certificate is not None:
                self._bridge = TlsBridge(
                    certificate, make_connection, handshake_timeout_s=settings.request_timeout_s
                )
                stack.push_async_callback(self._bridge.close, settings.shutdown_s * TLS_SHARE)

            # The relay runs
            media.start(connections)
            relay_share = settings.shutdown_s * (1 - HTTP_SHARE - ADMIN_SHARE - TLS_SHARE) / 2
            stack.push_async_callback(media.stop, relay_share)
            await rooms.restore()
            if isinstance(stores.rooms, DurableRoomStore):
                stores.rooms.serve(rooms)
            stack.callback(rooms.stop)
            watching = asyncio.create_task(owners.watch())
            stack.callback(watching.cancel)
            self._reloads.append(signing.reload)
            signing.on_change(tokens.use)
            stack.callback(asyncio.create_task(signing.watch()).cancel)
            connections.start()
            stack.callback(connections.stop)

            # And lets people in
            await self._listen_for_admins(make_admin_connection, stack)
            await self._listen(make_connection, stack)
            await self._look_for_accounts(stores.accounts, new_key=signing.made)
            self._stack = stack.pop_all()
        if own is not None:
            log.info(
                "self_signed_certificate",
                fingerprint=own.fingerprint,
                open=self._addresses_to_open(),
                hint="browsers warn about it once; it is this server if they show this fingerprint",
            )
        log.info(
            "listening",
            urls=self.urls,
            admin_urls=self.admin_urls,
            data_dir=str(settings.data_dir),
        )

    async def stop(self) -> None:
        """Stops everything; nothing is left."""
        await self._stack.aclose()

    def reload(self) -> None:
        """Takes the certificate and the keys of tokens again."""
        for reload in self._reloads:
            reload()

    async def _look_for_accounts(self, accounts: AccountStore, *, new_key: bool) -> None:
        with contextlib.suppress(DatabaseAwayError):
            count = await accounts.count_accounts()
            if new_key and count:
                log.warning(
                    "new_signing_key_for_a_used_database",
                    accounts=count,
                    data_dir=str(self.settings.data_dir),
                    hint="tokens given out before are worthless, and other servers on this database"
                    " take none of ours: is this the right data_dir? Else give all the same secret",
                )
            if count == 0:
                log.warning("no_accounts", hint=_how_to_add_a_user(self.settings))

    def _own_certificate(self) -> SelfSigned:
        settings = self.settings
        names = {*own_names(), *own_addresses(), "127.0.0.1", "::1"}
        names |= {settings.host, urlsplit(settings.public_url).hostname or "localhost"}
        return self_signed(settings.data_dir / "tls", names - EVERYWHERE)

    def _addresses_to_open(self) -> list[str]:
        """What people type: not that the server listens everywhere, but where that is."""
        if self.settings.host not in EVERYWHERE:
            return self.urls
        ports = {urlsplit(url).port for url in self.urls}
        hosts = [f"[{host}]" if ":" in host else host for host in own_addresses()]
        return [f"https://{host}:{port}" for host in hosts for port in sorted(filter(None, ports))]

    def _password_pool(self, name: str) -> PasswordPool:
        return PasswordPool(
            name,
            rounds=self.settings.bcrypt_rounds,
            threads=self.settings.password_threads,
            queue=self.settings.password_queue,
        )

    def _tls_peer(self, request: Asker) -> str | None:
        return self._bridge.peer_of(request) if self._bridge is not None else None

    async def _connections_of(
        self,
        app: web.Application,
        share: float,
        stack: AsyncExitStack,
        opener: Opener | None = None,
        answerer: Answerer | None = None,
    ) -> Callable[[], HttpConnection]:
        """Runs the application; what makes its connections."""
        settings = self.settings
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=settings.shutdown_s * share,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        return connection_factory(
            runner.server,
            timeout_s=settings.request_timeout_s,
            max_head_bytes=settings.max_head_bytes,
            opener=opener,
            answerer=answerer,
        )

    async def _listen_for_admins(
        self, make_connection: Callable[[], HttpConnection], stack: AsyncExitStack
    ) -> None:
        host, port = self.settings.admin_host, self.settings.admin_port
        if port is None:
            return
        try:
            server = await asyncio.get_running_loop().create_server(make_connection, host, port)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from None
        stack.callback(server.close)
        self.admin_urls = [_url("http", sock.getsockname()) for sock in server.sockets]

    async def _listen(
        self, make_connection: Callable[[], HttpConnection], stack: AsyncExitStack
    ) -> None:
        settings = self.settings
        unix = settings.unix_socket
        try:
            if unix is not None:
                stack.callback(os.close, _lock(unix))
                if _is_served(unix):
                    raise BlockingIOError
            if self._bridge is not None:
                sockets = await self._bridge.start(
                    host=settings.host, port=settings.port, unix_socket=unix
                )
                stack.callback(self._bridge.stop_listening)
                addresses = [sock.getsockname() for sock in sockets]
                log.info(
                    "tls_in_process",
                    comfortable=COMFORTABLE_CONNECTIONS,
                    limit=MEASURED_LIMIT,
                    hint="put a proxy in front for more listeners than is comfortable",
                )
            else:
                loop = asyncio.get_running_loop()
                listening = (
                    loop.create_unix_server(make_connection, str(unix), backlog=BACKLOG)
                    if unix is not None
                    else loop.create_server(
                        make_connection, settings.host, settings.port, backlog=BACKLOG
                    )
                )
                server = await listening
                stack.callback(server.close)
                addresses = [sock.getsockname() for sock in server.sockets]
            if unix is not None:
                stack.callback(_unlink, unix, _identity(unix))
                unix.chmod(int(settings.unix_socket_mode, 8))
        except BlockingIOError:
            raise ConfigError(
                f"cannot listen on {unix}: another server is listening there"
            ) from None
        except OSError as error:
            where = str(unix) if unix is not None else f"{settings.host}:{settings.port}"
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(f"cannot listen on {where}: {reason}") from None
        scheme = "https" if self._bridge is not None else "http"
        self.urls = [_url(scheme, address) for address in addresses]


def _how_to_add_a_user(settings: Settings) -> str:
    command = f"roomserver user add EMAIL --data-dir {shlex.quote(str(settings.data_dir))}"
    if settings.has_private_database:
        return command
    if settings.in_memory:
        return f"{command} --database-url none"
    # Which has a password in it.
    return f"{command}, with ROOMSERVER_DATABASE_URL or --config as for this server"


def _lock(path: Path) -> int:
    """Takes the lock of this Unix socket: a descriptor; closing it, or dying, gives it back.

    Between looking whether a socket is served and taking its place another server could do the
    same. The lock's file stays: one who removed it would let two have a lock of that name.

    Raises BlockingIOError when another server has it, and OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_served(path: Path) -> bool:
    """Whether somebody listens on this Unix socket. One that was left behind can be replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return True  # so busy that its queue is full
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _unlink(path: Path, ours: tuple[int, int]) -> None:
    """Removes our socket, but not one that somebody has put in its place."""
    with contextlib.suppress(FileNotFoundError):
        if _identity(path) == ours:
            path.unlink()


def _url(scheme: str, address: Any) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{scheme}://{host}:{address[1]}"
    return f"{scheme}+unix://{address}"


def run(settings: Settings) -> int:
    """Runs a server until SIGTERM or SIGINT; returns the exit code of the process."""
    configure_logging(settings.log_format, settings.log_level)
    faulthandler.enable()  # an end by a signal of ours or the kernel's says where Python was
    _raise_descriptor_limit()
    return uvloop.run(serve(settings))


async def serve(settings: Settings) -> int:
    """Runs a server in this loop until SIGTERM or SIGINT; SIGHUP takes the certificate again."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_error)
    server = Server(settings)
    stopping = asyncio.Event()
    starting = asyncio.create_task(server.start())

    def stop() -> None:
        stopping.set()
        starting.cancel()  # which may wait for a database for minutes
        # Whoever asks twice does not want to wait.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    try:
        try:
            await starting
        except asyncio.CancelledError:
            if not stopping.is_set():
                raise
        else:
            with told_to_service_manager():
                await stopping.wait()
        log.info("stopping")
    finally:
        await server.stop()
        loop.remove_signal_handler(signal.SIGHUP)
    log.info("stopped")
    return 0


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("loop_error", message=context.get("message"), exc_info=error)


def most_connections(settings: Settings, *, tls: bool) -> int:
    """How many WebSockets there may be: as many as descriptors are left for, unless told."""
    if settings.max_connections:
        return settings.max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 0
    left = max(soft - RESERVED_DESCRIPTORS, soft // 2)
    return left // (DESCRIPTORS_WITH_TLS if tls else 1)


def _raise_descriptor_limit() -> None:
    """A listener is a descriptor; the soft limit of 1,024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
