"""Requests that hold passwords or tokens."""

from __future__ import annotations

from msgspec import Struct


class Discreet(Struct):
    """A struct that does not tell what it holds where it is printed."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"
