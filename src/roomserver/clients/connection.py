"""A client's way to the server: REST calls with aiohttp, and one WebSocket connection.

Everything raises `ClientError`s with texts for people. Objects belong to one event loop.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import aiohttp
import stamina
import stamina.instrumentation
from yarl import URL

from roomserver.clients.errors import (
    ClientError,
    RefusedError,
    UnreachableError,
    WireError,
    describe_close,
)
from roomserver.clients.wire import Frame, Levels, parse_server_message

#: A JSON text message.
Message: TypeAlias = dict[str, Any]

_HTTP_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
_ANSWER_TIMEOUT_S: Final = 15.0
_SILENCE_TIMEOUT_S: Final = 10.0  # a source hears its status every second, a listener its pongs
_MAX_MESSAGE_BYTES: Final = 64 << 20  # 64 channels of float at 96 kHz are 25 MB a second
_FIRST_RETRY_WITHIN_S: Final = 0.3
_MOST_MOVES: Final = 5  # from server to server, in
_MOVES_WITHIN_S: Final = 60.0
_GOODBYE_S: Final = 1.0  # for TLS: what comes beneath a closed WebSocket is the end of that


@dataclass(frozen=True, slots=True)
class RoomAccess:
    """What is needed to enter a room over WebSocket."""

    room_id: str
    room_token: str
    name: str = ""
    room_code: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """An account that is logged in."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)  # for one use


