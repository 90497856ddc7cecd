"""The web pages as a browser gets them: whole, cached as they should be, and bound by headers."""

from __future__ import annotations

import asyncio
import gzip
import posixpath
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest

from roomserver.edge.pages import MEDIA_TYPES, site
from support.api_client import Api
from support.server import ServerProcess

WEB = Path(str(files("roomserver"))) / "web"
PAGES = [*sorted(site().pages), "/listen/K7WQ2M"]
# Of modules and style sheets: what a static import, a worker or a worklet names.
IMPORTS = re.compile(
    r"""(?:\bfrom|\bimport)\s*["'](?P<module>[^"'\s]+)["']"""
    r"""|new URL\(\s*['"](?P<url>[^'"]+)['"]\s*,\s*import\.meta\.url"""
    r"""|@import\s+(?:url\()?['"](?P<style>[^'"]+)"""
)


class Tags(HTMLParser):
    """What a page refers to, and what stands in it that its policy forbids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        for name, value in attrs:
            if name in ("src", "href") and value is not None:
                self.links.append(value)
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(f"{self._open}: {data}")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


async def get(
    api: Api, path: str, method: str = "GET", **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body as they came over the wire."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        given = {"Accept-Encoding": "identity"} | headers
        async with session.request(method, api.url + path, headers=given) as answer:
            return answer.status, answer.headers, await answer.read()


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_is_bound_and_has_nothing_inline(api: Api, page: str) -> None:
    status, headers, body = await get(api, page)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "microphone=(self)" in headers["Permissions-Policy"]
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert Tags(body.decode()).inline == []


@pytest.mark.parametrize("page", PAGES)
async def test_everything_a_page_needs_is_there(api: Api, page: str) -> None:
    _, _, body = await get(api, page)
    waiting = [link for link in Tags(body.decode()).links if link.startswith("/static/")]
    assert waiting
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        status, headers, body = await get(api, path)
        assert status == 200, path
        assert headers["Content-Type"].split(";")[0] == MEDIA_TYPES[posixpath.splitext(path)[1]]
        assert headers["Cache-Control"] == "public, max-age=31536000, immutable", path
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        if path.endswith((".js", ".css")):
            for found in IMPORTS.finditer(body.decode()):
                name = next(filter(None, found.groups()))
                assert name.startswith("."), f"{path} imports {name}, which a browser can't find"
                waiting.append(urljoin(path, name))


async def test_every_file_is_served_as_it_is(api: Api) -> None:
    found = [f for f in WEB.rglob("*") if f.is_file() and f.suffix != ".html"]
    assert len(found) > 10
    for file in found:
        name = file.relative_to(WEB).as_posix()
        assert file.suffix in MEDIA_TYPES, f"{name} is of no kind that is served"
        status, headers, body = await get(api, f"/static/{name}")
        assert (status, body) == (200, file.read_bytes()), name
        assert headers["Cache-Control"] == "no-cache"


async def test_what_a_browser_has_is_not_sent_again(api: Api) -> None:
    for path in ("/", "/static/pages/theme.js", "/static/pages/texts.js"):
        for encoding in ("identity", "gzip"):
            _, headers, _ = await get(api, path, **{"Accept-Encoding": encoding})
            for condition in (headers["ETag"], f'"other", W/{headers["ETag"]}', "*"):
                status, again, body = await get(
                    api, path, **{"Accept-Encoding": encoding, "If-None-Match": condition}
                )
                assert (status, body) == (304, b"")
                assert again["ETag"] == headers["ETag"]
            status, *_ = await get(api, path, **{"If-None-Match": '"other"'})
            assert status == 200


async def test_what_is_long_is_compressed_for_those_who_understand_it(api: Api) -> None:
    _, plain_headers, plain = await get(api, "/static/pages/texts.js")
    _, headers, packed = await get(api, "/static/pages/texts.js", **{"Accept-Encoding": "br, gzip"})
    assert "Content-Encoding" not in plain_headers
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Vary"] == plain_headers["Vary"] == "Accept-Encoding"
    assert headers["ETag"] != plain_headers["ETag"]
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 2


async def test_head_is_answered_without_the_body(api: Api) -> None:
    for path in ("/", "/listen/K7WQ2M", "/static/pages/texts.js"):
        _, headers, body = await get(api, path)
        status, head, nothing = await get(api, path, "HEAD")
        assert (status, nothing) == (200, b"")
        assert head["Content-Length"] == headers["Content-Length"] == str(len(body))
        assert head["ETag"] == headers["ETag"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../config.py",
        "/static/%2e%2e/config.py",
        "/static/..%2fconfig.py",
        "/static/pages/..%5c..%5cconfig.py",
        "/static//etc/passwd",
        "/static/pages/%00",
        "/static/pages/",
        "/static/pages",
        "/static/",
        "/static/listen.html",
        "/static/pages/listen.html",
        "/nothing",
    ],
)
async def test_no_path_leads_elsewhere(server: ServerProcess, path: str) -> None:
    # The path as it stands: clients tidy it up.
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"application/problem+json" in answer


async def test_a_page_that_was_opened_before_an_upgrade_gets_what_there_is(api: Api) -> None:
    status, headers, body = await get(api, f"/static/v-{'0' * 16}/pages/theme.js")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert body == (WEB / "pages" / "theme.js").read_bytes()


async def test_pages_may_connect_to_the_servers_that_share_their_rooms(tmp_path: Path) -> None:
    options = ("--allowed-origins", "https://b.example.org,http://c.example.org:8080")
    with ServerProcess.start(tmp_path, *options) as server:
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            policy = answer.headers["Content-Security-Policy"]
    assert (
        "connect-src 'self' http://c.example.org:8080 https://b.example.org"
        " ws://c.example.org:8080 wss://b.example.org;"
    ) in policy


async def test_administrators_have_no_pages_on_their_own_address(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path, "--admin-port", "0") as server:
        async with aiohttp.ClientSession() as session:
            assert (await session.get(f"{server.admin_url}/")).status == 404
            assert (await session.get(f"{server.url}/")).status == 200


async def test_isolation_is_for_secure_contexts(api: Api) -> None:
    for host, isolated in {
        "localhost:8080": True,
        "[::1]:8080": True,
        "192.168.1.7:8080": False,
        "hall.example.org": False,
        "]": False,
        "a:b": False,
        "localhost:b@[": False,
        "": False,
    }.items():
        status, headers, _ = await get(api, "/", Host=host)
        assert status == 200, host
        assert ("Cross-Origin-Embedder-Policy" in headers) == isolated, host
        assert "Content-Security-Policy" in headers
