"""What was due to a listener, who was the bottleneck, and options of `roomserver load`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from relaycore import Durations, LoadClient
from roomserver.cli import app
from roomserver.clients.load_report import (
    Quantiles,
    ThreadLoad,
    bottleneck,
    delivery,
    frames_due,
)

OFFSET_US = 1_700_000_000_000_000
FRAME_MS = 20
PERIOD_US = FRAME_MS * 1000


@pytest.fixture(scope="module")
def dtype() -> np.dtype[Any]:
    """Of a load client's records."""
    with LoadClient("127.0.0.1", 1) as client:
        return client.listeners().dtype


def listener(
    dtype: np.dtype[Any],
    *,
    joined_us: int,
    first_us: int = 0,
    last_us: int = 0,
    frames: int = 0,
    expected: int | None = None,
) -> NDArray[Any]:
    """One record; times from the beginning, of the server's clock."""
    record = np.zeros(1, dtype)
    record["joined_ns"] = joined_us * 1000
    record["first_us"] = first_us + OFFSET_US
    record["last_us"] = last_us + OFFSET_US
    record["frames"] = frames
    record["expected"] = frames if expected is None else expected
    return record


def due(record: NDArray[Any], until_us: int) -> int:
    found = frames_due(
        record, until_us=until_us + OFFSET_US, offset_us=OFFSET_US, frame_ms=FRAME_MS
    )
    return int(found[0])


# Ticks are at 0, 20, 40 … ms; this one hears from the one at 120 ms to the one at 1,980 ms.
WHOLE = {"joined_us": 105_000, "first_us": 120_000, "last_us": 1_980_000, "frames": 94}


def test_nothing_is_missing_of_what_came_whole(dtype: np.dtype[Any]) -> None:
    assert due(listener(dtype, **WHOLE), 2_000_000) == 94


@pytest.mark.parametrize("until_us", [1_980_500, 1_990_000, 2_000_999])
def test_the_tick_after_the_end_is_not_due(dtype: np.dtype[Any], until_us: int) -> None:
    assert due(listener(dtype, **WHOLE), until_us) == 94


def test_what_the_sequence_passed_over_is_due(dtype: np.dtype[Any]) -> None:
    assert due(listener(dtype, **WHOLE | {"frames": 90, "expected": 94}), 2_000_000) == 94


def test_ticks_before_the_first_and_after_the_last_frame_are_due(dtype: np.dtype[Any]) -> None:
    late = WHOLE | {"first_us": 160_000, "last_us": 1_900_000, "frames": 88}
    assert due(listener(dtype, **late), 2_000_000) == 94


def test_a_server_that_makes_too_few_frames_is_held_to_its_rate(dtype: np.dtype[Any]) -> None:
    # 40 a second, in an unbroken sequence: 50 were to come, less two for drift and phase.
    lazy = listener(dtype, joined_us=5_000, first_us=25_000, last_us=9_975_000, frames=399)
    assert due(lazy, 10_000_000) == 497


def test_a_clock_that_drifts_costs_no_frame(dtype: np.dtype[Any]) -> None:
    # 300 ppm slow over a hundred seconds: one and a half periods.
    frames = 4_999
    last_us = round((frames - 1) * PERIOD_US * 1.0003)
    assert due(listener(dtype, joined_us=1, last_us=last_us, frames=frames), 100_000_000) == frames


def test_who_heard_nothing_has_everything_missing(dtype: np.dtype[Any]) -> None:
    assert due(listener(dtype, joined_us=1_000_000), 2_000_000) == 50


def test_nothing_is_due_to_who_never_joined(dtype: np.dtype[Any]) -> None:
    record = listener(dtype, joined_us=0)
    assert due(record, 2_000_000) == 0
    summed = delivery(record, np.zeros(1, np.int64), Durations())
    assert (summed.listeners, summed.due, summed.missing, summed.worst) == (0, 0, 0, 1.0)


def test_a_group_is_the_sum_of_its_listeners(dtype: np.dtype[Any]) -> None:
    records = np.concatenate(
        [listener(dtype, joined_us=1, frames=100), listener(dtype, joined_us=1, frames=40)]
    )
    records["gaps"] = [0, 3]
    records["bytes"] = [5000, 2000]
    records["state"] = [2, 3]
    summed = delivery(records, np.array([100, 80]), Durations())
    assert (summed.listeners, summed.due, summed.delivered, summed.missing) == (2, 180, 140, 40)
    assert (summed.gaps, summed.gone, summed.worst) == (3, 1, 0.5)
    assert summed.bytes == 7000


def thread(load: float = 0.2, waited: float = 0.1, late: float = 1.0) -> ThreadLoad:
    quantiles = Quantiles(1000, late, late, late, late, late, late)
    return ThreadLoad("listeners 0", load, waited, quantiles)


@pytest.mark.parametrize(
    ("loads", "words"),
    [
        ([thread()], None),
        ([thread(late=40)], "40 ms"),
        ([thread(late=4)], None),  # that nobody would notice
        ([thread(), thread(load=0.95)], "busy 95 %"),
        ([thread(waited=0.4)], "waited for a processor 40 %"),
        ([thread(), ThreadLoad("python", 0.2)], None),
        ([thread(), ThreadLoad("python", 0.95)], "python was busy 95 %"),
    ],
)
def test_a_load_client_that_was_the_bottleneck_says_so(
    loads: list[ThreadLoad], words: str | None
) -> None:
    told = bottleneck(loads, 60.0)
    assert told is None if words is None else told is not None and words in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "either --email"),
        (("--room", "ABCDEF", "--email", "a@b.org"), "either --email"),
        (("--email", "a@b.org", "--own-mixes"), "--mode mix"),
        (("--email", "a@b.org", "--mode", "surround"), "multichannel or mix"),
        (("--email", "a@b.org", "--stalled", "10"), "a share like 10%"),
        (("--email", "a@b.org", "--stalled", "-5%"), "a share like 10%"),
        (("--email", "a@b.org", "--stalled", "60%", "--slow", "40%"), "somebody has to listen"),
        (("--email", "a@b.org", "--slow", "75%"), "somebody has to listen"),  # of two
        (("--email", "a@b.org", "--rate", "12345"), "--rate: one of"),
        (("--email", "a@b.org", "--frame-ms", "15"), "--frame-ms: 5"),
        (("--email", "a@b.org", "--storm", "10"), "before the 10 s of --seconds are over"),
        (("--email", "a@b.org", "--seconds", "2", "--storm", "3"), "error: --storm has to come"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(app, ["load", "http://127.0.0.1:1", "-n", "2", *arguments])
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--listeners", "20000000"),
        ("--in-flight", "2000000"),
        ("--slow-bandwidth", "2000000000000"),
        ("--pid", "99999999999"),
        ("--pid", "0"),
        ("--ramp", "1e10"),
        ("--ramp", "nan"),
        ("--mix-changes", "inf"),
        ("--mix-changes", "nan"),
        ("--seconds", "inf"),
        ("--seconds", "nan"),
        ("--storm", "inf"),
        ("--storm", "nan"),
        ("--buffer-ms", "nan"),
    ],
)
def test_numbers_beyond_what_can_be_done_are_refused(option: str, value: str) -> None:
    arguments = ["load", "http://127.0.0.1:1", "-n", "2", "--room", "ABCDEF", option, value]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output
