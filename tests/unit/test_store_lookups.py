"""Rooms that are not here are looked up once for everybody who asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from roomserver.store import lookups
from roomserver.store.database import DatabaseAwayError
from roomserver.store.interfaces import LookupsBusyError
from roomserver.store.lookups import Lookups
from roomserver.store.records import Elsewhere

HALL = Elsewhere("hall", "http://there.example", b"$2b$04$hash", None)
CROWD = 20 * lookups.LOOKUPS_WAITING


class Database:
    """What `Lookups` asks; answers when it is told to."""

    def __init__(self) -> None:
        self.rooms: dict[str, tuple[Elsewhere, bool]] = {}
        self.here: set[str] = set()
        self.asked: list[str] = []
        self.claims = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def locate(self, name: str) -> tuple[Elsewhere, bool] | None:
        self.asked.append(name)
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return self.rooms.get(name)

    async def claim(self) -> None:
        self.claims += 1
        await asyncio.sleep(0)
        self.here |= {room.id for room, abandoned in self.rooms.values() if abandoned}


@pytest.fixture
def database() -> Database:
    return Database()


Find = Callable[..., Awaitable[Elsewhere | None]]


@pytest.fixture
def find(database: Database) -> Find:
    return Lookups(
        database.locate, claim=database.claim, is_here=lambda room: room in database.here
    ).find


@pytest.mark.parametrize("guess", [True, False])
async def test_a_crowd_that_asks_for_one_room_is_one_question(
    database: Database, find: Find, guess: bool
) -> None:
    database.rooms["HALL"] = (HALL, False)
    crowd = [find("HALL", guess=guess) for _ in range(CROWD)]
    assert await asyncio.gather(*crowd) == [HALL] * CROWD
    assert database.asked == ["HALL"]
    for _ in range(CROWD):  # and those who come a little later hear the same
        assert await find("HALL", guess=guess) == HALL
    assert database.asked == ["HALL"]


async def test_a_room_that_nobody_has_is_claimed_once_for_all_who_ask(
    database: Database, find: Find
) -> None:
    database.rooms["HALL"] = (HALL, True)
    crowd = [find("HALL", guess=False) for _ in range(CROWD)]
    assert await asyncio.gather(*crowd) == [None] * CROWD
    assert (database.here, database.claims) == ({HALL.id}, 1)


async def test_a_room_that_another_server_claimed_first_is_asked_for_again(
    database: Database,
) -> None:
    database.rooms["HALL"] = (HALL, True)

    async def claimed_there() -> None:
        database.rooms["HALL"] = (HALL, False)

    find = Lookups(database.locate, claim=claimed_there, is_here=lambda _: False).find
    assert await find("HALL", guess=True) is None
    assert await find("HALL", guess=True) == HALL


async def test_who_guesses_learns_nothing_from_the_time_it_takes(
    database: Database, find: Find
) -> None:
    """Elsewhere, here or nowhere: of equal questions the first alone goes to the database."""
    database.rooms["HALL"] = (HALL, False)
    database.rooms["OURS"] = (Elsewhere("ours", None, None, None), False)
    database.here.add("ours")
    for _ in range(3):
        assert await find("HALL", guess=True) == HALL
        assert await find("OURS", guess=True) is None
        assert await find("NONE", guess=True) is None
    assert sorted(database.asked) == ["HALL", "NONE", "OURS"]


async def test_a_token_is_not_refused_for_what_was_not_known_a_moment_ago(
    database: Database, find: Find
) -> None:
    assert await find("HALL", guess=True) is None
    database.rooms["HALL"] = (HALL, False)
    assert await find("HALL", guess=False) == HALL


async def test_a_room_that_came_here_is_not_elsewhere_any_more(
    database: Database, find: Find
) -> None:
    database.rooms["HALL"] = (HALL, False)
    assert await find("HALL", guess=False) == HALL
    database.here.add(HALL.id)
    assert await find("HALL", guess=False) is None


async def test_an_answer_holds_for_a_moment_only(
    database: Database, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "KEPT_S", 0.0)
    database.rooms["HALL"] = (HALL, False)
    assert await find("HALL", guess=False) == HALL
    del database.rooms["HALL"]
    assert await find("HALL", guess=False) is None


async def test_rooms_that_moved_are_asked_for_again(database: Database) -> None:
    looked = Lookups(database.locate, claim=database.claim, is_here=lambda _: False)
    assert await looked.find("HALL", guess=True) is None
    database.rooms["HALL"] = (HALL, False)
    looked.forget()
    assert await looked.find("HALL", guess=True) == HALL


async def test_different_rooms_are_bounded_and_one_that_is_looked_up_is_not(
    database: Database, find: Find
) -> None:
    database.answers.clear()
    names = [f"ROOM{n}" for n in range(lookups.LOOKUPS_WAITING)]
    waiting = [asyncio.ensure_future(find(name, guess=False)) for name in names]
    await asyncio.sleep(0)
    with pytest.raises(LookupsBusyError):
        await find("ONE MORE", guess=False)
    waiting += [asyncio.ensure_future(find(name, guess=True)) for name in names]
    database.answers.set()
    assert await asyncio.gather(*waiting) == [None] * len(waiting)
    assert await find("ONE MORE", guess=False) is None


async def test_of_different_guesses_so_many_are_answered_in_a_second(
    database: Database, find: Find
) -> None:
    for number in range(lookups.GUESSES_PER_S):
        assert await find(f"GUESS{number}", guess=True) is None
    with pytest.raises(LookupsBusyError):
        await find("ONE MORE", guess=True)
    assert await find("GUESS0", guess=True) is None
    assert await find("TOKEN", guess=False) is None


async def test_one_who_goes_away_does_not_take_the_answer_from_the_others(
    database: Database, find: Find
) -> None:
    database.rooms["HALL"] = (HALL, False)
    database.answers.clear()
    first, second = [asyncio.ensure_future(find("HALL", guess=False)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    database.answers.set()
    assert await second == HALL


async def test_that_the_database_is_away_is_told_to_all_and_not_kept(
    database: Database, find: Find
) -> None:
    database.error = DatabaseAwayError("gone")
    asking = [find("HALL", guess=False) for _ in range(3)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, DatabaseAwayError) for answer in answers)
    database.error = None
    database.rooms["HALL"] = (HALL, False)
    assert await find("HALL", guess=False) == HALL


async def test_what_is_under_way_ends_with_the_server(database: Database) -> None:
    looked = Lookups(database.locate, claim=database.claim, is_here=lambda _: False)
    database.answers.clear()
    asking = asyncio.ensure_future(looked.find("HALL", guess=False))
    await asyncio.sleep(0)
    await looked.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
