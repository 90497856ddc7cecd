"""TLS in this process, for a few hundred listeners: a pump in front of the plain server.

The relay reads and writes sockets itself, and it speaks no TLS. So TLS ends here: every encrypted
connection gets a socket pair, whose far end is served like a connection that was accepted in the
clear (HTTP first, the hand-over to the relay as ever), and bytes are pumped between the two.
Python touches every byte on this way. Thousands of listeners belong behind a proxy.

Back-pressure passes through: each side stops reading while the other cannot write, so that the
relay sees a slow listener as slow, and what waits here is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import structlog

from roomserver.config import ConfigError
from roomserver.edge.addresses import Asker

# Above this a side stops the other from reading; some 1.3 s of 48 kHz stereo PCM16.
WRITE_BUFFER = 256 * 1024
BACKLOG = 1024
# A client that does not take the rest within this, once the relay has closed, is cut off.
CLOSE_TIMEOUT_S = 5.0
WATCH_INTERVAL_S = 2.0
# Listeners of 48 kHz stereo PCM16 (50 frames of 3.9 kB a second) that all got every frame, in the
# lowest of the ramps of `python -m benchmarks tls` whose results docs/benchmarks.md shows. With
# more the event loop's thread is busy all the time, and newcomers hardly get in.
MEASURED_LIMIT = 1237
# Until here it is busy about half of the time.
COMFORTABLE_CONNECTIONS = MEASURED_LIMIT // 3

log = structlog.stdlib.get_logger("roomserver.tls")

HandlerFactory = Callable[[], asyncio.Protocol]


class Certificate:
    """The certificate in use, reloadable: new connections get the new one, old ones keep theirs."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = self._load()
        self._stamp = self._stat()

    def reload(self) -> bool:
        """Takes the files again. A pair that cannot be used is logged and the old one stays."""
        stamp = self._stat()
        try:
            self._load(self.context)
        except (ConfigError, OSError, ssl.SSLError) as error:
            log.warning("certificate_not_reloaded", reason=str(error))
            return False
        self._stamp = stamp
        log.info("certificate_reloaded", file=str(self._files[0]))
        return True

    def reload_if_changed(self) -> None:
        """Takes the files again when they are others than those in use."""
        stamp = self._stat()
        # Both files have to be new and whole; until they are, every look tries again.
        if stamp != self._stamp and None not in stamp:
            self.reload()
            self._stamp = stamp

    def _load(self, into: ssl.SSLContext | None = None) -> ssl.SSLContext:
        """A context that presents the pair, new unless given. Raises ConfigError.

        Each file is read once, so that what was checked is what is used, whoever writes meanwhile.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            with _in_memory(self._files[0]) as chain, _in_memory(self._files[1]) as key:
                # A certificate without its key must not break a context in use: a new one is first.
                context.load_cert_chain(chain, key)
                if into is not None:
                    into.load_cert_chain(chain, key)
                    return into
        except (OSError, ssl.SSLError) as error:
            names = " and ".join(str(file) for file in self._files)
            raise ConfigError(f"certificate {names}: {error}") from None
        return context

    def _stat(self) -> tuple[tuple[int, int, int] | None, ...]:
        stamps: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                stat = file.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(stamps)


@contextlib.contextmanager
def _in_memory(file: Path) -> Iterator[str]:
    """The path of a copy that only this process sees; a key is written to no disk."""
    with os.fdopen(os.memfd_create(file.name), "wb") as copy:
        copy.write(file.read_bytes())
        copy.flush()
        yield f"/proc/self/fd/{copy.fileno()}"


class TlsBridge:
    """Listens with TLS and serves each connection through a socket pair.

    Args:
        certificate: What it presents.
        make_handler: Makes the protocol that serves a plain connection.
        handshake_timeout_s: Time in which the TLS handshake must be done.
    """

    def __init__(
        self,
        certificate: Certificate,
        make_handler: HandlerFactory,
        *,
        handshake_timeout_s: float,
    ) -> None:
        self.certificate = certificate
        self._handshake_timeout_s = handshake_timeout_s
        self._make_handler = make_handler
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()
        self._peers: dict[asyncio.BaseProtocol, str] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._warned = False

    async def start(
        self, *, host: str | None = None, port: int = 0, unix_socket: Path | None = None
    ) -> list[socket.socket]:
        """Listens; the sockets it listens on."""
        loop = asyncio.get_running_loop()
        if unix_socket is not None:
            server = await loop.create_unix_server(
                self._accept,
                str(unix_socket),
                ssl=self.certificate.context,
                ssl_handshake_timeout=self._handshake_timeout_s,
                backlog=BACKLOG,
            )
        else:
            server = await loop.create_server(
                self._accept,
                host,
                port,
                ssl=self.certificate.context,
                ssl_handshake_timeout=self._handshake_timeout_s,
                backlog=BACKLOG,
            )
        self._server = server
        self._look_at_files()
        return list(server.sockets)

    def stop_listening(self) -> None:
        """New connections are refused from now on."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._server is not None:
            self._server.close()

    async def close(self, timeout_s: float) -> None:
        """Waits until what was sent has gone out, but no longer than this; then cuts off."""
        self.stop_listening()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._clients:
                    await asyncio.wait([client.over for client in self._clients])
        for client in list(self._clients):
            client.abort()
        while self._clients:
            await asyncio.wait([client.over for client in self._clients])

    def peer_of(self, request: Asker) -> str | None:
        """The address of the client behind a request that came through here, else None."""
        return self._peers.get(request.protocol)

    def _accept(self) -> asyncio.Protocol:
        return _Client(self)

    def opened(self, client: _Client) -> None:
        """A handshake is done."""
        self._clients.add(client)
        if len(self._clients) > COMFORTABLE_CONNECTIONS and not self._warned:
            self._warned = True
            log.warning(
                "tls_many_connections", comfortable=COMFORTABLE_CONNECTIONS, limit=MEASURED_LIMIT
            )

    def over(self, client: _Client) -> None:
        """A connection is over on both sides."""
        self._clients.discard(client)

    def make_handler(self, peer: str | None) -> asyncio.Protocol:
        """The protocol for the far end of a pair; `peer` is the client's address, if it has one."""
        handler = self._make_handler()
        if peer is not None:
            self._peers[handler] = peer
        return _Handler(handler, lambda: self._peers.pop(handler, None))

    def _look_at_files(self) -> None:
        try:
            self.certificate.reload_if_changed()
        finally:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(WATCH_INTERVAL_S, self._look_at_files)


