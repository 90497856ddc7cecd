"""Builds the C++ programs among the tests: native tests, fuzzers, benchmarks.

Objects and programs are built once per compiler, flags and content of everything they may include,
and kept under `build/`, so that a second run of the tests compiles nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
# For programs with threads; the core counts its objects in them.
THREADED: dict[str, tuple[str, ...]] = {
    name: (
        "-O1",
        "-g",
        f"-fsanitize={sanitizers}",
        "-fno-sanitize-recover=all",
        "-DRELAYCORE_COUNT_OBJECTS",
    )
    for name, sanitizers in {"tsan": "thread", "asan+ubsan": "address,undefined"}.items()
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
        if not source.stem.endswith("_stub")
        and (not source.stem.startswith("pcm_ops_") or source.stem == "pcm_ops_scalar")
    ]


def made(command: tuple[str, ...], inputs: Sequence[Path], name: str) -> Path:
    """What `command` makes of `inputs`, which it names: made unless it is there from before."""
    compiler, *arguments = command
    key = hashlib.sha256(repr((compiler_version(compiler), arguments)).encode())
    for file in inputs:
        key.update(file.read_bytes())
    stem, dot, suffix = name.partition(".")
    result = ROOT / "build" / "native" / f"{stem}-{key.hexdigest()[:16]}{dot}{suffix}"
    if result.exists():
        return result
    result.parent.mkdir(parents=True, exist_ok=True)
    with result.with_name(f".{result.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several that want it one makes it
        if not result.exists():
            unfinished = result.with_name(f".{result.name}.unfinished")
            compile_with(compiler, [*arguments, "-o", unfinished])
            unfinished.replace(result)
    return result


def build(
    source: Path, *, compiler: str, flags: Sequence[str] = (), with_core: bool = False
) -> Path:
    """Compile one source file, and the whole core with it if wanted, to a program and return where
    it is. Safe to call from threads."""
    folders = [INCLUDE, NATIVE, ROOT / "tests" / "native", source.parent]
    sources = [source, *core_sources()] if with_core else [source]
    paths = tuple(f"-I{folder}" for folder in folders)

    def compiled(file: Path) -> Path:
        command = (compiler, *flags, *paths, "-c", str(file))
        return made(command, with_includes(file, folders), f"{file.stem}.o")

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    return made((compiler, *flags, *map(str, objects), "-lpthread"), objects, source.stem)
