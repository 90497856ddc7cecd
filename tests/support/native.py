"""Builds the C++ programs among the tests: native tests, fuzzers, benchmarks.

A program is built once per compiler, flags and content of everything it may include, and kept
under `build/`, so that a second run of the tests compiles nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
INCLUDE = ROOT / "src" / "relaycore" / "include"
NATIVE = ROOT / "src" / "relaycore" / "native"
HEADERS = sorted((INCLUDE / "relaycore").glob("*.h"))
COMPILERS = ("g++", "clang++")
WARNINGS = ("-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
# -O0 under the sanitizers: it compiles in half the time and hides nothing from them.
SANITIZERS: dict[str, tuple[str, ...]] = {
    "plain": ("-O2",),
    "asan+ubsan": ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
}
COMPILE_TIMEOUT_S = 400  # on a machine on which others have the processors
INCLUDED = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


class CompilationError(AssertionError):
    """The message is what the compiler said."""


@cache
def compiler_version(compiler: str) -> str:
    """First line of `compiler --version`. One that is missing fails the test that needs it."""
    if shutil.which(compiler) is None:
        package = {"clang++": "clang"}.get(compiler, compiler)
        raise CompilationError(f"{compiler} is not installed: apt-get install {package}")
    return run([compiler, "--version"], timeout=30).stdout.splitlines()[0]


def run(
    command: Sequence[str | Path], *, timeout: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output, both streams, becomes `stdout`."""
    return subprocess.run(
        command,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def compile_with(compiler: str, arguments: Sequence[str | Path]) -> None:
    compiler_version(compiler)
    done = run([compiler, *WARNINGS, "-I", INCLUDE, *arguments], timeout=COMPILE_TIMEOUT_S)
    if done.returncode != 0:
        raise CompilationError(f"{compiler} {' '.join(map(str, arguments))}\n{done.stdout}")


def with_includes(source: Path, folders: Sequence[Path]) -> list[Path]:
    """The file and all of ours that it includes, directly or not, in a fixed order."""
    found = [source]
    for file in found:  # grows while it is walked
        for name in INCLUDED.findall(file.read_text()):
            for candidate in (folder / name for folder in folders):
                if candidate.exists() and candidate not in found:
                    found.append(candidate)
    return found


def core_sources() -> list[Path]:
    """The native core for this machine, with the scalar kernels alone."""
    return [
        source
        for source in sorted(NATIVE.glob("*.cpp"))
        if source.stem != "relay_stub"
        and (not source.stem.startswith("pcm_ops_") or source.stem == "pcm_ops_scalar")
    ]


def build(
    source: Path, *, compiler: str, flags: Sequence[str] = (), with_core: bool = False
) -> Path:
    """Compile one source file, and the whole core with it if wanted, to a program and return where
    it is. Safe to call from threads."""
    folders = [INCLUDE, NATIVE, ROOT / "tests" / "native", source.parent]
    sources = [source, *core_sources()] if with_core else [source]
    key = hashlib.sha256(repr((compiler_version(compiler), flags)).encode())
    for file in dict.fromkeys(file for s in sources for file in with_includes(s, folders)):
        key.update(file.read_bytes())
    program = ROOT / "build" / "native" / f"{source.stem}-{key.hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        # Another process may build the same; each writes its own file and the last one stays.
        unfinished = program.with_suffix(f".{os.getpid()}")
        paths = [f"-I{folder}" for folder in folders]
        compile_with(compiler, [*flags, *paths, *sources, "-o", unfinished, "-lpthread"])
        unfinished.replace(program)
    return program
