"""What goes wrong in one run of a subject: it is told, and costs no other run."""

from __future__ import annotations

import subprocess
from typing import Final, NamedTuple, Self

from benchmarks.child import ChildError
from benchmarks.load import LoadError

FAILURES: Final = (ChildError, LoadError, OSError, RuntimeError, subprocess.SubprocessError)
"""Whose message says what is the matter."""


class Failure(NamedTuple):
    """A run that went wrong, and why. What it had given by then may be kept all the same."""

    run: str
    reason: str

    @classmethod
    def of(cls, run: str, error: BaseException) -> Self:
        """What an error says, in one line."""
        return cls(run, brief(error))


def brief(error: BaseException) -> str:
    """First and last line of what an error says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(dict.fromkeys((lines[0].strip(), lines[-1].strip())))
