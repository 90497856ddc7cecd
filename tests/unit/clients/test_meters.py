"""Meters and figures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from roomserver.clients.meters import FLOOR_DB, Display, LevelMeter, bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("roomserver.clients.meters.time.monotonic", lambda: now[0])
    return now


def test_a_meter_rises_at_once_and_falls_slowly(clock: list[float]) -> None:
    meter = LevelMeter(3)
    samples = np.zeros((10, 3), np.int16)
    samples[4] = [-32768, 16384, 0]
    meter.feed(samples)
    assert meter.levels == pytest.approx([0, -6.02, FLOOR_DB], abs=0.01)
    clock[0] += 0.5
    assert meter.levels == pytest.approx([-12, -18.02, FLOOR_DB], abs=0.01)
    assert meter.holds == pytest.approx([0, -6.02, FLOOR_DB], abs=0.01)
    clock[0] += 60
    meter.feed(np.full((1, 3), 0.5, np.float32))
    assert meter.levels == pytest.approx([-6.02] * 3, abs=0.01)
    assert meter.holds == pytest.approx([-6.02] * 3, abs=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_a_meter_survives_any_float(clock: list[float], value: float) -> None:
    meter = LevelMeter(1)
    meter.feed(np.full((2, 1), value, np.float32))
    assert np.isfinite(meter.levels).all()
    bar(meter.levels[0], meter.holds[0])


def test_a_bar_is_as_long_as_the_level() -> None:
    assert bar(FLOOR_DB, FLOOR_DB).plain.count("█") == 0
    assert bar(-30, -30).plain.count("█") == 12
    assert bar(0, 0).plain.count("█") == 24
    assert bar(-30, -6).plain.index("│") > 12
    assert len(bar(-12.3, -1).plain) == 24


def test_a_log_has_a_line_every_ten_seconds(clock: list[float]) -> None:
    log = io.StringIO()
    with Display(Console(file=log, width=100), "title") as display:
        for _ in range(21):
            display.figures({"delay": f"{clock[0]:.0f} ms"})
            clock[0] += 1
    assert log.getvalue().splitlines() == ["delay 100 ms", "delay 110 ms", "delay 120 ms"]


@pytest.mark.parametrize("channels", [1, 16, 64])
def test_a_terminal_shows_every_channel(channels: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, height=50)
    with Display(console, "Great hall") as display:
        display.channels([f"c{channel}." for channel in range(channels)])
        display.feed(np.full((10, channels), 0.5, np.float32))
        display.figures({"delay": "3 ms"})
        display.say("a line that stays")
    shown = screen.getvalue()
    for text in ["Great hall", "delay", "a line that stays"]:
        assert text in shown
    assert all(f"c{channel}." in shown for channel in range(channels))
