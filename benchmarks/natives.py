"""Builds the native programs into `.cache/benchmarks/`, again only when their sources change."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.child import ROOT

SOURCES: Final = ROOT / "benchmarks" / "native"
INCLUDE: Final = ROOT / "src" / "relaycore" / "include"
CACHE: Final = ROOT / ".cache" / "benchmarks"
FLAGS: Final = ("-std=c++20", "-O3", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{INCLUDE}")


def compiler() -> str:
    """The C++ compiler: `$CXX`, else the first of g++, clang++, c++ on the path."""
    found = os.environ.get("CXX") or next(
        (name for name in ("g++", "clang++", "c++") if shutil.which(name)), None
    )
    if found is None:
        raise FileNotFoundError("the benchmarks need a C++20 compiler: g++ or clang++")
    return found


def build(name: str, *, tls: bool = False) -> Path:
    """The program made from `native/<name>.cpp` and the headers beside it, speaking TLS if wanted.

    Raises RuntimeError with the compiler's words when it does not compile.
    """
    flags = (*FLAGS, "-DBENCH_TLS") if tls else FLAGS
    libraries = ("-lssl", "-lcrypto") if tls else ()
    digest = hashlib.sha256(" ".join((compiler(), *flags)).encode())
    headers = sorted([*SOURCES.glob("*.h"), *INCLUDE.glob("relaycore/*.h")])
    for source in (SOURCES / f"{name}.cpp", *headers):
        digest.update(source.read_bytes())
    program = CACHE / f"{name}-{digest.hexdigest()[:12]}"
    if program.exists():
        return program
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = program.with_suffix(f".{os.getpid()}")  # renamed whole: several may build at once
    command = [compiler(), *flags, str(SOURCES / f"{name}.cpp"), "-o", str(fresh), *libraries]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode != 0:
        hint = " (it needs OpenSSL's headers: Debian's libssl-dev)" if tls else ""
        raise RuntimeError(f"{name}.cpp does not compile{hint}:\n{result.stderr}")
    fresh.rename(program)
    return program
