"""Analytics and statistics equal what a brute-force look at random histories finds."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec import structs

from roomserver.protocol.codes import Role
from roomserver.store.analytics import compute_days, finish_days
from roomserver.store.database import Connection
from roomserver.store.records import ParticipantRecord
from support.stays import DAY_US, Day, days, figures, microseconds, midnight, random_history

HISTORIES = 400  # in each batch
TODAY = datetime.now(UTC).date()
FIRST = TODAY - timedelta(days=3)
STAY_COLUMNS = (
    "id", "room_id", "participant_id", "role", "joined_at", "left_at", "connection_duration",
    "frames_sent", "avg_latency_ms",
)  # fmt: skip
DAYS = "SELECT * FROM relay.room_analytics ORDER BY room_id, date"

Histories = Mapping[str, Sequence[ParticipantRecord]]


def at(unix_us: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=unix_us)


def time(unix_s: float | None) -> datetime | None:
    return None if unix_s is None else at(microseconds(unix_s))


def histories(seed: int, now_us: int) -> Histories:
    source = random.Random(seed)
    rooms = [str(UUID(int=source.getrandbits(128))) for _ in range(HISTORIES)]
    return {room: random_history(source, room, FIRST, now_us) for room in rooms}


async def write(connection: Connection, histories: Histories) -> None:
    """All of them in two round trips."""
    await connection.copy_records_to_table(
        "audio_rooms",
        schema_name="relay",
        columns=("id", "code"),
        records=[(room, room) for room in histories],
    )
    await add(connection, [stay for stays in histories.values() for stay in stays])


async def add(connection: Connection, stays: Iterable[ParticipantRecord]) -> None:
    await connection.copy_records_to_table(
        "room_participants",
        schema_name="relay",
        columns=STAY_COLUMNS,
        records=[
            (
                stay.connection, stay.room, stay.participant, stay.role.value,
                time(stay.joined_at), time(stay.left_at), stay.duration_s, stay.frames_sent,
                stay.latency_ms,
            )
            for stay in stays
        ],
    )  # fmt: skip


def as_day(row: asyncpg.Record) -> Day:
    seconds = row["total_listen_minutes"] * 60
    return Day(
        row["peak_listeners"], seconds, row["total_listeners"], row["avg_latency_ms"],
        row["total_packets_sent"], row["total_packets_received"],
    )  # fmt: skip


async def computed(connection: Connection) -> dict[tuple[str, date], Day]:
    rows = await connection.fetch(DAYS)
    return {(str(row["room_id"]), row["date"]): as_day(row) for row in rows}


def nearly(day: Day) -> Day:
    """The same, and equal to what floating point makes of it."""
    seconds: Any = pytest.approx(float(day.seconds), abs=1e-6)
    latency: Any = None if day.latency_ms is None else pytest.approx(day.latency_ms)
    return replace(day, seconds=seconds, latency_ms=latency)


def expected(histories: Histories, now_us: int) -> dict[tuple[str, date], Day]:
    return {
        (room, day): figure
        for room, stays in histories.items()
        for day, figure in days(stays, FIRST, 5, now_us).items()
    }


def check(found: Mapping[Any, Day], wanted: Mapping[Any, Day], histories: Histories) -> None:
    assert found.keys() == wanted.keys()
    wrong = [key for key in wanted if found[key] != nearly(wanted[key])]
    wrong.sort(key=lambda key: len(histories[key[0]]))
    for key in wrong[:1]:
        stays = "\n".join(map(str, histories[key[0]]))
        assert found[key] == nearly(wanted[key]), f"{len(wrong)} differ; {key[1]} of\n{stays}"


# What SQL makes of them differs little between versions: most are for the newest.
BATCHES = [*(("newest", seed) for seed in range(8)), *(("oldest", seed) for seed in range(8, 10))]


@pytest.mark.parametrize(("cluster", "seed"), BATCHES, indirect=["cluster"])
async def test_days_equal_the_oracle(tables: Connection, seed: int) -> None:
    now_us = midnight(FIRST) + random.Random(seed).choice(
        (DAY_US // 3, DAY_US, 3 * DAY_US // 2, 2 * DAY_US + 1, 3 * DAY_US - 1)
    )
    batch = histories(seed, now_us)
    await write(tables, batch)
    until = FIRST + timedelta(days=5)
    await compute_days(tables, FIRST, until, now=at(now_us))
    once = await computed(tables)
    check(once, expected(batch, now_us), batch)

    await compute_days(tables, FIRST, until, now=at(now_us))
    assert await computed(tables) == once, "a second time changes nothing"
    await tables.execute("DELETE FROM relay.room_analytics")
    for number in reversed(range(5)):
        day = FIRST + timedelta(days=number)
        await compute_days(tables, day, day + timedelta(days=1), now=at(now_us))
    assert await computed(tables) == once, "day by day it is the same"
    room = next(iter(batch))
    await tables.execute("DELETE FROM relay.room_analytics WHERE room_id = $1", room)
    await compute_days(tables, FIRST, until, room=room, now=at(now_us))
    assert await computed(tables) == once, "and of a room alone"


@pytest.mark.parametrize(
    ("cluster", "seed"), [("newest", 100), ("newest", 101), ("oldest", 102)], indirect=["cluster"]
)
async def test_the_statistics_view_equals_the_oracle(tables: Connection, seed: int) -> None:
    batch = histories(seed, microseconds(datetime.now(UTC).timestamp()))
    await write(tables, batch)
    async with tables.transaction():  # in one, now() stands still
        now = await tables.fetchval("SELECT now()")
        rows = await tables.fetch("SELECT * FROM relay.room_statistics_view")
        active = await tables.fetch("SELECT * FROM relay.active_rooms_view")
    now_us = (now - at(0)) // timedelta(microseconds=1)
    found = {str(row["id"]): row for row in rows}
    assert len(rows) == len(active) == len(batch), "a row for each room, however many stays it has"
    for room, stays in batch.items():
        row = found[room]
        listeners = [stay for stay in stays if stay.role is Role.LISTENER]
        always = figures(listeners, 0, 2**60, now_us)
        assert row["sessions"] == len(listeners)
        if always is None:
            assert (row["participants"], row["listen_seconds"], row["peak_listeners"]) == (0, 0, 0)
            assert row["average_session_seconds"] == 0
            continue
        assert (row["participants"], row["peak_listeners"]) == (always.listeners, always.peak), (
            stays
        )
        assert row["listen_seconds"] == pytest.approx(float(always.seconds), abs=1e-6)
        average = float(always.seconds) / len(listeners)
        assert row["average_session_seconds"] == pytest.approx(average, abs=1e-6)
    for row in active:
        there = [stay.role for stay in batch[str(row["id"])] if stay.left_at is None]
        assert row["listeners"] == there.count(Role.LISTENER)
        assert row["broadcasters"] == there.count(Role.BROADCASTER)


def listen(room: str, day: date, from_s: float, for_s: float | None) -> ParticipantRecord:
    joined = midnight(day) / 1e6 + from_s
    return ParticipantRecord(
        room=room,
        participant=str(uuid4()),
        connection=str(uuid4()),
        role=Role.LISTENER,
        user=None,
        nickname=None,
        address="",
        joined_at=joined,
        left_at=None if for_s is None else joined + for_s,
        duration_s=for_s,
    )


async def test_days_that_are_final_outlive_their_stays(tables: Connection) -> None:
    room = str(uuid4())
    # Two that ended before the horizon, one that reaches over it.
    stays = [
        listen(room, FIRST, 0, 60),
        listen(room, FIRST, 30, 60),
        listen(room, FIRST, 0, 90_000),
    ]
    await write(tables, {room: stays})
    horizon = FIRST + timedelta(days=1)
    async with tables.transaction():
        await finish_days(tables, horizon)
        deleted = await tables.execute(
            "DELETE FROM relay.room_participants WHERE left_at < $1::date", horizon
        )
    assert deleted == "DELETE 2"
    late = listen(room, FIRST, 100, 60)  # its day is over
    await add(tables, [late])
    await compute_days(tables, FIRST, horizon + timedelta(days=1))
    await finish_days(tables, horizon)
    rows = await tables.fetch(DAYS)
    assert [(row["date"], row["final"]) for row in rows] == [(FIRST, True), (horizon, False)]
    assert (rows[0]["peak_listeners"], rows[0]["total_listeners"]) == (3, 3)
    assert rows[0]["total_listen_minutes"] == pytest.approx(2 + 1440)
    assert rows[1]["total_listen_minutes"] == pytest.approx(60)


async def test_a_clock_that_was_set_back_does_not_shorten_a_stay(tables: Connection) -> None:
    room = str(uuid4())
    stay = listen(room, FIRST, 7200, 600)
    await write(tables, {room: [structs.replace(stay, left_at=stay.joined_at - 3600)]})
    row = await tables.fetchrow("SELECT left_at - joined_at AS lasted FROM relay.room_participants")
    assert row is not None
    assert row["lasted"] == timedelta(minutes=10)
    with pytest.raises(asyncpg.CheckViolationError):  # nobody knows how long it was
        await add(
            tables, [structs.replace(listen(room, FIRST, 7200, None), left_at=stay.joined_at - 1)]
        )
