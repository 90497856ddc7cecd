"""The outbox: nothing acknowledged is lost, and what is too much goes in a fixed order."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from roomserver.protocol.codes import Role, RoomState
from roomserver.store.events import (
    Audited,
    Counted,
    Event,
    Joined,
    Left,
    RoomChanged,
    Unreadable,
    Weight,
    decode_events,
    encode_event,
)
from roomserver.store.outbox import Outbox, OutboxError
from roomserver.store.records import AuditEvent, AuditRecord, ParticipantRecord, RoomRecord

ROOM = RoomRecord(
    id="6f8b1c1e-0b5e-4b43-9d8c-0f2f0a6f6a10",
    code="ABC234",
    name="Grüße",
    password_hash=b"$2b$\x00\xff",
    created_by="owner",
    created_at=1.5,
    public=True,
    metadata={"stage": [1, {"deep": None}]},
)
STAY = ParticipantRecord(
    room=ROOM.id,
    participant="p",
    connection="c",
    role=Role.LISTENER,
    user=None,
    nickname="n",
    address="::1",
    joined_at=1.0,
)
AUDIT = Audited("a", AuditRecord(AuditEvent.ROOM_CREATED, 1.0, details={"code": "ABC234"}))
ONE_OF_EACH: list[Event] = [RoomChanged(ROOM), Joined(STAY), Left(STAY), Counted(STAY), AUDIT]
# Says after each event that it is on disk, then is killed in the middle of many more.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from unit.test_outbox import ROOM, AUDIT, Outbox, RoomChanged, replace
async def main():
    outbox = Outbox(Path(sys.argv[1]), capacity=10**6)
    for version in range(1, 10**6):
        outbox.append_soon(AUDIT)
        await outbox.append(RoomChanged(replace(ROOM, version=version)))
        print(version, flush=True)
asyncio.run(main())
"""


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    outbox = Outbox(tmp_path, capacity=100)
    yield outbox
    await outbox.close()


async def everything(outbox: Outbox) -> list[Event | Unreadable]:
    return [entry.event for entry in await outbox.read(0, 10**6)]


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    assert decode_events(b"[" + encode_event(event) + b"]") == [event]


async def test_events_come_in_their_order_until_they_are_acknowledged(outbox: Outbox) -> None:
    for event in ONE_OF_EACH:
        outbox.append_soon(event)
    first, second, *rest = await outbox.read(0, 100)
    assert [e.event for e in (first, second, *rest)] == ONE_OF_EACH
    assert [e.event for e in await outbox.read(first.seq, 1)] == [second.event]
    await outbox.acknowledge(second.seq)
    assert await everything(outbox) == ONE_OF_EACH[2:]
    assert outbox.waiting == 3


async def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, capacity=100)
    await outbox.append(RoomChanged(ROOM))
    [entry] = await outbox.read(0, 10)
    await outbox.acknowledge(entry.seq)
    await outbox.close()
    again = Outbox(tmp_path, capacity=100)
    await again.append(RoomChanged(ROOM))
    [later] = await again.read(0, 10)
    assert later.seq > entry.seq
    assert again.stream_id == outbox.stream_id
    await again.close()


async def test_what_was_taken_is_there_after_a_restart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, capacity=100)
    for event in ONE_OF_EACH:
        outbox.append_soon(event)
    await outbox.close()
    again = Outbox(tmp_path, capacity=100)
    assert again.waiting == len(ONE_OF_EACH)
    assert await everything(again) == ONE_OF_EACH
    await again.close()
    assert (tmp_path / "outbox.db").stat().st_mode & 0o777 == 0o600


async def test_another_file_is_another_stream(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    outboxes = [Outbox(tmp_path / name, capacity=1) for name in "ab"]
    assert outboxes[0].stream_id != outboxes[1].stream_id
    for outbox in outboxes:
        await outbox.close()


async def test_the_snapshot_holds_open_rooms_as_they_last_were(outbox: Outbox) -> None:
    other = replace(ROOM, id="other", code="OTHER2")
    for room in (ROOM, other, replace(ROOM, version=2, state=RoomState.ACTIVE)):
        await outbox.append(RoomChanged(room))
    await outbox.append(RoomChanged(replace(other, state=RoomState.CLOSED, closed_at=2.0)))
    await outbox.acknowledge(10**6)
    assert list(await outbox.rooms()) == [replace(ROOM, version=2, state=RoomState.ACTIVE)]


async def test_the_lightest_are_dropped_first_and_counted(outbox: Outbox) -> None:
    light: list[Event] = [Counted(STAY), Joined(STAY), Left(STAY), AUDIT]
    taken = {event.weight: 0 for event in light}
    for event in light:
        for _ in range(100):
            taken[event.weight] += outbox.append_soon(event)
    assert outbox.append_soon(RoomChanged(ROOM))
    assert taken == {Weight.COUNTERS: 70, Weight.JOIN: 10, Weight.LEAVE: 10, Weight.AUDIT: 10}
    assert outbox.dropped == {weight: 100 - count for weight, count in taken.items()}
    await outbox.acknowledge((await outbox.read(0, 1000))[-1].seq)
    assert outbox.append_soon(Counted(STAY))  # there is room again


async def test_readers_are_told_when_there_is_more(outbox: Outbox) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    outbox.on_written(lambda: loop.call_soon_threadsafe(told.set))
    outbox.append_soon(AUDIT)
    async with asyncio.timeout(10):
        await told.wait()
    assert await everything(outbox) == [AUDIT]


def test_every_event_that_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), *sys.path],
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stdout is not None
    with process.stdout:
        while int(process.stdout.readline()) < 50:
            pass
        process.kill()
        acknowledged = [int(line) for line in process.stdout if line.endswith("\n")]
    process.wait(30)

    async def kept() -> tuple[list[int], list[RoomRecord]]:
        outbox = Outbox(tmp_path, capacity=10**6)
        events = [e for e in await everything(outbox) if isinstance(e, RoomChanged)]
        rooms = list(await outbox.rooms())
        await outbox.close()
        return [event.room.version for event in events], rooms

    versions, [room] = asyncio.run(kept())
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) >= max(acknowledged, default=50)
    assert room.version == versions[-1]  # the snapshot is not behind and not ahead


