"""How many WebSockets a server takes by itself: not so many that nothing is left for all else."""

from __future__ import annotations

import resource

import pytest

from roomserver.app import most_connections
from roomserver.config import Settings


@pytest.mark.parametrize(
    ("descriptors", "tls", "connections"),
    [
        (1024, False, 824),
        (1024, True, 274),
        (200, False, 100),
        (resource.RLIM_INFINITY, False, 0),  # no limit
    ],
)
def test_connections_leave_descriptors_for_all_else(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, tls: bool, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert most_connections(Settings(), tls=tls) == connections
    assert most_connections(Settings(max_connections=5), tls=tls) == 5
