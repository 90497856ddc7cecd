"""Build of the one extension module, `relaycore._core`.

Every file `native/<name>_<isa>.cpp` is one instruction set's variant and gets flags of its own;
all the rest is built for the platform's baseline. The variant is chosen at run time, so a wheel
runs on any machine of its architecture.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
PACKAGE = Path("src/relaycore")
MACHINE = platform.machine().lower()
# A cross build (macOS arm64 on x86-64 and back) names its target here.
if "arm64" in os.environ.get("ARCHFLAGS", ""):
    MACHINE = "arm64"
elif "x86_64" in os.environ.get("ARCHFLAGS", ""):
    MACHINE = "x86_64"

ISA_FLAGS: dict[str, list[str]] = {
    "sse2": ["-msse2"],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma"],
    "neon": [],
}
ISA_OF_MACHINE = {
    "x86_64": ["sse2", "avx2", "avx512"],
    "amd64": ["sse2", "avx2", "avx512"],
    "aarch64": ["neon"],
    "arm64": ["neon"],
}.get(MACHINE, [])

COMPILE_FLAGS = ["-std=c++20", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-fno-math-errno"]
LINK_FLAGS: list[str] = []
if extra := os.environ.get("RELAYCORE_CXXFLAGS"):  # sanitizer and debug builds
    COMPILE_FLAGS += extra.split()
    LINK_FLAGS += extra.split()
if sys.platform == "darwin":
    COMPILE_FLAGS.append("-mmacosx-version-min=11.0")


def isa_of(source: Path) -> str | None:
    suffix = source.stem.rsplit("_", 1)[-1]
    return suffix if suffix in ISA_FLAGS else None


def native_sources() -> tuple[list[str], dict[str, list[str]]]:
    """The files built with common flags, and per instruction set those with flags of their own."""
    common: list[str] = []
    per_isa: dict[str, list[str]] = {}
    for source in sorted((ROOT / PACKAGE / "native").glob("*.cpp")):
        relative = str(source.relative_to(ROOT))
        isa = isa_of(source)
        if isa is None:
            common.append(relative)
        elif isa in ISA_OF_MACHINE:
            per_isa.setdefault(isa, []).append(relative)
    return common, per_isa


COMMON, PER_ISA = native_sources()


class BuildExtPerIsa(build_ext):
    """Compiles the instruction-set objects first and links them in."""

    def build_extension(self, ext: Extension) -> None:
        for isa, sources in PER_ISA.items():
            ext.extra_objects += self.compiler.compile(
                sources,
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                macros=ext.define_macros,
                extra_postargs=COMPILE_FLAGS + ISA_FLAGS[isa],
                depends=ext.depends,
            )
        super().build_extension(ext)


core = Extension(
    "relaycore._core",
    sources=[str(PACKAGE / "_core.pyx"), *COMMON],
    include_dirs=[str(PACKAGE / "include"), str(PACKAGE / "native")],
    define_macros=[(f"RELAYCORE_HAVE_{isa.upper()}", "1") for isa in PER_ISA],
    depends=[
        str(p.relative_to(ROOT))
        for pattern in ("*.pyx", "*.pxi", "*.pxd", "include/relaycore/*.h", "native/*.h")
        for p in sorted((ROOT / PACKAGE).glob(pattern))
    ],
    extra_compile_args=COMPILE_FLAGS,
    extra_link_args=LINK_FLAGS,
    language="c++",
)

setup(
    ext_modules=cythonize(
        [core],
        include_path=[str(PACKAGE)],
        compiler_directives={
            "language_level": "3str",
            "freethreading_compatible": True,
            "embedsignature": True,
            "binding": True,
        },
    ),
    cmdclass={"build_ext": BuildExtPerIsa},
)
