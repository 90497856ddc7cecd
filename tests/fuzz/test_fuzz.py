"""Coverage-guided fuzzing of the parsers and of the jitter buffer, each for a minute.

The fuzzers start with the tests and run beside them. To look for longer, and to keep what was found
(look at it and commit it):

    FUZZ_SECONDS=3600 make fuzz

An input that fails is left under `build/fuzz/`; give it to the fuzzer as its only argument to see
it again, and put it into the corpus with the fix.
"""

from __future__ import annotations

import pytest

from support.fuzzing import FUZZ, HAS_ATHERIS, TARGETS, TIMEOUT_S, FuzzRun

NO_ATHERIS = pytest.mark.skip(reason="atheris is not for this Python or processor")


def can_run(target: str) -> bool:
    return HAS_ATHERIS or not (FUZZ / f"{target}.py").exists()


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=() if can_run(t) else NO_ATHERIS) for t in TARGETS]
)
def test_fuzzer_finds_nothing(fuzz_run: FuzzRun, target: str) -> None:
    result = fuzz_run.result(target)
    assert result.returncode == 0, result.log
    assert result.corpus, f"{FUZZ / 'corpus' / target} is empty: the run started from nothing"
    assert result.executed > result.corpus, "the kept corpus was not even replayed"


def test_every_parser_of_bytes_from_outside_is_fuzzed() -> None:
    assert {"fuzz_packet", "fuzz_ws_codec", "fuzz_handshake", "fuzz_jitter_buffer"} <= set(TARGETS)
