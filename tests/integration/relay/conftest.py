"""Relays to test, with few and with many threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaycore import Relay
from support.peer import Events, Peer


@pytest.fixture(params=[1, 3], ids=["1-thread", "3-threads"])
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    with Relay(threads=request.param) as engine:
        yield engine
        Peer.close_all()  # or the relay would wait for their goodbyes


@pytest.fixture(autouse=True)
def _peers_are_closed() -> Iterator[None]:
    yield
    Peer.close_all()


@pytest.fixture
def events(relay: Relay) -> Events:
    return Events(relay)
