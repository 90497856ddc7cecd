"""The running loop's clock, which goes on when a test says so."""

from __future__ import annotations

import asyncio

import pytest


class LoopClock:
    """In whole seconds, which add up exactly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def advance(self, seconds: float) -> None:
        """Lets so much time pass."""
        self.now += seconds
        for _ in range(3):  # timers become due, run, and so do those that they set to now
            await asyncio.sleep(0)
