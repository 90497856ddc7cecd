"""Versions of what took part in a result: what is compared means little without them."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks import nginx, peers
from benchmarks.peers import icecast
from roomserver.store.embedded import EmbeddedError, find_binaries

UNKNOWN: Final = "unknown"
NOT_TOLD: Final = (
    OSError,
    AttributeError,  # a library without the function that tells
    PackageNotFoundError,
    EmbeddedError,
    subprocess.SubprocessError,
)
SERVER: Final = ("aiohttp", "uvloop", "PostgreSQL")
BY_SCENARIO: Final[Mapping[str, Sequence[str]]] = {
    "micro": ("numpy",),
    "cpu": (),
    "listeners": (),
    "tls": ("OpenSSL",),
    "pacing": ("aiohttp", "uvloop"),
    "browser": ("aiohttp", "uvloop", "Chromium"),
}
"""What is in every row; of scenarios that are not here, the whole server."""
BY_SUBJECT: Final[Mapping[str, Sequence[str]]] = {
    "server": SERVER,
    "server-2": SERVER,
    "server-no-realtime": SERVER,
    "plain": SERVER,
    "tls": SERVER,
    "nginx": (*SERVER, "nginx"),
    "bun": ("Bun",),
    "picows": ("picows", "uvloop"),
    "nchan": ("nginx", "nchan"),
    "icecast": ("Icecast",),
    "ws": ("ws", "Node"),
    "aiohttp": ("aiohttp", "uvloop"),
    "websockets": ("websockets", "uvloop"),
}
"""What a row's subject is made of."""


def of(result: Mapping[str, Any]) -> dict[str, str]:
    """The versions of what took part in a result, by name."""
    parts = list(BY_SCENARIO.get(result["scenario"], SERVER))
    for row in result["summary"]:
        parts += BY_SUBJECT.get(row.get("subject", ""), ())
    return {name: version_of(name) for name in dict.fromkeys(parts)}


def version_of(name: str) -> str:
    """The version of a program or library that is used here; "unknown" if it can't be told."""
    try:
        return ELSEWHERE[name]() if name in ELSEWHERE else version(name)
    except NOT_TOLD:
        return UNKNOWN


def _says(program: str | Path, option: str = "--version") -> str:
    """The number in what a program says of itself."""
    asked = subprocess.run(
        [program, option], capture_output=True, text=True, check=True, timeout=20
    )
    found = re.search(r"\d+(\.\d+)+", asked.stdout + asked.stderr)
    return found[0] if found else UNKNOWN


def _nchan() -> str:
    """As Debian says: the module does not tell."""
    command = ["dpkg-query", "-W", "-f=${Version}", "libnginx-mod-nchan"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return asked.stdout


def _openssl() -> str:
    """Of the machine's library, which relay, load client, floor and nginx use."""
    tell = ctypes.CDLL("libssl.so.3").OpenSSL_version
    tell.restype = ctypes.c_char_p
    return str(tell(0).decode()).split()[1]


ELSEWHERE: Final[Mapping[str, Callable[[], str]]] = {
    "Bun": lambda: peers.NODE["bun"],
    "ws": lambda: peers.NODE["ws"],
    "Node": lambda: _says(peers.node_home() / "bin" / "node"),
    "nginx": lambda: _says(nginx.program(), "-v"),
    "nchan": _nchan,
    "Icecast": lambda: _says(icecast.program(), "-v"),
    "OpenSSL": _openssl,
    "PostgreSQL": lambda: _says(find_binaries() / "postgres"),
    "Chromium": lambda: _says(shutil.which("chromium") or "google-chrome"),
}
"""Those that are no packages of Python."""
