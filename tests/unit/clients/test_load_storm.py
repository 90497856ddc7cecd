"""What a storm tells of the listeners that it cut off."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from relaycore import LoadClient
from relaycore.counters import LoadFigures
from roomserver.clients.load_storm import Storm


class FakeClient:
    """Four listeners that have joined, in one thread, and the thread of the sources."""

    def __init__(self) -> None:
        with LoadClient("127.0.0.1", 1) as client:
            self.listening, self.sources = client.figures()
        self.records = np.zeros(4, [("state", np.uint32), ("returns", np.uint32)])
        self.records["state"] = 2
        self.dropped: list[int] = []

    def listeners(self) -> NDArray[Any]:
        return self.records.copy()

    def figures(self) -> tuple[LoadFigures, ...]:
        return (self.listening, self.sources)

    def drop(self, listeners: Iterable[int]) -> None:
        self.dropped.extend(listeners)


def test_sources_that_came_back_are_not_counted_as_the_storms() -> None:
    fake = FakeClient()
    fake.listening = fake.listening._replace(attempts=1)
    client = cast(LoadClient, fake)
    back_ns = time.monotonic_ns() + 2_000_000_000
    storm = Storm(client, 4, 0.5)
    assert fake.dropped == [0, 1]
    fake.records["returns"][:2] += 1
    fake.listening = fake.listening._replace(attempts=4, last_back_ns=back_ns)
    fake.sources = fake.sources._replace(attempts=7, last_back_ns=back_ns + 60_000_000_000)
    report = storm.report(client)
    assert (report.dropped, report.returned, report.attempts) == (2, 2, 3)
    assert report.seconds <= 2
