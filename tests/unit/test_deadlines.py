"""Whose time is over is told so, in its order; the loop's clock goes on when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from roomserver.edge.deadlines import Deadlines
from support.loop_clock import LoopClock

SECONDS = 10.0


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    return LoopClock(monkeypatch)


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines(SECONDS)


class Waiting:
    """Writes its name down when it was too slow."""

    def __init__(
        self, name: str, told: list[str], then: Callable[[], object] = lambda: None
    ) -> None:
        self.name = name
        self.told = told
        self.then = then

    def too_slow(self) -> None:
        self.told.append(self.name)
        self.then()


async def test_who_stops_in_time_is_not_told(clock: LoopClock, deadlines: Deadlines) -> None:
    told: list[str] = []
    quick, slow = Waiting("quick", told), Waiting("slow", told)
    deadlines.start(quick)
    deadlines.start(slow)
    await clock.advance(SECONDS - 1)
    deadlines.stop(quick)
    assert told == []
    await clock.advance(1)
    assert told == ["slow"]
    deadlines.stop(slow)  # too late, and no error
    await clock.advance(2 * SECONDS)
    assert told == ["slow"]


async def test_the_next_is_told_in_its_own_time_when_the_first_has_stopped(
    clock: LoopClock, deadlines: Deadlines
) -> None:
    told: list[str] = []
    first, next_ = Waiting("first", told), Waiting("next", told)
    deadlines.start(first)
    await clock.advance(4)
    deadlines.start(next_)
    deadlines.stop(first)
    await clock.advance(SECONDS - 4)
    await clock.advance(3)
    assert told == []
    await clock.advance(1)
    assert told == ["next"]


@pytest.mark.parametrize("step_s", [1.0, 100.0])
async def test_those_that_began_first_end_first(
    clock: LoopClock, deadlines: Deadlines, step_s: float
) -> None:
    told: list[str] = []
    names = ["a", "b", "c", "d"]
    for name in names:
        deadlines.start(Waiting(name, told))
        await clock.advance(1)
    for _ in range(int(2 * SECONDS)):
        await clock.advance(step_s)
    assert told == names


async def test_who_is_started_anew_has_all_its_time_again(
    clock: LoopClock, deadlines: Deadlines
) -> None:
    told: list[str] = []
    again, other = Waiting("again", told), Waiting("other", told)
    deadlines.start(again)
    deadlines.start(other)
    await clock.advance(5)
    deadlines.start(again)
    await clock.advance(5)
    assert told == ["other"]
    await clock.advance(5)
    assert told == ["other", "again"]


async def test_after_its_end_it_can_be_started_again(
    clock: LoopClock, deadlines: Deadlines
) -> None:
    told: list[str] = []
    waiting = Waiting("it", told)
    deadlines.start(waiting)
    await clock.advance(SECONDS)
    await clock.advance(SECONDS)
    assert told == ["it"]
    waiting.then = lambda: deadlines.start(waiting)
    deadlines.start(waiting)
    for count in (2, 3, 4):
        await clock.advance(SECONDS)
        assert told == ["it"] * count


async def test_when_one_raises_the_others_are_still_told(
    clock: LoopClock, deadlines: Deadlines
) -> None:
    told: list[str] = []
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: errors.append(context.get("exception"))
    )
    bad = Waiting("bad", told, then=lambda: 1 / 0)
    good, late = Waiting("good", told), Waiting("late", told)
    deadlines.start(bad)
    deadlines.start(good)
    await clock.advance(1)
    deadlines.start(late)
    await clock.advance(SECONDS - 1)
    assert told == ["bad", "good"]
    await clock.advance(1)
    assert told == ["bad", "good", "late"]
    assert [type(error) for error in errors] == [ZeroDivisionError]


@pytest.mark.parametrize("then", ["stop", "start"])
async def test_what_one_does_to_another_counts_though_both_are_too_slow(
    clock: LoopClock, deadlines: Deadlines, then: str
) -> None:
    told: list[str] = []
    second = Waiting("second", told)
    deadlines.start(Waiting("first", told, then=lambda: getattr(deadlines, then)(second)))
    deadlines.start(second)
    await clock.advance(SECONDS)
    assert told == ["first"]
    await clock.advance(SECONDS)
    assert told == (["first"] if then == "stop" else ["first", "second"])
