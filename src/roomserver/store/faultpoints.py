"""Where a test can have the process killed: between any two steps that a crash must not tear apart.

Only tests use this: a point does nothing unless the environment names it as the process starts, as
`RELAY_FAULT_POINT=drain:applied`, or `drain:applied:3` for the third time it is passed.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Literal, TypeAlias, get_args

VARIABLE = "RELAY_FAULT_POINT"

FaultPoint: TypeAlias = Literal[
    "append:taken",  # the outbox's thread has events in its hands
    "append:inserted",  # they are in the transaction, the snapshot is not
    "append:snapshotted",  # all is in the transaction
    "append:committed",  # and on disk, and nobody has been told
    "append:told",
    "drain:read",
    "drain:begun",  # the progress of this outbox is locked in the database
    "drain:applied",  # the events are in the transaction
    "drain:advanced",  # and so is the progress
    "drain:committed",
    "acknowledge:deleted",  # the outbox has forgotten them
    "create:kept",  # a room is on disk, and not open yet
]
FAULT_POINTS: tuple[FaultPoint, ...] = get_args(FaultPoint)


def _nothing(point: FaultPoint) -> None:
    """In production."""


def _kill_at(wanted: str, time: int) -> None:
    passed: Counter[str] = Counter()

    def killing(point: FaultPoint) -> None:
        passed[point] += 1
        if point == wanted and passed[point] == time:
            os.kill(os.getpid(), signal.SIGKILL)

    global fault_point
    fault_point = killing


fault_point = _nothing
if (_named := os.environ.get(VARIABLE)) is not None:
    _point, _, _time = _named.rpartition(":") if _named.count(":") == 2 else (_named, "", "1")
    if _point not in FAULT_POINTS:
        raise ValueError(f"{VARIABLE}: there is no point {_point}")
    _kill_at(_point, int(_time))
