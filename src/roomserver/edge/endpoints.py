"""What a route of the REST interface is: a handler whose types say what comes in and goes out.

    api = Api()

    @api.post("/auth/room/create", status=201, problems=[ProblemCode.BUSY])
    async def create_room(
        call: Call, account: Account, body: CreateRoomRequest
    ) -> CreateRoomAnswer:
        '''Makes a room.'''

The names of the parameters are what counts: `body` is the JSON body and `query` the query string,
each decoded and validated as its type says; a handler that asks for an `account` is for those who
bring an access token, with `admin=True` for administrators alone; where it may be None, a token is
welcome and not needed. It returns what its type says, as JSON; None is 204. `openapi` makes its
description of the same types.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec
from aiohttp import web

from roomserver.auth.passwords import PoolFullError
from roomserver.edge.addresses import limit_key, user_agent_of
from roomserver.edge.elsewhere import look_for_room
from roomserver.edge.limits import Attempt, Limiter, LimitReachedError, Usage
from roomserver.edge.problems import ADDRESS, ON_ANSWER, Problem, ProblemCode
from roomserver.edge.requests import authenticate, read_body, read_query
from roomserver.edge.services import SERVICES, Services
from roomserver.store.records import Account, AuditEvent

BUSY_RETRY_S = 5.0
# Most answers carry tokens, and none is worth caching.
ANSWER_HEADERS = {"Cache-Control": "no-store"}

H = TypeVar("H", bound=Callable[..., Awaitable[object]])


@dataclass(slots=True)
class Call:
    """One request on its way through a handler."""

    request: web.Request
    services: Services
    address: str  # the client's
    account: Account | None = None  # whose access token it brings, where one is asked for

    def path(self, name: str) -> str:
        """A part of the path that the route names."""
        return self.request.match_info[name]

    @property
    def limit_key(self) -> str:
        """What limits count by: the client's address, or its network."""
        return limit_key(self.address)

    @property
    def on_answer(self) -> list[Callable[[web.StreamResponse], object]]:
        """Done to the answer before it goes out, a refusal too: cookies, headers."""
        return self.request[ON_ANSWER]

    def audit(
        self, event: AuditEvent, *, user: str | None = None, room: str | None = None, **facts: Any
    ) -> None:
        """Adds a line to the audit log; of refusals, `Problem.audited` does.

        `user` is the account that asks unless told.
        """
        if user is None and self.account is not None:
            user = self.account.id
        self.services.rooms.audit(
            event,
            address=self.address,
            limit_key=self.limit_key,
            user_agent=user_agent_of(self.request),
            user=user,
            room=room,
            **facts,
        )

    def limited(
        self, limiter: Limiter, *key: str, same: Hashable = None, quiet: bool = False
    ) -> Limited:
        """An attempt under a limit, as in `Limiter.attempt`; the answer says what is left.

        `quiet`: only when it counts or is refused. Its block raises Problem (429) at its beginning.
        """
        return Limited(self, limiter, key, same, quiet=quiet)

    def tell(self, usage: Usage) -> None:
        """Says in the answer how much of a limit is left."""
        self.on_answer.append(lambda answer: answer.headers.extend(usage.headers))


