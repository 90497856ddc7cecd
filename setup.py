"""Build of the one extension module, `relaycore._core`.

Every file `native/<name>_<isa>.cpp` is one instruction set's variant and gets flags of its own;
all the rest is built for the platform's baseline. The variant is chosen at run time, so a wheel
runs on any machine of its architecture.

`native/relay*.cpp` is the relay and `native/load*.cpp` the load client; they need Linux. Elsewhere
`relay_stub.cpp` and `load_stub.cpp` stand in, so that rings, jitter buffer and kernels build
everywhere.

Environment:
    RELAYCORE_WITHOUT_RELAY=1   build the stubs on Linux too
    RELAYCORE_CXXFLAGS          appended when compiling and linking (sanitizers, debugging);
                                symbols are then kept

Objects are kept under `build/native/`, one folder per set of flags, and are compiled again only
when a file that they include has changed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path("src/relaycore")
NATIVE = PACKAGE / "native"

# Kernels throw nothing, and what unwinding needs would be shared with other objects.
ISA_FLAGS = {
    "sse2": ["-fno-exceptions", "-msse2"],
    "avx2": ["-fno-exceptions", "-mavx2"],
    "avx512": ["-fno-exceptions", *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))],
    "neon": ["-fno-exceptions"],  # part of the baseline on every 64-bit ARM
}
ISA_OF_MACHINE = {
    "x86_64": ("sse2", "avx2", "avx512"),
    "amd64": ("sse2", "avx2", "avx512"),
    "aarch64": ("neon",),
    "arm64": ("neon",),
}
CYTHON_DIRECTIVES = {
    "language_level": "3str",
    "freethreading_compatible": True,
    "embedsignature": True,
    "binding": True,
    "autotestdict": False,  # no stray __test__ in the module
}


def machine() -> str:
    """The architecture that is built for; empty for several at once, which get no variants."""
    if sys.platform != "darwin":
        return platform.machine().lower()
    # Pythons of python.org are universal, and one set of flags can't serve both halves. ARCHFLAGS
    # is how a cross build (arm64 on x86-64 and back) names its target.
    targets = os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}").split()[1::2]
    return targets[0] if len(targets) == 1 else ""


def with_relay() -> bool:
    """Whether relay and load client are built; they need Linux."""
    return sys.platform == "linux" and os.environ.get("RELAYCORE_WITHOUT_RELAY", "0") in ("", "0")


def native_sources() -> dict[Path, list[str]]:
    """Every C++ file of this platform, with the flags that are its own."""
    variants = ISA_OF_MACHINE.get(machine(), ())
    sources: dict[Path, list[str]] = {}
    for source in sorted(NATIVE.glob("*.cpp")):
        isa = source.stem.rsplit("_", 1)[-1]
        if isa in ISA_FLAGS:
            if isa in variants:
                sources[source] = ISA_FLAGS[isa]
        elif isa == "stub":
            if not with_relay():
                sources[source] = []
        elif not source.stem.startswith(("relay", "load")) or with_relay():
            sources[source] = []
    return sources


def macros(sources: dict[Path, list[str]]) -> list[tuple[str, str | None]]:
    """RELAYCORE_HAVE_<ISA> for each variant that is linked in."""
    suffixes = {source.stem.rsplit("_", 1)[-1] for source in sources}
    return [(f"RELAYCORE_HAVE_{isa.upper()}", "1") for isa in ISA_FLAGS if isa in suffixes]


def compile_flags() -> list[str]:
    """Common flags; they come after the interpreter's own and so win over them."""
    flags = ["-std=c++20", "-O3", "-pthread", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
    flags += ["-fno-math-errno", "-Wall", "-Wextra"]
    # A fused multiply-add rounds once where two instructions round twice: without it, a mix is the
    # same to the bit whatever the instruction set.
    flags.append("-ffp-contract=off")
    # Link-time optimisation (which some distributions' Pythons ask for) could inline one
    # instruction set's code into another's callers, past the run-time choice.
    flags += ["-fno-lto", "-g0"]
    return flags + os.environ.get("RELAYCORE_CXXFLAGS", "").split()


def link_flags() -> list[str]:
    """Nothing but the module's init function is visible outside."""
    flags = ["-pthread", "-fno-lto"]
    extra = os.environ.get("RELAYCORE_CXXFLAGS", "").split()
    if sys.platform == "darwin":
        flags.append("-Wl,-exported_symbol,_PyInit__core")
    else:
        if with_relay():
            flags.append("-ldl")  # before glibc 2.34
        flags.append(f"-Wl,--version-script={NATIVE / 'exports.map'}")
        if not extra:
            flags.append("-Wl,-s")
    return flags + extra


class BuildCore(build_ext):
    """Translates the bindings, compiles what changed, several files at once, and links."""

    def build_extension(self, ext: Extension) -> None:
        from Cython.Build import cythonize

        [bindings] = cythonize(  # type: ignore[no-untyped-call]
            [Extension(ext.name, ext.sources)],
            include_path=[str(PACKAGE)],
            compiler_directives=CYTHON_DIRECTIVES,
        )
        # The bindings take longest: they go first.
        flags_of = {Path(source): ["-w"] for source in bindings.sources}  # generated code
        flags_of |= native_sources()
        with ThreadPoolExecutor(self.parallel or os.cpu_count() or 1) as pool:
            jobs = [pool.submit(self.compile_one, ext, *item) for item in flags_of.items()]
            ext.extra_objects = [job.result() for job in jobs]

        sources, ext.sources = ext.sources, []
        forced, self.force = self.force, True  # which objects belong in it may have changed
        try:
            super().build_extension(ext)  # only links: there are no sources left
        finally:
            ext.sources, self.force = sources, forced

    def compile_one(self, ext: Extension, source: Path, flags: list[str]) -> str:
        """Compile `source` unless its object is newer than all that went into it."""
        compiler = self.compiler
        flags = [*ext.extra_compile_args, *flags]
        command = [*compiler.compiler_so, *ext.include_dirs, *compiler.include_dirs, *flags]
        command += [*map(str, ext.define_macros), os.environ.get("ARCHFLAGS", "")]
        command += [os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "CPPFLAGS")]
        key = hashlib.sha256("\0".join(command).encode()).hexdigest()[:12]
        folder = Path("build/native", key)
        target = folder / source.with_suffix(".o")
        included = target.with_suffix(".d")
        if self.force or not is_current(target, included):
            target.parent.mkdir(parents=True, exist_ok=True)
            compiler.compile(
                [str(source)],
                output_dir=str(folder),
                include_dirs=ext.include_dirs,
                macros=ext.define_macros,
                extra_postargs=[*flags, "-MMD", "-MF", str(included)],
            )
        return str(target)


def is_current(target: Path, included: Path) -> bool:
    """Whether `target` is newer than every file named in the compiler's list `included`."""
    try:
        built = target.stat().st_mtime
        names = included.read_text().split(":", 1)[1].replace("\\\n", " ").split()
        return all(Path(name).stat().st_mtime < built for name in names)
    except (OSError, IndexError):
        return False


if sys.platform == "darwin":
    # The first release whose C++ library has all that C++20 code here asks for.
    os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", "11.0")

setup(
    ext_modules=[
        Extension(
            "relaycore._core",
            sources=[str(PACKAGE / "_core.pyx")],
            include_dirs=[str(PACKAGE / "include"), str(NATIVE)],
            define_macros=macros(native_sources()),
            extra_compile_args=compile_flags(),
            extra_link_args=link_flags(),
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildCore},
)
