"""The web pages and what they are made of, served from memory.

Everything under `roomserver/web` is read once, when the application is made, so that a request
touches no file and no path can lead outside. Pages name what they use as `/static/VERSION/...`,
where VERSION is a hash of it all: browsers may keep that for good, and what a module imports by a
relative URL has the same version. `/static/...` without it is for pages of other people.
"""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from aiohttp import web

from roomserver.edge.addresses import ClientAddresses
from roomserver.edge.origins import Origins
from roomserver.edge.problems import Handler, Problem, ProblemCode

MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ts": "text/plain",  # declarations for editors; no browser runs them
    ".txt": "text/plain",
}
"""What is served, by suffix; nothing else is."""

STATIC_NAME = "{{static}}"
"""In pages: where what they use is found."""

ISOLATION: Mapping[str, str] = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
"""Memory shared with the audio thread. Browsers have that, and these headers, in a secure context
alone, and complain of them elsewhere."""

_COMPRESSIBLE = frozenset({".css", ".html", ".js", ".mjs", ".svg", ".ts", ".txt"})
_WORTHWHILE = 1024  # bytes; below it compression saves no packet
_FOR_GOOD = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"  # kept, but checked by its ETag every time
_VERSIONED = re.compile(r"v-([0-9a-f]{16})/(.+)")


@dataclass(frozen=True, slots=True)
class File:
    """One file as it goes out."""

    content_type: str
    body: bytes
    gzipped: bytes | None
    etag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> File:
        """`name` says by its suffix what it is."""
        suffix = PurePosixPath(name).suffix
        gzipped = None
        if suffix in _COMPRESSIBLE and len(body) >= _WORTHWHILE:
            gzipped = gzip.compress(body, mtime=0)
        return cls(MEDIA_TYPES[suffix], body, gzipped, hashlib.sha256(body).hexdigest()[:16])

    def response(
        self, request: web.Request, headers: Mapping[str, str], cache_control: str
    ) -> web.Response:
        """The answer: whole, compressed where that is understood, or 304."""
        packed = self.gzipped is not None and "gzip" in request.headers.get("Accept-Encoding", "")
        etag = f"{self.etag}-gzip" if packed else self.etag
        answer = dict(headers) | {"Cache-Control": cache_control, "ETag": f'"{etag}"'}
        if self.gzipped is not None:
            answer["Vary"] = "Accept-Encoding"
        if any(known.value in (etag, "*") for known in request.if_none_match or ()):
            return web.Response(status=304, headers=answer)
        if packed:
            answer["Content-Encoding"] = "gzip"
        return web.Response(
            body=self.gzipped if packed else self.body,
            content_type=self.content_type,
            charset="utf-8" if self.content_type.startswith("text/") else None,
            headers=answer,
        )


@dataclass(frozen=True, slots=True)
class Site:
    """All files: `pages` by the path of their route, `static` by the path below `/static/`."""

    version: str
    pages: Mapping[str, File]
    static: Mapping[str, File] = field(repr=False)


@cache
def site() -> Site:
    """What the package brings; read once per process."""
    contents = dict(sorted(_read(files("roomserver") / "web", "")))
    whole = hashlib.sha256()
    for name, body in contents.items():
        whole.update(f"{name}\0{len(body)}\0".encode() + body)
    version = whole.hexdigest()[:16]
    pages, static = {}, {}
    for name, body in contents.items():
        if name.endswith(".html"):
            text = body.replace(STATIC_NAME.encode(), f"/static/v-{version}".encode())
            pages[_route(name)] = File.of(name, text)
        else:
            static[name] = File.of(name, body)
    return Site(version, pages, static)


def add_pages(app: web.Application, origins: Origins, addresses: ClientAddresses) -> None:
    """Routes of all pages, and of what they are made of."""
    found = site()
    bound = security_headers(origins)
    isolated = {**bound, **ISOLATION}

    def headers_for(request: web.Request) -> Mapping[str, str]:
        secure = addresses.is_secure(request) or _is_of_this_machine(request)
        return isolated if secure else bound

    def serve_page(file: File) -> Handler:
        async def page(request: web.Request) -> web.StreamResponse:
            return file.response(request, headers_for(request), _ASK_AGAIN)

        return page

    async def static(request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        cache_control = _ASK_AGAIN
        if versioned := _VERSIONED.fullmatch(path):
            # A page that was opened before an upgrade gets what there is now, and keeps it not.
            version, path = versioned.groups()
            cache_control = _FOR_GOOD if version == found.version else _ASK_AGAIN
        file = found.static.get(path)
        if file is None:
            raise Problem(ProblemCode.NOT_FOUND, "there is no such file")
        return file.response(request, headers_for(request), cache_control)

    for route, file in found.pages.items():
        app.router.add_get(route, serve_page(file))
    app.router.add_get("/listen/{code}", serve_page(found.pages["/listen"]))
    app.router.add_get("/static/{path:.+}", static)


def security_headers(origins: Origins) -> dict[str, str]:
    """What binds pages and workers.

    They run and show nothing but what this server sends. They connect to it and, because a room may
    be on another server of the same database, to the origins that `allowed_origins` names: servers
    that share rooms name each other there already, or their pages could not use one another.
    """
    others = sorted(
        f"{source}{origin.removeprefix('http')}"
        for origin in origins.named
        if origin.startswith(("http://", "https://"))
        for source in ("http", "ws")
    )
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": " ".join(["'self'", *others]),
        "worker-src": "'self'",
        "media-src": "'self' blob:",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": ", ".join(
            [
                *(f"{name}=(self)" for name in ("microphone", "display-capture")),
                *(f"{name}=(self)" for name in ("screen-wake-lock", "autoplay")),
                *(f"{name}=()" for name in ("camera", "geolocation", "usb", "midi", "payment")),
            ]
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _is_of_this_machine(request: web.Request) -> bool:
    """Whether browsers take the name they ask for as their own machine's: a secure context."""
    # Anything may stand in the header, or nothing: aiohttp's `url` raises, its `host` asks the DNS.
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _route(name: str) -> str:
    stem = PurePosixPath(name).stem
    return "/" if stem == "index" else f"/{stem}"


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _read(entry, name + "/")
        elif PurePosixPath(name).suffix in MEDIA_TYPES:
            yield name, entry.read_bytes()