class RoomApi:
    """The REST side of a server.

    An async context manager; leaving it closes the HTTP session.

    Args:
        url: ``http://…`` or ``https://…``, with or without a path in front of the API.
        ca_file: PEM file of certificates to trust instead of the system's.

    Raises:
        ClientError: Another kind of URL, or an unreadable certificate file.
    """

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        self.url = self._home = _server_url(url)
        self.ca_file = ca_file
        self._moves: list[float] = []  # when
        self._ssl: ssl.SSLContext | bool = True
        if ca_file is not None:
            try:
                self._ssl = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise ClientError(f"{ca_file}: {error}") from error
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=_HTTP_TIMEOUT,
            headers={"User-Agent": "roomserver-client"},
            ws_response_class=_WebSocket,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def login(self, email: str, password: str) -> Session:
        """Log a broadcaster in."""
        return _session(
            await self._call("POST", "auth/broadcaster", {"email": email, "password": password})
        )

    async def refresh(self, refresh_token: str) -> Session:
        """Exchange a refresh token for the session that goes on."""
        return _session(await self._call("POST", "auth/refresh", {"refreshToken": refresh_token}))

    async def create_room(
        self,
        access_token: str,
        password: str | None,
        *,
        name: str | None = None,
        public: bool = False,
        permanent: bool = False,
    ) -> RoomAccess:
        """Create a room, without a password an open one; the answer's token is a broadcaster's."""
        request: Message = {"password": password, "public": public, "permanent": permanent}
        if name is not None:
            request["name"] = name
        answer = await self._call("POST", "auth/room/create", request, token=access_token)
        return RoomAccess(
            room_id=answer["roomId"],
            room_token=answer["roomToken"],
            name=answer.get("name") or "",
            room_code=answer["roomCode"],
        )

    async def join(
        self, room: str, password: str | None, *, nickname: str | None = None
    ) -> RoomAccess:
        """Join a room by code or id; the answer's token is a listener's."""
        request: Message = {"roomCode": room, "password": password}
        if nickname is not None:
            request["nickname"] = nickname
        answer = await self._call("POST", "auth/room/join", request)
        return RoomAccess(
            room_id=answer["roomId"],
            room_token=answer["roomToken"],
            name=answer.get("roomName") or "",
        )

    async def broadcaster_token(self, access_token: str, room: str) -> RoomAccess:
        """Get a broadcaster's token for an own room, by code or id."""
        answer = await self._call(
            "POST", f"api/broadcaster/rooms/{room}/token", {}, token=access_token
        )
        return RoomAccess(room_id=answer.get("roomId", room), room_token=answer["roomToken"])

    async def close_room(self, access_token: str, room: str) -> None:
        """Close an own room, by code or id."""
        await self._call("DELETE", f"api/broadcaster/rooms/{room}", {}, token=access_token)

    async def connect(self, registration: Message, *, answer: str) -> RelayConnection:
        """Open a WebSocket and register.

        Args:
            registration: The ``registerSource`` or ``registerListener`` message.
            answer: Type of the message that accepts it.

        Raises:
            UnreachableError: No connection, or no answer in time.
            RefusedError: The server refused.
        """
        try:
            websocket = await self._http.ws_connect(
                self.url / "ws",
                ssl=self._ssl,
                max_msg_size=_MAX_MESSAGE_BYTES,
                autoping=True,
                timeout=aiohttp.ClientWSTimeout(ws_close=5.0),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise RefusedError(
                f"{self.url}: the server answered {error.status} instead of opening a WebSocket",
                status=error.status,
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnreachableError(f"{self.url}: {_reason(error)}") from error
        assert isinstance(websocket, _WebSocket)
        connection = RelayConnection(websocket)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                connection.config = await connection.receive_text("config")
                await connection.send(registration)
                connection.registered = await connection.receive_text(answer)
        except TimeoutError as error:
            await connection.abort()
            raise UnreachableError(f"{self.url}: no answer to the registration") from error
        except BaseException:
            await connection.abort()
            raise
        return connection

    def move_to(self, url: str) -> None:
        """Talk to another server from now on, as ``wrong_server`` says.

        Raises:
            ClientError: Not an HTTP URL, or not encrypted where the first server is, or servers
                send us around.
        """
        there = _server_url(url)
        if self._home.scheme == "https" and there.scheme != "https":
            raise ClientError(f"{self.url} sends us to {there}, which is not encrypted")
        now = time.monotonic()
        self._moves = [at for at in self._moves if now - at < _MOVES_WITHIN_S]
        if len(self._moves) >= _MOST_MOVES:
            raise ClientError(f"servers send us around, {self.url} to {there} at last")
        self._moves.append(now)
        self.url = there

    def go_home(self) -> None:
        """Talk to the first server again: it knows where the room is by now."""
        self.url = self._home

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("RoomApi is used outside of its context")
        return self._session

    async def _call(
        self, method: str, path: str, body: Mapping[str, object], *, token: str | None = None
    ) -> Message:
        """The answer, of the server that has the room which it is about."""
        while True:
            try:
                return await self._ask(method, path, body, token)
            except RefusedError as error:
                if error.url is None:
                    raise
                self.move_to(error.url)

    async def _ask(
        self, method: str, path: str, body: Mapping[str, object], token: str | None
    ) -> Message:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._http.request(
                method, self.url / path, json=body, headers=headers, ssl=self._ssl
            ) as response:
                text = await response.text()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnreachableError(f"{self.url}: {_reason(error)}") from error
        try:
            answer = json.loads(text) if text else {}
        except ValueError:
            answer = {}
        if status >= 400:
            problem = answer if isinstance(answer, dict) else {}
            reason = problem.get("detail") or problem.get("title")
            raise RefusedError(
                reason or f"{path}: the server answered {status}",
                code=problem.get("code"),
                status=status,
                url=problem.get("url") or None,
            )
        if not isinstance(answer, dict):
            raise WireError(f"{path}: the server's answer is not a JSON object")
        return answer


class _WebSocket(aiohttp.ClientWebSocketResponse):
    """One that knows when its transport is gone, too: over TLS that takes another round trip.

    An event loop that is closed before complains about the transport it finds.
    """

    def __init__(
        self, reader: Any, writer: Any, protocol: Any, response: Any, *rest: Any, **named: Any
    ) -> None:
        super().__init__(reader, writer, protocol, response, *rest, **named)
        self._beneath = response.connection.protocol
        self._transport: asyncio.Transport = response.connection.transport

    async def gone(self) -> None:
        """Wait until nothing is left of a connection that was closed; after a while make it so."""
        ended = self._beneath.closed
        if ended is None:
            return
        try:
            if not (await asyncio.wait({ended}, timeout=_GOODBYE_S))[0]:
                self._transport.abort()
                await asyncio.wait({ended})
        finally:
            ended.add_done_callback(lambda future: future.cancelled() or future.exception())


class RelayConnection:
    """One registered WebSocket connection.

    Attributes:
        config: The server's first message.
        registered: Its answer to the registration.
    """

    def __init__(self, websocket: _WebSocket) -> None:
        self._websocket = websocket
        self._last_error: Message | None = None
        self.config: Message = {}
        self.registered: Message = {}

    async def send(self, message: Message) -> None:
        """Send a text message."""
        await self._guard(self._websocket.send_str(json.dumps(message, separators=(",", ":"))))

    async def send_packet(self, packet: bytes) -> None:
        """Send a binary message."""
        await self._guard(self._websocket.send_bytes(packet))

    async def receive(self, timeout: float | None = _SILENCE_TIMEOUT_S) -> Message | Frame | Levels:
        """Wait for the next message.

        ``error`` messages are handed out like others; if a close follows, they say why.

        Args:
            timeout: Seconds of silence after which the connection counts as lost.

        Raises:
            UnreachableError: The connection broke or fell silent.
            RefusedError: The server closed it with a code that says no.
            WireError: A message that the protocol does not allow.
        """
        try:
            received = await self._websocket.receive(timeout)
        except TimeoutError as error:
            raise UnreachableError(f"nothing heard from the server for {timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(_reason(error)) from error
        if received.type is aiohttp.WSMsgType.BINARY:
            return parse_server_message(received.data)
        if received.type is aiohttp.WSMsgType.TEXT:
            try:
                message = json.loads(received.data)
            except ValueError as error:
                raise WireError("a text message that is not JSON") from error
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                raise WireError("a text message without a type")
            if message["type"] == "error":
                self._last_error = message
            return message
        raise self._closed()

    async def receive_text(self, kind: str) -> Message:
        """Wait for a text message of one type, passing over others.

        Raises:
            RefusedError: An ``error`` came instead.
        """
        while True:
            message = await self.receive()
            if not isinstance(message, dict):
                continue
            if message["type"] == kind:
                return message
            if message["type"] == "error":
                try:
                    # The close that follows says with its code whether another try can help.
                    async with asyncio.timeout(2.0):
                        while True:
                            await self.receive()
                except TimeoutError:
                    raise self._refusal(None) from None

    async def close(self) -> None:
        """Close with code 1000 and wait, for a bounded time, for the other side's close."""
        await self._websocket.close()
        await self._websocket.gone()

    async def abort(self) -> None:
        """Close without waiting for long; for a connection that is of no use any more."""
        try:
            async with asyncio.timeout(1.0):
                await self._websocket.close()
        except TimeoutError:
            pass  # cancelled, it has closed the transport all the same
        await self._websocket.gone()

    async def _guard(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # aiohttp says "Cannot write to closing transport" in several ways.
            raise UnreachableError(_reason(error)) from error

    def _closed(self) -> ClientError:
        code = self._websocket.close_code or 1006
        if code == 1006 and self._last_error is None:
            exception = self._websocket.exception()
            detail = f": {_reason(exception)}" if exception is not None else ""
            return UnreachableError(f"the connection broke{detail}")
        return self._refusal(code)

    def _refusal(self, code: int | None) -> RefusedError:
        error = self._last_error or {}
        text = error.get("message") or describe_close(code or 1006)
        url = error.get("url") or None
        return RefusedError(text, code=error.get("code"), close_code=code, url=url)


def _session(answer: Message) -> Session:
    return Session(answer["accessToken"], answer["refreshToken"])


def _server_url(url: str) -> URL:
    try:
        parsed = URL(url if "//" in url else f"http://{url}")
    except ValueError as error:
        raise ClientError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ClientError(f"{url!r}: the server's URL begins with http:// or https://")
    return parsed


def _reason(error: BaseException) -> str:
    """A short text for an exception, which may have none of its own."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({error.strerror or error.os_error})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


@asynccontextmanager
async def retries_told_to(tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Report the waits of `reconnecting` in place of stamina's own log lines."""

    def hook(details: stamina.instrumentation.RetryDetails) -> None:
        tell(f"{details.caused_by}; next try in {details.wait_for:.1f} s")

    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([hook])
    try:
        yield
    finally:
        stamina.instrumentation.set_on_retry_hooks(before)


async def reconnecting(connect: Callable[[], Awaitable[RelayConnection]]) -> RelayConnection:
    """Try until a connection stands, backing off from a quarter of a second to ten.

    Args:
        connect: One attempt.

    Raises:
        ClientError: The first one that is not temporary.
    """
    # A server that restarts loses everyone at once; they need not come back in the same instant.
    await asyncio.sleep(random.uniform(0, _FIRST_RETRY_WITHIN_S))  # noqa: S311 - not a secret
    async for attempt in stamina.retry_context(
        on=lambda error: isinstance(error, ClientError) and error.temporary,
        attempts=None,
        timeout=None,
        wait_initial=0.25,
        wait_max=10.0,
        wait_jitter=0.5,
    ):
        with attempt:
            return await connect()
    raise AssertionError("unreachable: the attempts are unlimited")