class Limited:
    """See `Call.limited`."""

    __slots__ = ("_attempt", "_call", "_key", "_limiter", "_quiet")

    def __init__(
        self, call: Call, limiter: Limiter, key: tuple[str, ...], same: Hashable, *, quiet: bool
    ) -> None:
        self._call = call
        self._limiter = limiter
        self._key = key
        self._quiet = quiet
        self._attempt = limiter.attempt(*key, same=same)

    async def __aenter__(self) -> Attempt:
        try:
            return await self._attempt.__aenter__()
        except LimitReachedError as error:
            self._call.tell(self._limiter.usage(*self._key))
            raise Problem.later(
                ProblemCode.RATE_LIMITED, "too many attempts", after_s=error.retry_after_s
            ).audited(limit=error.name, retry_s=math.ceil(error.retry_after_s)) from None

    async def __aexit__(self, *error: object) -> None:
        await self._attempt.__aexit__(*error)
        if self._attempt.counts or not self._quiet:
            self._call.tell(self._limiter.usage(*self._key))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route: what aiohttp calls, and what the description of the interface needs to know."""

    method: str
    path: str
    handler: Callable[..., Awaitable[object]]
    status: int
    problems: frozenset[ProblemCode]
    admin: bool
    wants_account: bool
    account_optional: bool
    body: type[msgspec.Struct] | None
    query: type[msgspec.Struct] | None
    answer: type[msgspec.Struct] | None  # None: no JSON
    """Without a type the answer is empty (204), or made by the handler itself."""

    @property
    def summary(self) -> str:
        """The first line of the handler's documentation."""
        return (self.handler.__doc__ or "").strip().splitlines()[0].rstrip(".")

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        services = request.app[SERVICES]
        call = Call(request, services, request[ADDRESS])
        if any("\0" in part for part in request.match_info.values()):
            raise Problem(ProblemCode.NOT_FOUND, "nothing has a name with a NUL character")
        arguments: dict[str, object] = {}
        if self.wants_account and (not self.account_optional or "Authorization" in request.headers):
            arguments["account"] = call.account = await authenticate(
                request, in_doubt=not self.admin
            )
        try:
            result = await self._handle(call, arguments)
        except Problem as problem:
            if call.account is not None:
                problem.facts.setdefault("user", call.account.id)
            raise
        return result if isinstance(result, web.StreamResponse) else self._response(result)

    async def _handle(self, call: Call, arguments: dict[str, object]) -> object:
        request = call.request
        if self.admin and call.account is not None and call.account.role != "admin":
            raise Problem(ProblemCode.NOT_ALLOWED, "this is for administrators")
        if self.query is not None:
            arguments["query"] = read_query(request, self.query)
        if self.body is not None:
            arguments["body"] = await read_body(request, self.body)
        try:
            try:
                return await self.handler(call, **arguments)
            except Problem as problem:
                # What can be done to a room where it is open is done at its own server.
                looks = ProblemCode.WRONG_SERVER in self.problems
                if problem.code is not ProblemCode.ROOM_NOT_FOUND or not looks:
                    raise
                if not await look_for_room(call.services, call.path("room"), call.account):
                    raise
                return await self.handler(call, **arguments)
        except PoolFullError:
            raise Problem.later(
                ProblemCode.BUSY, "too many passwords are being checked", after_s=BUSY_RETRY_S
            ) from None

    def _response(self, result: object) -> web.Response:
        if result is None:
            return web.Response(status=204, headers=ANSWER_HEADERS)
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(result),
            content_type="application/json",
            headers=ANSWER_HEADERS,
        )


class Options(TypedDict, total=False):
    """What is said of a route besides its path."""

    status: int  # of success, where something is answered
    problems: Sequence[ProblemCode]  # what may go wrong, besides what follows from the types
    admin: bool  # for administrators alone


class Api:
    """The endpoints of one module, in their order."""

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def get(self, path: str, **options: Unpack[Options]) -> Callable[[H], H]:
        """A handler of GET; `options` as in `add`."""
        return self._decorator("GET", path, options)

    def post(self, path: str, **options: Unpack[Options]) -> Callable[[H], H]:
        """A handler of POST."""
        return self._decorator("POST", path, options)

    def put(self, path: str, **options: Unpack[Options]) -> Callable[[H], H]:
        """A handler of PUT."""
        return self._decorator("PUT", path, options)

    def patch(self, path: str, **options: Unpack[Options]) -> Callable[[H], H]:
        """A handler of PATCH."""
        return self._decorator("PATCH", path, options)

    def delete(self, path: str, **options: Unpack[Options]) -> Callable[[H], H]:
        """A handler of DELETE."""
        return self._decorator("DELETE", path, options)

    def add(
        self,
        method: str,
        path: str,
        handler: Callable[..., Awaitable[object]],
        **options: Unpack[Options],
    ) -> None:
        """A handler of a method and path."""
        types = typing.get_type_hints(handler)
        answer = types["return"]
        is_json = isinstance(answer, type) and issubclass(answer, msgspec.Struct)
        self._endpoints.append(
            Endpoint(
                method=method,
                path=path,
                handler=handler,
                status=204 if answer is type(None) else options.get("status", 200),
                problems=frozenset(options.get("problems", ())),
                admin=options.get("admin", False),
                wants_account="account" in types,
                account_optional=types.get("account") == (Account | None),
                body=types.get("body"),
                query=types.get("query"),
                answer=answer if is_json else None,
            )
        )

    def _decorator(self, method: str, path: str, options: Options) -> Callable[[H], H]:
        def decorate(handler: H) -> H:
            self.add(method, path, handler, **options)
            return handler

        return decorate
