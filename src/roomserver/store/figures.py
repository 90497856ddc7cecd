"""How a store is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class DatabaseState(StrEnum):
    """Whether what happens gets into the database."""

    NONE = "none"  # there is none
    UP = "up"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """Figures of a store, as of now; `dropped` and `dead_letters` since the server's start."""

    database: DatabaseState = DatabaseState.NONE
    waiting: int = 0  # events that the database does not have yet
    capacity: int = 0  # how many may wait
    dropped: Mapping[str, int] = field(default_factory=dict)  # by kind of event
    dead_letters: int = 0
