"""What holds for every test."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest


@pytest.fixture(autouse=True, scope="session")
def no_database() -> None:
    """Servers and commands within the tests' process have a database when a test says so."""
    os.environ["ROOMSERVER_DATABASE_URL"] = "none"


@pytest.fixture(autouse=True)
def no_unhandled_loop_errors(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """An error that an event loop could only log fails the test in which it happened."""
    yield
    if request.node.get_closest_marker("asyncio") is None:
        return
    gc.collect()  # a task's exception that nobody asked for is told when the task is freed
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    errors = [r for r in records if r.name == "asyncio" and r.levelno >= logging.ERROR]
    assert not errors, [record.getMessage() for record in errors]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Of a client, or of as many as a test wants."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session
