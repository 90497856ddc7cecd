"""Who is asking: the client's address, through proxies that we trust, and what it says it is."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import structlog
from multidict import CIMultiDict, MultiMapping

UNKNOWN = "unknown"
FORWARDED = "X-Forwarded-For"
MAX_ADDRESS = 100  # with brackets and a zone
MAX_USER_AGENT = 256

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

log = structlog.stdlib.get_logger("roomserver.http")


class Asker(Protocol):
    """What is known of who asks: an aiohttp request, or what has become none."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """None when the client has left."""

    @property
    def protocol(self) -> asyncio.BaseProtocol:
        """That of the connection."""

    @property
    def headers(self) -> MultiMapping[str]:
        """Names are the same in any case."""


@dataclass(slots=True)
class EarlyRequest:
    """An `Asker` whose request never reaches aiohttp."""

    transport: asyncio.Transport | None
    protocol: asyncio.BaseProtocol
    headers: CIMultiDict[str]


class ClientAddresses:
    """Finds the address of a request's client.

    `X-Forwarded-For` is walked from right to left, for as long as the address that added an entry
    is a proxy of ours. A peer on our Unix socket is one; a header from anybody else is ignored.

    Args:
        trusted: Addresses or networks of proxies.
        peer_of: The address behind a connection that the TLS bridge made, None for any other.
    """

    def __init__(self, trusted: Sequence[str], peer_of: Callable[[Asker], str | None]) -> None:
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in trusted]
        self._peer_of = peer_of
        self._warned = False

    def of(self, request: Asker) -> str:
        """The client's address as text; `unknown` for a Unix socket without a header."""
        peer = self._peer_of(request)
        if peer is None:
            if request.transport is None:
                return UNKNOWN  # the client has left; a header alone proves nothing
            name = request.transport.get_extra_info("peername")
            peer = name[0] if isinstance(name, tuple) else None
        address = _parse(peer) if peer is not None else None
        if FORWARDED not in request.headers:
            return _text(address)
        forwarded = ",".join(request.headers.getall(FORWARDED))
        if forwarded and peer is not None and not self._is_proxy(address):
            if not self._warned:
                self._warned = True
                log.warning("forwarded_address_ignored", peer=peer)
            return _text(address)
        for entry in reversed(forwarded.split(",")):
            if (address is not None and not self._is_proxy(address)) or not entry.strip():
                break
            step = _parse(entry.strip())
            if step is None:
                break
            address = step
        return _text(address)

    def is_secure(self, request: Asker) -> bool:
        """Whether the client came over TLS: ours, or that of a proxy which says so."""
        if self._peer_of(request) is not None:
            return True
        name = request.transport.get_extra_info("peername") if request.transport else None
        trusted = not isinstance(name, tuple) or self._is_proxy(_parse(name[0]))
        return trusted and request.headers.get("X-Forwarded-Proto", "").lower() == "https"

    def _is_proxy(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def client_address(text: str) -> str | None:
    """An address as those of clients are kept: an IPv4 one that came as IPv6 is one; None: none."""
    parsed = _parse(text)
    return None if parsed is None else str(parsed)


@lru_cache(maxsize=1024)
def limit_key(address: str) -> str:
    """What limits count by: the address, or its /64 for IPv6, where one host has them all."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def user_agent_of(request: Asker) -> str | None:
    """What the client says it is, cut to a length that can be kept."""
    said = request.headers.get("User-Agent", "")[:MAX_USER_AGENT]
    # Headers that are no UTF-8 come with surrogates, which nothing else can hold.
    return said.encode(errors="replace").decode() or None


def _parse(text: str) -> Address | None:
    return _parse_short(text) if len(text) <= MAX_ADDRESS else None


@lru_cache(maxsize=1024)  # a request asks several times, and a hall comes from one address
def _parse_short(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.split("%")[0].removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)  # and thousands of connections share its text
def _text(address: Address | None) -> str:
    return UNKNOWN if address is None else str(address)
