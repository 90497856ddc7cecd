"""What a route of the REST interface is: a handler whose types say what comes in and goes out.

    api = Api()

    @api.post("/auth/room/create", status=201, problems=[ProblemCode.BUSY])
    async def create_room(
        call: Call, account: Account, body: CreateRoomRequest
    ) -> CreateRoomAnswer:
        '''Makes a room.'''

The names of the parameters are what counts: `body` is the JSON body and `query` the query string,
each decoded and validated as its type says; a handler that asks for an `account` is for those who
bring an access token, with `admin=True` for administrators alone. It returns what its type says, as
JSON; None is 204. `openapi` makes its description of the same types.
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar, Unpack

import msgspec
from aiohttp import web

from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import authenticate, read_body, read_query
from roomserver.edge.services import SERVICES, Services

MAX_USER_AGENT = 256

H = TypeVar("H", bound=Callable[..., Awaitable[object]])


@dataclass(slots=True)
class Call:
    """One request on its way through a handler."""

    request: web.Request
    services: Services
    address: str  # the client's
    # Done to the answer before it goes out: cookies, headers.
    on_answer: list[Callable[[web.StreamResponse], object]] = field(default_factory=list)

    def path(self, name: str) -> str:
        """A part of the path that the route names."""
        return self.request.match_info[name]

    @property
    def user_agent(self) -> str | None:
        """What the client says it is, cut to a length that can be kept."""
        return self.request.headers.get("User-Agent", "")[:MAX_USER_AGENT] or None


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
        call = Call(request, services, services.addresses.of(request))
        arguments: dict[str, object] = {}
        if self.wants_account:
            account = await authenticate(request)
            if self.admin and account.role != "admin":
                raise Problem(ProblemCode.NOT_ALLOWED, "this is for administrators").audited(
                    user=account.id
                )
            arguments["account"] = account
        if self.query is not None:
            arguments["query"] = read_query(request, self.query)
        if self.body is not None:
            arguments["body"] = await read_body(request, self.body)
        result = await self.handler(call, **arguments)
        response = result if isinstance(result, web.StreamResponse) else self._response(result)
        for change in call.on_answer:
            change(response)
        return response

    def _response(self, result: object) -> web.Response:
        # Most answers carry tokens, and none is worth caching.
        headers = {"Cache-Control": "no-store"}
        if result is None:
            return web.Response(status=204, headers=headers)
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(result),
            content_type="application/json",
            headers=headers,
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
