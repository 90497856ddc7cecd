"""What holds for every route of the REST interface, whatever it does: who may call it, and bounds.

That each refuses what it declares is in test_every_refusal; what each does, where that stands.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import pytest

from roomserver.edge.endpoints import Endpoint
from roomserver.edge.problems import STATUS, ProblemCode
from roomserver.edge.routes import ENDPOINTS
from support.api_client import Answer, Api
from support.rest import Keys


def those(condition: Callable[[Endpoint], object]) -> pytest.MarkDecorator:
    """Runs a test for each route of which this is true."""
    found = [endpoint for endpoint in ENDPOINTS if condition(endpoint)]
    assert found
    names = [f"{endpoint.method} {endpoint.path}" for endpoint in found]
    return pytest.mark.parametrize("endpoint", found, ids=names)


def path_of(endpoint: Endpoint, room: str | None = None) -> str:
    """The path with names that nothing has, but for the room's."""
    path = endpoint.path.replace("{room}", room or str(uuid.uuid4()))
    return re.sub(r"{\w+}", lambda _: str(uuid.uuid4()), path)


def refused(answer: Answer, code: ProblemCode) -> None:
    """The answer is that problem's document."""
    assert answer.status == STATUS[code], answer
    assert answer.body["code"] == code, answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")


@those(lambda e: e.wants_account and not e.account_optional)
async def test_it_is_for_those_with_an_access_token(api: Api, endpoint: Endpoint) -> None:
    path = path_of(endpoint)
    without = await api.call(endpoint.method, path)
    refused(without, ProblemCode.UNAUTHORIZED)
    assert without.headers["WWW-Authenticate"] == "Bearer"
    forged = await api.call(endpoint.method, path, token="a.b.c")
    refused(forged, ProblemCode.TOKEN_INVALID)


@those(lambda e: "{" in e.path)
async def test_a_name_with_a_nul_is_nobodys(api: Api, keys: Keys, endpoint: Endpoint) -> None:
    path = re.sub(r"{\w+}", "%00", endpoint.path)
    token = keys.admin if endpoint.admin else keys.owner
    refused(await api.call(endpoint.method, path, token=token), ProblemCode.NOT_FOUND)


@those(lambda e: e.body)
async def test_a_body_has_to_be_json_of_its_kind(api: Api, keys: Keys, endpoint: Endpoint) -> None:
    token = keys.admin if endpoint.admin else keys.owner
    path = path_of(endpoint, keys.room)

    async def say(data: bytes, kind: str = "application/json") -> Answer:
        headers = {"Content-Type": kind}
        return await api.call(endpoint.method, path, token=token, data=data, headers=headers)

    refused(await say(b"{}", "text/plain"), ProblemCode.UNSUPPORTED_MEDIA_TYPE)
    nul = b'{"nickname": "a\\\\\\u0000"}'  # an escaped backslash, and a NUL
    for wrong in (b"", b"{", b"[]", b"null", b'"\xff"', b"[" * 10_000, nul):
        refused(await say(wrong), ProblemCode.INVALID_REQUEST)
    refused(await say(b" " * 70_000 + b"{}"), ProblemCode.BODY_TOO_LARGE)


async def test_other_methods_are_named(api: Api) -> None:
    methods: dict[str, set[str]] = {}
    for endpoint in ENDPOINTS:
        methods.setdefault(endpoint.path, set()).add(endpoint.method)
    for path, allowed in methods.items():
        answer = await api.call("TRACE", re.sub(r"{\w+}", "x", path))
        refused(answer, ProblemCode.METHOD_NOT_ALLOWED)
        assert allowed <= set(answer.headers["Allow"].split(",")), path
