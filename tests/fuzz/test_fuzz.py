"""Coverage-guided fuzzing of the native parsers (libFuzzer, with ASan and UBSan).

A run starts from the kept corpus and is short by default. To look for longer, and to keep what
was found, minimised:

    FUZZ_SECONDS=3600 FUZZ_KEEP=1 pytest tests/fuzz

An input that fails is left under `build/fuzz/`; give it to the program as its only argument to
see it again, and put it into the corpus with the fix.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from support.native import ROOT, build, run

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("FUZZ_SECONDS", "3"))
KEEP = os.environ.get("FUZZ_KEEP") == "1"
FLAGS = ("-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
MAX_LEN = 4096


@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("target", sorted(source.stem for source in HERE.glob("fuzz_*.cpp")))
def test_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    fuzzer = build(HERE / f"{target}.cpp", compiler="clang++", flags=FLAGS)
    kept = HERE / "corpus" / target
    failed = ROOT / "build" / "fuzz" / target
    failed.mkdir(parents=True, exist_ok=True)
    found = tmp_path / "found"
    found.mkdir()
    options = [f"-max_len={MAX_LEN}", "-timeout=10", "-rss_limit_mb=1024"]

    done = run(
        [
            fuzzer,
            *options,
            f"-max_total_time={SECONDS}",
            f"-artifact_prefix={failed}/",
            "-print_final_stats=1",
            found,
            kept,
        ],
        timeout=SECONDS + 60,
    )

    assert done.returncode == 0, done.stdout[-8000:]
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout)
    assert executed is not None, done.stdout[-8000:]
    corpus = [file.read_bytes() for file in kept.iterdir()]
    assert corpus, f"{kept} is empty: the run started from nothing"
    assert int(executed[1]) > len(corpus), "the kept corpus was not even replayed"
    if KEEP:
        minimal = tmp_path / "minimal"
        minimal.mkdir()
        merged = run([fuzzer, *options, "-merge=1", minimal, kept, found], timeout=300)
        assert merged.returncode == 0, merged.stdout[-8000:]
        shutil.rmtree(kept)
        shutil.copytree(minimal, kept)
