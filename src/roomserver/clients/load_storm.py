"""Listeners of a load test that are cut off at once, and how they come back."""

from __future__ import annotations

import time

import numpy as np

from relaycore import LoadClient
from relaycore.counters import LoadFigures
from roomserver.clients.load_report import Quantiles, StormReport, total


class Storm:
    """Cuts listeners off when it is made, and knows how many were to come back.

    Args:
        client: Whose listeners.
        listeners: The first so many of them are in question.
        share: How many of those that are there, 0 to 1.
    """

    def __init__(self, client: LoadClient, listeners: int, share: float) -> None:
        records = client.listeners()[:listeners]
        there = np.flatnonzero(records["state"] == 2)
        chosen = there[: round(share * there.size)]
        self._before = records["returns"][chosen]
        self._chosen = chosen
        self._attempts = sum(f.attempts for f in _listening(client))
        self._at_ns = time.monotonic_ns()
        client.drop(chosen.tolist())

    def report(self, client: LoadClient) -> StormReport:
        """As of now."""
        returned = int((client.listeners()["returns"][self._chosen] > self._before).sum())
        figures = _listening(client)
        last_ns = max(f.last_back_ns for f in figures)
        return StormReport(
            dropped=int(self._chosen.size),
            returned=returned,
            seconds=round(max(last_ns - self._at_ns, 0) / 1e9, 3) if returned else 0.0,
            attempts=sum(f.attempts for f in figures) - self._attempts,
            silence=Quantiles.of(total(f.silence for f in figures)),
        )


def _listening(client: LoadClient) -> list[LoadFigures]:
    """Figures of the threads that have listeners: sources come back, too, and are not meant."""
    return [f for f in client.figures() if not f.is_sources]
