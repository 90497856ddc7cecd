"""Web pages of other origins: which may ask, and which may read the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from support.api_client import Answer, Api
from support.server import ServerProcess

NAMED = "https://stage.example.org"
EVIL = "https://evil.example"
STATIC = "/static/pages/texts.js"  # long enough to be compressed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--allowed-origins", f"{NAMED},https://other.example.org")
    with ServerProcess.start(tmp_path_factory.mktemp("origins"), *options) as process:
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


async def preflight(api: Api, origin: str, path: str = "/auth/broadcaster") -> Answer:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return await api.call("OPTIONS", path, headers=headers)


async def test_a_page_of_a_named_origin_may_ask_and_read_the_answer(api: Api) -> None:
    answer = await preflight(api, NAMED)
    assert (answer.status, answer.body) == (204, "")
    assert answer.headers["Access-Control-Allow-Origin"] == NAMED
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    for path, status in (("/health", 200), ("/nowhere", 404)):  # an error can be read as well
        answer = await api.call("GET", path, headers={"Origin": NAMED})
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == NAMED
        assert answer.headers["Vary"] == "Origin"
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    async with api.socket(origin=NAMED):
        pass


@pytest.mark.parametrize("origin", [EVIL, "null", "https://stage.example.org.evil.example"])
async def test_a_page_of_another_origin_may_not(
    api: Api, server: ServerProcess, origin: str
) -> None:
    answer = await preflight(api, origin)
    assert (answer.status, answer.body["code"]) == (403, "origin_not_allowed")
    answer = await api.call("GET", "/health", headers={"Origin": origin})
    assert not [name for name in answer.headers if name.startswith("Access-Control-Allow")]
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with api.socket(origin=origin):
            pass
    assert caught.value.status == 403
    server.wait_for_event("request_refused", where=lambda e: e["path"] == "/ws")


@pytest.mark.parametrize("origin", [None, NAMED, EVIL])
async def test_caches_are_told_that_answers_vary_by_origin(api: Api, origin: str | None) -> None:
    asked = {} if origin is None else {"Origin": origin}
    for path, vary in (("/health", "Origin"), (STATIC, "Accept-Encoding, Origin")):
        answer = await api.call("GET", path, headers=asked)
        assert (answer.status, answer.headers["Vary"]) == (200, vary)


async def test_the_servers_own_pages_need_no_permission(api: Api, server: ServerProcess) -> None:
    answer = await preflight(api, server.url)
    assert answer.status == 204
    async with api.socket(origin=server.url):
        pass


async def test_any_page_may_ask_where_any_is_allowed_but_without_the_cookie(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    options = ("--allowed-origins", "*")
    with ServerProcess.start(tmp_path_factory.mktemp("any"), *options) as server:
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            answer = await preflight(api, EVIL)
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert answer.headers["Vary"] == "Origin"
            async with api.socket(origin=EVIL):
                pass
