"""Which web pages may use this server: its own, and those of the origins that settings name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from urllib.parse import urlsplit

from roomserver.edge.addresses import Asker

ANY = "*"
ANSWER_HEADERS = "RateLimit, RateLimit-Policy, Retry-After"


class Origins:
    """Knows origins apart by what browsers say in `Origin`.

    A page of any origin may be let in by `*`, but never with what the browser holds for us (the
    cookie): that is for pages of our own and of origins that are named.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self.named = frozenset(origin.lower() for origin in allowed if origin != ANY)
        self._any = ANY in allowed

    @property
    def share(self) -> bool:
        """Whether there are other origins that may read answers, which then vary by `Origin`."""
        return self._any or bool(self.named)

    def admits(self, request: Asker) -> bool:
        """Whether the request comes from no page at all, or from one that may use this server."""
        return (
            self._any
            or "Origin" not in request.headers
            or self._is_named(request)
            or _is_ours(request)
        )

    def admits_cookie(self, request: Asker) -> bool:
        """Whether the request comes from a page that may use what the browser holds for us."""
        return self._is_named(request) or _is_ours(request)

    def headers(self, request: Asker) -> dict[str, str]:
        """What lets a page of another origin read the answer; none for those that may not."""
        origin = request.headers.get("Origin")
        if origin is None:
            return {}
        if self._is_named(request):
            shared = {"Access-Control-Allow-Origin": origin}
            return shared | {"Access-Control-Allow-Credentials": "true"} | _EXPOSED
        if self._any:
            return {"Access-Control-Allow-Origin": ANY} | _EXPOSED
        return {}

    def _is_named(self, request: Asker) -> bool:
        return request.headers.get("Origin", "").lower() in self.named


_EXPOSED = {"Access-Control-Expose-Headers": ANSWER_HEADERS}


def _is_ours(request: Asker) -> bool:
    with contextlib.suppress(ValueError):  # it is no URL
        netloc = urlsplit(request.headers.get("Origin", "")).netloc.lower()
        return bool(netloc) and netloc == request.headers.get("Host", "").lower()
    return False
