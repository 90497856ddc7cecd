"""Runs the native tests, and holds every public header to compiling alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support.native import COMPILERS, HEADERS, SANITIZERS, build, compile_with, run

PROGRAMS = sorted(Path(__file__).parent.glob("test_*.cpp"))
Key = tuple[str, str, str]


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[Key, Future[Path]]]:
    """Every program in every variant, built two at a time while the first ones run already."""
    pool = ThreadPoolExecutor(2)
    yield {
        (source.stem, compiler, sanitizer): pool.submit(
            build, source, compiler=compiler, flags=SANITIZERS[sanitizer]
        )
        for source in PROGRAMS
        for compiler in COMPILERS
        for sanitizer in SANITIZERS
    }
    pool.shutdown(cancel_futures=True)  # with -k most of them are wanted by nobody


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", [source.stem for source in PROGRAMS])
def test_native_program_passes(
    programs: dict[Key, Future[Path]], name: str, compiler: str, sanitizer: str
) -> None:
    program = programs[name, compiler, sanitizer].result()
    done = run([program], timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_public_header_compiles_alone(header: Path, compiler: str, tmp_path: Path) -> None:
    source = tmp_path / "alone.cpp"
    line = f'#include "relaycore/{header.name}"\n'
    source.write_text(line + line)  # twice, for the include guard
    compile_with(compiler, ["-fsyntax-only", source])