class _Side(asyncio.Protocol):
    """One side of a pump; what it reads, the other writes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def close(self) -> None:
        """Closes when all that was written has gone out."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Cuts off, at once."""
        if self.transport is not None:
            self.transport.abort()


class _Client(_Side):
    """The encrypted side: makes the pair, and is over when both sides are."""

    def __init__(self, bridge: TlsBridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._loop = asyncio.get_running_loop()
        self._inner = _Inner(self)
        self._joining: asyncio.Task[None] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._is_lost = False
        self.over: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._bridge.opened(self)
        # Nothing may be read before there is somebody to give it to.
        cast(asyncio.Transport, transport).pause_reading()
        self._joining = self._loop.create_task(self._join(transport))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
        self.other = None
        self._is_lost = True
        # A join under way is never cancelled: the loop would drop the far end without telling its
        # protocol, and aiohttp keep a handler that waits for good.
        if self._joining is None:
            self._end()

    def inner_lost(self) -> None:
        """The relay, or HTTP, has closed its side: the client gets the rest, if it takes it."""
        self.other = None
        if not self.over.done():
            self.close()
            self._cut = self._loop.call_later(CLOSE_TIMEOUT_S, self.abort)

    def _end(self) -> None:
        self._inner.close()  # the relay takes what was read, then sees the end
        self._bridge.over(self)
        self.over.set_result(None)

    async def _join(self, transport: asyncio.BaseTransport) -> None:
        try:
            if not self._is_lost:
                await self._make_pair(transport)
        finally:
            self._joining = None
            if self._is_lost:
                self._end()

    async def _make_pair(self, transport: asyncio.BaseTransport) -> None:
        name = transport.get_extra_info("peername")
        peer = name[0] if isinstance(name, tuple) else None
        try:
            ours, theirs = socket.socketpair()
            try:
                await self._loop.create_connection(lambda: self._inner, sock=ours)
                await self._loop.connect_accepted_socket(
                    lambda: self._bridge.make_handler(peer), theirs
                )
            except BaseException:
                self._inner.close()
                ours.close()
                theirs.close()
                raise
        except OSError as error:
            log.warning("tls_pair_failed", reason=str(error))
            self.abort()
            return
        if not transport.is_closing():
            self.other = self._inner
            cast(asyncio.Transport, transport).resume_reading()


class _Inner(_Side):
    """The plain side: our end of the pair."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self._client = client
        self.other = client

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.inner_lost()


class _Handler(asyncio.Protocol):
    """Passes everything on to the handler, and tells when the connection has left it."""

    def __init__(self, handler: asyncio.Protocol, left: Callable[[], object]) -> None:
        self._handler = handler
        self._left = left
        self.connection_made = handler.connection_made  # type: ignore[method-assign]
        self.data_received = handler.data_received  # type: ignore[method-assign]
        self.eof_received = handler.eof_received  # type: ignore[method-assign]
        self.pause_writing = handler.pause_writing  # type: ignore[method-assign]
        self.resume_writing = handler.resume_writing  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()
        self._handler.connection_lost(exc)