async def test_a_disk_that_takes_nothing_is_told_and_tried_again(outbox: Outbox) -> None:
    await outbox.append(RoomChanged(ROOM))
    # A page is the unit in which the file grows: it may not, from here on.
    outbox._db.execute("PRAGMA max_page_count = 1")
    big = replace(ROOM, id="big", metadata={"text": "x" * 100_000})
    assert outbox.append_soon(Audited("b", structs.replace(AUDIT.record, details=big.metadata)))
    with pytest.raises(OutboxError, match=r"outbox.db can't be written: .*full"):
        await outbox.append(RoomChanged(big))
    assert [room.id for room in await outbox.rooms()] == [ROOM.id]
    assert outbox.waiting == 2
    outbox._db.execute("PRAGMA max_page_count = 1000000")
    await outbox.append(RoomChanged(big))
    assert [type(event) for event in await everything(outbox)] == [
        RoomChanged,
        Audited,
        RoomChanged,
    ]


async def test_what_waits_on_a_full_disk_is_kept_and_said_once(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox._db.execute("PRAGMA max_page_count = 1")
    big = Audited("b", structs.replace(AUDIT.record, details={"text": "x" * 100_000}))
    for _ in range(5):
        assert outbox.append_soon(big)
        with pytest.raises(OutboxError):
            await outbox.flush()
    assert outbox.trouble is not None
    with pytest.raises(sqlite3.Error):
        await outbox.replace_rooms([replace(ROOM, metadata=big.record.details)])
    outbox._db.execute("PRAGMA max_page_count = 1000000")
    assert await outbox.flush() == outbox.last_seq == 5
    assert outbox.trouble is None
    assert await everything(outbox) == [big] * 5


async def test_what_no_json_can_hold_stops_nothing(outbox: Outbox) -> None:
    half = structs.replace(AUDIT.record, details={"agent": "\udcff"})
    assert not outbox.append_soon(Audited("a", half))
    with pytest.raises(OutboxError, match="surrogates"):
        await outbox.append(Audited("a", half))
    await outbox.append(AUDIT)
    assert await everything(outbox) == [AUDIT]
    assert outbox.waiting == 1
    assert outbox.dropped == {Weight.AUDIT: 1}


async def test_flushing_while_others_write_is_no_failure(outbox: Outbox) -> None:
    async def write() -> None:
        for _ in range(50):
            outbox.append_soon(AUDIT)
            await outbox.flush()
            await outbox.acknowledge(outbox.last_seq)

    await asyncio.gather(*(write() for _ in range(4)))


async def test_what_is_no_event_is_told_as_such(outbox: Outbox) -> None:
    await outbox.append(AUDIT)
    for damaged in (b"{}", b"\xff\xfe", b'{"type":"of a later release"}'):
        outbox._db.execute("INSERT INTO events (event) VALUES (?)", (damaged,))
    await outbox.append(AUDIT)
    first, *damaged_ones, last = await everything(outbox)
    assert (first, last) == (AUDIT, AUDIT)
    assert all(isinstance(event, Unreadable) for event in damaged_ones)
    assert len(damaged_ones) == 3


async def test_a_file_is_for_one_server(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match=r"in use by another server.*--data-dir of its own"):
        Outbox(tmp_path, capacity=100)


@pytest.mark.parametrize("where", ["head", "middle"])
async def test_a_damaged_file_is_not_passed_over(tmp_path: Path, where: str) -> None:
    outbox = Outbox(tmp_path, capacity=10_000)
    for _ in range(2000):
        outbox.append_soon(AUDIT)
    await outbox.close()
    path = tmp_path / "outbox.db"
    with path.open("r+b") as file:
        file.seek(0 if where == "head" else 40_960)
        file.write(b"\xff" * 8192)
    before = path.read_bytes()
    with pytest.raises(OutboxError, match=r"outbox.db is damaged .*keep a copy.* start again"):
        Outbox(tmp_path, capacity=10_000)
    assert path.read_bytes() == before


async def test_after_the_end_nothing_is_taken(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, capacity=100)
    await outbox.close()
    assert not outbox.append_soon(AUDIT)
    with pytest.raises(OutboxError, match="closed"):
        await outbox.append(AUDIT)
