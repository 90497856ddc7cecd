"""A clock that stands still until a test moves it on."""

from __future__ import annotations


class Clock:
    """Called, it says the Unix time."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now
