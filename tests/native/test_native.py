"""Runs the native tests, and holds every public header to compiling alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.native import (
    COMPILE_TIMEOUT_S,
    COMPILERS,
    HEADERS,
    SANITIZERS,
    build,
    compile_with,
    run,
)

PROGRAMS = sorted(Path(__file__).parent.glob("test_*.cpp"))


@pytest.mark.timeout(COMPILE_TIMEOUT_S + 60)
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", PROGRAMS, ids=lambda path: path.stem)
def test_native_program_passes(source: Path, compiler: str, sanitizer: str) -> None:
    program = build(source, compiler=compiler, flags=SANITIZERS[sanitizer])
    done = run([program], timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_public_header_compiles_alone(header: Path, compiler: str, tmp_path: Path) -> None:
    source = tmp_path / "alone.cpp"
    line = f'#include "relaycore/{header.name}"\n'
    source.write_text(line + line)  # twice, for the include guard
    compile_with(compiler, ["-fsyntax-only", source])
