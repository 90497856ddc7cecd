"""The player against simulated time: clocks that differ, gaps, stalls, other ways and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from support.browser import ClientPage, client_page, decoded
from support.server import ServerProcess

HERTZ = 440
#: What is left of a sine of amplitude 0.5 when the sine is taken out of it (scripts/playout.js).
#: A sample out of place would leave its own height.
CLICK = 0.004
SMOOTH = 0.0002


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(browser: Browser, server: ServerProcess) -> AsyncIterator[ClientPage]:
    async with client_page(browser, server.url) as page:
        yield page


async def play(page: ClientPage, **options: Any) -> dict[str, Any]:
    told: dict[str, Any] = await page.call("playout.js", "playTone", {"hertz": HERTZ, **options})
    return told


def figure(told: dict[str, Any], second: float, name: str) -> Any:
    """As it was at that time."""
    return next(f for f in told["figures"] if f["second"] >= second)[name]


@pytest.mark.parametrize("ppm", [200, -200])
async def test_an_hour_with_clocks_that_differ_is_level_and_without_a_click(
    page: ClientPage, ppm: int
) -> None:
    hour = 3600
    keep = [[second, second + 4] for second in (60, hour - 10)]
    told = await play(page, rate=8000, seconds=hour, ppm=ppm, jitterMs=2, keep=keep)
    settled = [f for f in told["figures"] if f["second"] > 60]
    delays = [f["bufferMs"] for f in settled]
    quantum_ms = 16
    # By far less than a quantum: 200 ppm of an hour are 720 ms.
    assert max(delays) - min(delays) < quantum_ms
    assert max(abs(f["bufferMs"] - f["targetMs"]) for f in settled) < quantum_ms / 2
    assert np.mean([f["driftPpm"] for f in settled]) == pytest.approx(ppm, abs=20)
    assert settled[-1]["underruns"] == 0
    assert settled[-1]["concealedSamples"] == 0
    assert told["click"] < SMOOTH
    for text in told["kept"]:
        heard = decoded(text).astype(np.float64)[:32_000]
        spectrum = np.abs(np.fft.rfft(heard * np.blackman(heard.size))) ** 2
        frequencies = np.arange(spectrum.size) * 8000 / heard.size
        beside = spectrum[np.abs(frequencies - HERTZ) > 20].sum()
        assert 10 * np.log10(beside / spectrum.sum()) < -85


async def test_clocks_that_differ_are_followed_at_another_rate_than_the_devices(
    page: ClientPage,
) -> None:
    options = {"rate": 44_100, "contextRate": 48_000, "seconds": 600, "ppm": 200, "jitterMs": 2}
    told = await play(page, **options, keep=[[590, 594]])
    settled = [f for f in told["figures"] if f["second"] > 60]
    delays = [f["bufferMs"] for f in settled]
    # By far less than what the clocks differ by in this time, 120 ms.
    assert max(delays) - min(delays) < 16
    assert max(abs(f["bufferMs"] - f["targetMs"]) for f in settled) < 8
    assert np.mean([f["driftPpm"] for f in settled]) == pytest.approx(200, abs=20)
    assert settled[-1]["underruns"] == 0
    assert settled[-1]["concealedSamples"] == 0
    assert told["click"] < SMOOTH
    heard = decoded(told["kept"][0]).astype(np.float64)[:192_000]
    spectrum = np.abs(np.fft.rfft(heard * np.blackman(heard.size))) ** 2
    frequencies = np.arange(spectrum.size) * 48_000 / heard.size
    beside = spectrum[np.abs(frequencies - HERTZ) > 20].sum()
    assert 10 * np.log10(beside / spectrum.sum()) < -85


async def test_what_is_lost_is_concealed_and_counted(page: ClientPage) -> None:
    told = await play(page, rate=48_000, seconds=12, lost=[300, 301, 302, 400], jitterMs=1)
    assert figure(told, 11, "underruns") == 2
    assert figure(told, 11, "concealedSamples") == 4 * 960
    assert told["click"] < CLICK


async def test_a_stall_that_happens_once_is_not_followed_but_the_second_is(
    page: ClientPage,
) -> None:
    stalls = [{"at": 10, "ms": 300}, {"at": 25, "ms": 150}, {"at": 40, "ms": 140}]
    told = await play(page, rate=48_000, seconds=70, stalls=stalls, jitterMs=1)
    assert figure(told, 12, "bufferMs") <= figure(told, 9, "bufferMs")
    assert figure(told, 27, "bufferMs") > 140
    assert figure(told, 45, "underruns") == 2  # the third finds enough held back
    assert figure(told, 68, "underruns") == 2
    assert told["click"] < CLICK


async def test_a_way_that_becomes_longer_and_shorter_is_followed(page: ClientPage) -> None:
    slower = [{"at": 10, "ms": 400}, {"at": 20, "ms": -400}]
    told = await play(page, rate=48_000, seconds=26, slower=slower, jitterMs=1)
    for second in (13, 23):
        assert figure(told, second, "playing")
        assert figure(told, second, "bufferMs") < 60
    assert told["click"] < CLICK


async def test_after_an_interruption_the_delay_is_what_it_was(page: ClientPage) -> None:
    stalls = [{"at": 10, "ms": 5000}]
    told = await play(page, rate=44_100, contextRate=48_000, seconds=20, stalls=stalls, jitterMs=1)
    assert not figure(told, 13, "playing")
    assert figure(told, 17, "playing")
    assert figure(told, 17, "bufferMs") <= figure(told, 9, "bufferMs") + 1
    assert told["click"] < CLICK


@pytest.mark.parametrize("apart_ms", [0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 8.0, 14.0, 18.0])
async def test_what_waited_during_an_interruption_adds_no_delay_however_slowly_it_comes(
    page: ClientPage, apart_ms: float
) -> None:
    stalls = [{"at": 10, "ms": 5000}]
    all_there = 15 + 5 * apart_ms / (20 - apart_ms)  # frames are of 20 ms
    seconds = [all_there + 3, all_there + 6]
    options = {"stalls": stalls, "jitterMs": 1, "apartMs": apart_ms}
    told = await play(page, rate=48_000, seconds=seconds[-1] + 2, **options)
    assert not figure(told, 13, "playing")
    for second in seconds:
        assert figure(told, second, "playing")
        assert figure(told, second, "targetMs") <= figure(told, 9, "targetMs") + 5
        assert figure(told, second, "bufferMs") <= figure(told, second, "targetMs") + 40
    assert told["click"] < CLICK


@pytest.mark.parametrize("ms", [60, 80, 100, 120, 140])
async def test_what_is_held_back_for_a_stall_right_after_the_start_is_there_for_the_next(
    page: ClientPage, ms: int
) -> None:
    stalls = [{"at": 1, "ms": ms}, {"at": 8, "ms": ms}]
    told = await play(page, rate=48_000, seconds=12, stalls=stalls, jitterMs=1)
    assert figure(told, 11, "underruns") == 1
    assert figure(told, 11, "skippedMs") == 0


@pytest.mark.parametrize("ms", [60, 80, 100, 120, 140])
@pytest.mark.parametrize(
    ("away", "apart_ms"),
    [
        ({"at": 1.5, "ms": 2500}, 0.5),  # it begins anew at 4 s
        ({"at": 0, "ms": 2000}, 10),  # what waited comes in for as long again
    ],
)
async def test_what_is_held_back_for_a_stall_after_a_burst_is_there_for_the_next(
    page: ClientPage, away: dict[str, float], apart_ms: float, ms: int
) -> None:
    stalls = [away, {"at": 4.8, "ms": ms}, {"at": 8, "ms": ms}]
    told = await play(page, rate=48_000, seconds=12, stalls=stalls, jitterMs=1, apartMs=apart_ms)
    # By now the burst is left out, and the stall followed.
    before = next(f for f in told["figures"] if f["second"] >= 5.9)
    assert before["targetMs"] > ms - 20
    assert figure(told, 7.5, "targetMs") < before["targetMs"] - 40
    for name in ("skippedMs", "underruns", "concealedSamples"):
        assert figure(told, 11, name) == before[name]


async def test_nothing_is_left_out_after_a_start_that_was_amid_no_burst(page: ClientPage) -> None:
    # Seeds far apart: else they begin with the same numbers.
    for seed in range(10_000, 310_000, 10_000):
        told = await play(page, rate=48_000, seconds=8, jitterMs=40, seed=seed)
        assert figure(told, 7, "skippedMs") == 0


async def test_another_stream_begins_without_a_click(page: ClientPage) -> None:
    told = await play(page, rate=48_000, seconds=10, restarts=[6], jitterMs=1)
    assert figure(told, 9, "playing")
    assert told["click"] < CLICK


@pytest.mark.parametrize(("rate", "then"), [(48_000, 44_100), (44_100, 48_000), (48_000, 96_000)])
async def test_a_stream_of_another_rate_begins_without_a_click(
    page: ClientPage, rate: int, then: int
) -> None:
    told = await play(
        page,
        rate=rate,
        restartRate=then,
        contextRate=48_000,
        seconds=10,
        restarts=[6],
        jitterMs=1,
        keep=[[8, 9]],
    )
    assert figure(told, 9, "playing")
    assert told["click"] < CLICK
    assert np.abs(decoded(told["kept"][0])).max() == pytest.approx(0.5, abs=0.01)


async def test_memory_is_what_the_frames_that_wait_need(page: ClientPage) -> None:
    options = {"hertz": HERTZ, "rate": 8000, "seconds": 30, "jitterMs": 1}
    arrays = await page.call("playout.js", "countAllocations", options, 160)
    assert arrays < 60  # of 1500 frames


@pytest.mark.parametrize(("rate", "then"), [(48_000, 8_000), (44_100, 96_000), (96_000, 88_200)])
async def test_nothing_that_takes_long_is_made_on_the_audio_thread(
    page: ClientPage, rate: int, then: int
) -> None:
    options = {
        "hertz": HERTZ,
        "rate": rate,
        "contextRate": 48_000,
        "seconds": 6,
        "restarts": [3],
        "restartRate": then,
    }
    # A resampler's table has 16,000 coefficients or more, each of which takes a series.
    assert await page.call("playout.js", "countAllocations", options, 10_000) == 0


async def test_a_fixed_delay_is_held(page: ClientPage) -> None:
    told = await play(page, rate=48_000, seconds=20, bufferMs=200, jitterMs=5, ppm=-100)
    assert figure(told, 19, "targetMs") == pytest.approx(200)
    assert figure(told, 19, "bufferMs") == pytest.approx(200, abs=8)
    assert told["figures"][-1]["underruns"] == 0


async def test_a_shorter_delay_that_is_set_right_after_the_start_is_there_soon(
    page: ClientPage,
) -> None:
    later = {"at": 1, "bufferMs": 100}
    told = await play(page, rate=48_000, seconds=5, bufferMs=200, jitterMs=1, setLater=later)
    assert figure(told, 0.9, "bufferMs") == pytest.approx(200, abs=8)
    assert figure(told, 2.5, "bufferMs") == pytest.approx(100, abs=8)
