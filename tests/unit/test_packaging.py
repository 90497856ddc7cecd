"""What the distribution promises: versions agree, every target is built, nothing leaks out."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import setuptools

import relaycore

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, **environment: str) -> str:
    """Run a command in the source tree and return what it printed."""
    done = subprocess.run(  # list of arguments, no shell
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_package_tells_the_version_of_the_distribution() -> None:
    assert relaycore.__version__ == PROJECT["version"]


def test_the_base_install_needs_numpy_alone() -> None:
    assert [re.split(r"[<>=]", name)[0] for name in PROJECT["dependencies"]] == ["numpy"]


def test_every_supported_python_is_announced() -> None:
    announced = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if ":: Python :: 3." in c}
    assert announced == {"3.11", "3.12", "3.13", "3.14"}


def test_the_licence_names_those_of_everything_that_ships() -> None:
    vendor = ROOT / "src/roomserver/web/vendor"
    told = {}
    for line in (vendor / "README.txt").read_text().splitlines()[2:]:
        name, _, licence, *_ = line.split()
        told[name.lower()] = licence
    folders = [each.name for each in vendor.iterdir() if each.is_dir()]
    assert sorted(told) == sorted(folders)
    assert PROJECT["license"].split(" AND ") == ["Apache-2.0", *sorted(set(told.values()))]
    files = {path for pattern in PROJECT["license-files"] for path in ROOT.glob(pattern)}
    assert files == {ROOT / "LICENSE", *(vendor / name / "LICENSE.txt" for name in folders)}


@pytest.mark.parametrize(
    ("platform", "tags"),
    [
        (
            "linux",
            ["manylinux_x86_64", "manylinux_aarch64", "musllinux_x86_64", "musllinux_aarch64"],
        ),
        ("macos", ["macosx_x86_64", "macosx_arm64"]),
    ],
)
def test_a_wheel_is_built_for_every_target(platform: str, tags: list[str]) -> None:
    printed = run(
        Path(sys.executable).parent / "cibuildwheel",
        *("--print-build-identifiers", "--config-file", "cibuildwheel.toml"),
        *("--platform", platform),
    )
    pythons = ["cp311", "cp312", "cp313", "cp314", "cp314t"]
    assert set(printed.split()) == {f"{python}-{tag}" for python, tag in product(pythons, tags)}


def extension() -> Path:
    """The extension module that this test run uses."""
    [path] = [
        path
        for suffix in EXTENSION_SUFFIXES
        if (path := Path(relaycore.__file__).parent / f"_core{suffix}").exists()
    ]
    return path


def test_the_extension_exports_its_init_function_only() -> None:
    lines = run("nm", "--dynamic", "--defined-only", extension()).splitlines()
    assert [line.split()[-1] for line in lines] == ["PyInit__core"]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of setup.py, which here builds nothing."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.chdir(ROOT)
    return runpy.run_path("setup.py")


def test_instruction_set_objects_share_no_code_with_others(
    build: dict[str, Any], tmp_path: Path
) -> None:
    # An inline function that such an object leaves for the linker to merge may win over the
    # baseline's copy, and then runs on processors that do not know its instructions.
    variants = {source: flags for source, flags in build["native_sources"]().items() if flags}
    for source, flags in variants.items():
        target = tmp_path / "variant.o"
        includes = ["-Isrc/relaycore/include", "-Isrc/relaycore/native"]
        run("c++", *build["compile_flags"](), *flags, *includes, "-c", source, "-o", target)
        for line in run("nm", "--defined-only", "--demangle", target).splitlines():
            _, kind, name = line.split(" ", 2)
            assert kind not in "WVu", f"{source.name} defines {name} for all"


def test_without_the_relay_its_sources_are_left_out(
    build: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_relay = {source.name for source in build["native_sources"]()}
    monkeypatch.setenv("RELAYCORE_WITHOUT_RELAY", "1")
    without = {source.name for source in build["native_sources"]()}
    needs_linux = ("relay", "load")
    stubs = {"relay_stub.cpp", "load_stub.cpp"}
    assert not stubs & with_relay
    assert {name for name in without if name.startswith(needs_linux)} == stubs
    assert {name for name in with_relay if not name.startswith(needs_linux)} <= without


WITHOUT_RELAY = """
import pytest
import relaycore

assert relaycore.simd() in relaycore.simd_available()
assert relaycore.RingBuffer(64).writable == 64
with pytest.raises(relaycore.RelayUnavailableError):
    relaycore.Relay()
with pytest.raises(relaycore.RelayUnavailableError):
    relaycore.LoadClient("127.0.0.1", 80)
"""


@pytest.mark.timeout(300)  # compiles
def test_the_library_works_where_the_relay_is_not_available(tmp_path: Path) -> None:
    run(
        *(sys.executable, "setup.py", "--quiet", "build", "--build-base", tmp_path),
        *("--build-lib", tmp_path / "lib"),
        RELAYCORE_WITHOUT_RELAY="1",
        RELAYCORE_CXXFLAGS="-O0",  # how fast it is does not matter here
    )
    run(sys.executable, "-c", WITHOUT_RELAY, PYTHONPATH=str(tmp_path / "lib"))
