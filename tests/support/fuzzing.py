"""Coverage-guided fuzzing in the background.

A `FuzzRun` is a process beside the tests that builds the fuzzers and runs them, all at once and
with a low priority, so that they take what the other tests leave. It ends with the process that
started it, however that ends.

A target is a file `tests/fuzz/fuzz_*`: in C++ for libFuzzer with the address and undefined-
behaviour sanitizers, in Python for atheris, which is libFuzzer too. Each starts from
`tests/fuzz/corpus/NAME` and, where there is one, with the words of `tests/fuzz/NAME.dict`.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from support.native import ROOT, CompilationError, build

FUZZ = ROOT / "tests" / "fuzz"
TARGETS = sorted(file.stem for file in FUZZ.glob("fuzz_*.*") if file.suffix in {".cpp", ".py"})
# As pyproject.toml says: elsewhere there is no atheris to install.
HAS_ATHERIS = (
    sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14)
)
FLAGS = ("-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
# Generous, for a machine on which others have the processors: a hang is one all the same.
OPTIONS = ("-max_len=4096", "-timeout=60", "-rss_limit_mb=1024")
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))  # each
KEEP = os.environ.get("FUZZ_KEEP") == "1"  # what was found becomes the kept corpus, minimised
OVERHEAD_S = 480  # beyond the fuzzing itself: compiling, reading the corpus, merging
TIMEOUT_S = SECONDS + OVERHEAD_S


@dataclass(frozen=True)
class Result:
    """What a fuzzer came to. `log` is the end of what it said."""

    returncode: int
    executed: int  # inputs that were run
    corpus: int  # inputs that it started from
    log: str


class FuzzRun:
    """Fuzzers under way. `stop` must be called."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.fuzzing", self._folder, *targets],
                cwd=ROOT / "tests",
                stdin=subprocess.PIPE,  # it ends when this does
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def result(self, target: str) -> Result:
        """Waits for a target to be through."""
        end = time.monotonic() + TIMEOUT_S
        file = self._folder / target
        while not file.exists():
            if self._process.poll() is not None and not file.exists():
                log = (self._folder / "log").read_text()
                raise AssertionError(f"the process of the fuzzers ended: {log}")
            assert time.monotonic() < end, f"{target} is not through after {TIMEOUT_S} s"
            time.sleep(0.1)
        return Result(**json.loads(file.read_text()))

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def run_unguided(arguments: Sequence[str], one_input: Callable[[bytes], None]) -> None:
    """What stands in for libFuzzer where there is none: random changes of the corpus, as long as
    it is told to. Takes the same options and leaves the input that failed as an artifact."""
    options = dict(a.lstrip("-").split("=", 1) for a in arguments if a.startswith("-"))
    if "merge" in options:
        sys.exit("a corpus can only be merged with atheris")
    folders = [Path(a) for a in arguments if not a.startswith("-")]
    corpus = [file.read_bytes() for folder in folders for file in sorted(folder.iterdir())]
    rng = random.Random()
    executed = 0
    end = time.monotonic() + int(options["max_total_time"])
    while time.monotonic() < end:
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.randrange(1, 9)):
            at = rng.randrange(len(data) + 1)
            other = rng.choice(corpus)
            begin = rng.randrange(len(other) + 1)
            piece = rng.choice([rng.randbytes(rng.randrange(4)), other[begin : begin + 40]])
            data[at : at + rng.choice([0, len(piece), rng.randrange(20)])] = piece
        try:
            one_input(bytes(data))
        except BaseException:
            Path(options.get("artifact_prefix", "") + f"crash-{os.getpid()}").write_bytes(data)
            raise
        executed += 1
    print(f"stat::number_of_executed_units: {executed}")


# ---- in the process beside ----


class Fuzzers:
    """Builds and runs; its fuzzers end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def end(self) -> None:
        with self._lock:
            self._over = True
            for process in self._running:
                process.kill()

    def run(self, command: Sequence[str | Path], log: IO[bytes]) -> int:
        with self._lock:
            if self._over:
                return -9
            process = subprocess.Popen(
                ["nice", "-n", "10", *command], stdout=log, stderr=subprocess.STDOUT
            )
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    def fuzz(self, target: str) -> Result:
        kept = FUZZ / "corpus" / target
        failed = ROOT / "build" / "fuzz" / target
        failed.mkdir(parents=True, exist_ok=True)
        inputs = len(list(kept.iterdir())) if kept.exists() else 0
        if (FUZZ / f"{target}.py").exists():
            fuzzer: list[str | Path] = [sys.executable, FUZZ / f"{target}.py"]
        else:
            try:
                fuzzer = [build(FUZZ / f"{target}.cpp", compiler="clang++", flags=FLAGS)]
            except CompilationError as error:
                return Result(1, 0, inputs, str(error))
        fuzzer += OPTIONS
        with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as log:
            found, minimal = Path(name, "found"), Path(name, "minimal")
            found.mkdir()
            minimal.mkdir()
            words = FUZZ / f"{target}.dict"
            returncode = self.run(
                [
                    *fuzzer,
                    f"-max_total_time={SECONDS}",
                    f"-artifact_prefix={failed}/",
                    "-print_final_stats=1",
                    *([f"-dict={words}"] if words.exists() else []),
                    *(found, kept),
                ],
                log,
            )
            if returncode == 0 and KEEP:
                returncode = self.run([*fuzzer, "-merge=1", minimal, kept, found], log)
                if returncode == 0:
                    shutil.rmtree(kept)
                    shutil.copytree(minimal, kept)
            log.seek(0)
            text = log.read().decode(errors="replace")
        executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
        return Result(returncode, int(executed[1]) if executed else 0, inputs, text[-8000:])


def main(folder: str, *targets: str) -> None:
    fuzzers = Fuzzers()

    def run(target: str) -> None:
        try:
            result = fuzzers.fuzz(target)
        except Exception:  # it is the test's failure, told where the test waits
            result = Result(1, 0, 0, traceback.format_exc())
        unfinished = Path(folder, f".{target}")
        with suppress(FileNotFoundError):  # nobody waits for it any more
            unfinished.write_text(json.dumps(asdict(result)))
            unfinished.replace(Path(folder, target))

    pool = ThreadPoolExecutor(len(targets))
    for target in targets:
        pool.submit(run, target)
    sys.stdin.read()  # ends with the tests
    pool.shutdown(wait=False, cancel_futures=True)
    fuzzers.end()
    shutil.rmtree(folder)
    os._exit(0)  # without waiting for a compiler


if __name__ == "__main__":
    main(*sys.argv[1:])
