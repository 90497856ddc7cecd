"""The fuzzers run beside each other and beside other tests: started first, judged last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.fuzzing import FuzzRun

RUN = pytest.StashKey[FuzzRun]()


def targets(items: list[pytest.Item]) -> list[str]:
    return [
        str(item.callspec.params["target"])
        for item in items
        if isinstance(item, pytest.Function) and "fuzz_run" in item.fixturenames
    ]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "fuzz_run" in getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    wanted = targets(session.items)
    if not wanted or session.config.option.collectonly:
        return (yield)
    run = session.config.stash[RUN] = FuzzRun(wanted)
    try:
        return (yield)
    finally:
        run.stop()


@pytest.fixture
def fuzz_run(request: pytest.FixtureRequest) -> FuzzRun:
    """The fuzzers under way, one for each test that asks for it."""
    return request.config.stash[RUN]
