"""Coverage-guided fuzzing of the parsers and of the jitter buffer, each for a minute.

All of them run at once, beside whatever other tests are chosen. To look for longer, and to keep
what was found (look at it and commit it):

    FUZZ_SECONDS=3600 make fuzz

An input that fails is left under `build/fuzz/`; give it to the fuzzer as its only argument to see
it again, and put it into the corpus with the fix.
"""

from __future__ import annotations

import pytest

from support.fuzzing import FUZZ, TARGETS, TIMEOUT_S, FuzzRun


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzer_finds_nothing(fuzz_run: FuzzRun, target: str) -> None:
    result = fuzz_run.result(target)
    assert result.returncode == 0, result.log
    assert result.corpus, f"{FUZZ / 'corpus' / target} is empty: the run started from nothing"
    assert result.executed > result.corpus, "the kept corpus was not even replayed"


def test_every_parser_of_bytes_from_outside_is_fuzzed() -> None:
    assert {"fuzz_packet", "fuzz_ws_codec", "fuzz_handshake", "fuzz_jitter_buffer"} <= set(TARGETS)
