"""What a client shows: level meters and figures on a terminal, quiet lines elsewhere.

`Display` and `LevelMeter` are fed from the event loop; on a terminal a thread of rich reads them.
It sees whole numbers and whole arrays, one refresh old at worst.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from roomserver.clients.wire import Samples

FLOOR_DB: Final = -60.0
_BAR_CELLS: Final = 24
_CHANNELS_PER_COLUMN: Final = 16
_FALL_DB_PER_S: Final = 24.0  # how fast a meter falls back, as the eye is used to
_HOLD_S: Final = 1.5
_QUIET_LINE_EVERY_S: Final = 10.0


def to_dbfs(level: float) -> float:
    """Decibels relative to full scale 1.0, never under `FLOOR_DB`."""
    return max(FLOOR_DB, 20 * math.log10(level)) if level > 0 else FLOOR_DB


class LevelMeter:
    """Peak levels per channel that rise at once and fall slowly.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._level = np.full(channels, FLOOR_DB)
        self._hold = np.full(channels, FLOOR_DB)
        self._held_at = np.zeros(channels)
        self._updated = time.monotonic()

    def feed(self, samples: Samples) -> None:
        """Take in samples of shape (n, channels), int16 or float32."""
        if samples.shape[0] == 0:
            return
        full_scale = 32768.0 if samples.dtype == np.int16 else 1.0
        peaks = np.maximum(-samples.min(axis=0).astype(np.float64), samples.max(axis=0))
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = np.nan_to_num(
                20 * np.log10(peaks / full_scale), nan=FLOOR_DB, neginf=FLOOR_DB
            )
        now = time.monotonic()
        self._level = np.maximum(decibels, self._fallen(now))
        higher = (decibels >= self._hold) | (now - self._held_at > _HOLD_S)
        self._hold = np.where(higher, self._level, self._hold)
        self._held_at = np.where(higher, now, self._held_at)
        self._updated = now

    @property
    def levels(self) -> NDArray[np.float64]:
        """Level per channel in dBFS, now."""
        return self._fallen(time.monotonic())

    @property
    def holds(self) -> NDArray[np.float64]:
        """Highest level of the last moments per channel, in dBFS."""
        return self._hold.clip(min=FLOOR_DB)

    def _fallen(self, now: float) -> NDArray[np.float64]:
        fallen = self._level - _FALL_DB_PER_S * (now - self._updated)
        return fallen.clip(min=FLOOR_DB)


def bar(level: float, hold: float) -> Text:
    """One meter: green, yellow over −18, red over −6 dBFS, with the held peak as a tick."""

    def cell(decibels: float) -> int:
        return round((decibels - FLOOR_DB) / -FLOOR_DB * _BAR_CELLS)

    text = Text()
    tick = min(cell(hold), _BAR_CELLS) - 1
    for index in range(_BAR_CELLS):
        decibels = FLOOR_DB - FLOOR_DB * (index + 0.5) / _BAR_CELLS
        colour = "red" if decibels > -6 else "yellow" if decibels > -18 else "green"
        if index < cell(level):
            text.append("█", colour)
        else:
            text.append("│" if index == tick else "·", colour if index == tick else "dim")
    return text


class Display:
    """Shows a client's state: a context manager.

    Args:
        console: Standard error as a rule. Meters are drawn when it is a terminal.
        title: First line of the display.
    """

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self.meter: LevelMeter | None = None
        self.names: Sequence[str] = ()
        self._figures: Mapping[str, str] = {}
        self._quiet_at = -math.inf
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=self._render,
                refresh_per_second=10,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def channels(self, names: Sequence[str]) -> None:
        """Begin metering channels of these names."""
        self.names = tuple(names)
        self.meter = LevelMeter(len(names))

    def feed(self, samples: Samples) -> None:
        """Meter samples; costs nothing when nobody sees it."""
        if self._live is not None and self.meter is not None:
            self.meter.feed(samples)

    def figures(self, figures: Mapping[str, str]) -> None:
        """Show figures by name; in a log at most every ten seconds."""
        self._figures = dict(figures)
        if self._live is None and time.monotonic() - self._quiet_at >= _QUIET_LINE_EVERY_S:
            self._quiet_at = time.monotonic()
            self.say("  ".join(f"{name} {value}" for name, value in figures.items()))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(text), soft_wrap=True)

    def _render(self) -> ConsoleRenderable:
        parts: list[ConsoleRenderable] = [Text(self.title, style="bold")]
        meter = self.meter
        if meter is not None and len(self.names) == meter.channels:
            parts.append(self._meters(meter))
        line = Text()
        for name, value in self._figures.items():
            line.append(f"{name} ", "dim").append(f"{value}  ")
        parts.append(line)
        return Group(*parts)

    def _meters(self, meter: LevelMeter) -> Table:
        table = Table.grid(padding=(0, 1))
        levels, holds = meter.levels, meter.holds
        columns = -(-meter.channels // _CHANNELS_PER_COLUMN)
        rows = -(-meter.channels // columns)
        for row in range(rows):
            cells: list[ConsoleRenderable] = []
            for channel in range(row, meter.channels, rows):
                cells.append(Text(self.names[channel][:16]))
                cells.append(bar(levels[channel], holds[channel]))
                cells.append(Text(f"{holds[channel]:6.1f}", style="dim"))
            table.add_row(*cells)
        return table
