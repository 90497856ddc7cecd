"""The durable queue between rooms and database: what happened here and is not known there yet.

A SQLite file (write-ahead log, every commit on disk) in a thread of its own. Events that come while
a commit is under way go into the next one together. `append` returns when its event is on disk;
`append_soon` never waits: what it takes is kept in memory until it could be written.

Beside the queue stands a snapshot of every open room, changed in the same transaction, from which a
server starts when its database is away.

When more waits than the outbox may hold, events are dropped and counted, the lightest first:
counters, then joins, then leaves, then the audit log. Rooms never are.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from roomserver.protocol.codes import RoomState
from roomserver.store.events import Event, RoomChanged, Weight, decode_events, encode_event
from roomserver.store.records import RoomRecord

FILE_NAME = "outbox.db"
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE stream (id TEXT NOT NULL) STRICT;
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL) STRICT;
CREATE TABLE rooms (id TEXT PRIMARY KEY, room BLOB NOT NULL) STRICT, WITHOUT ROWID
"""
MOST_PER_COMMIT = 1000
# Every statement gives the interpreter away and has to get it back, so one writes many events.
EVENTS_PER_STATEMENT = 64
# How long an event that nobody waits for may wait for others, which then share its commit.
GATHER_S = 0.005
RETRY_S = 1.0
LAST = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
# Of the capacity, from where on events of a weight are dropped.
SHARES = {Weight.COUNTERS: 0.7, Weight.JOIN: 0.8, Weight.LEAVE: 0.9, Weight.AUDIT: 1.0}

# The next events as one row, for the same reason; numbers, because order is not promised.
READ = """
SELECT '[' || group_concat(seq) || ']', '[' || group_concat(event) || ']' FROM (
    SELECT seq, CAST(event AS TEXT) AS event FROM events WHERE seq > ? ORDER BY seq LIMIT ?
)
"""

_decode_numbers = msgspec.json.Decoder(list[int]).decode
_decode_room = msgspec.json.Decoder(RoomRecord).decode
_encode = msgspec.json.Encoder().encode
R = TypeVar("R")

log = structlog.stdlib.get_logger("roomserver.outbox")


class OutboxError(Exception):
    """An event could not be written down; nothing was acknowledged and nothing was kept of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event and its number in the stream; numbers only grow."""

    seq: int
    event: Event


@dataclass(slots=True)
class _Append:
    event: Event
    written: Future[None] | None  # None: nobody waits


@dataclass(slots=True)
class _Call:
    work: Callable[[sqlite3.Connection], Any]
    answer: Future[Any]


class Outbox:
    """The queue. `append_soon` may be called from any thread, the rest in one event loop."""

    def __init__(self, data_dir: Path, *, capacity: int) -> None:
        """Opens or makes the file. Raises OSError or sqlite3.Error."""
        self._path = data_dir / FILE_NAME
        self._capacity = capacity
        self._lock = threading.Lock()
        self._waiting = 0  # events not acknowledged yet, in the file or on the way to it
        self._dropped: Counter[Weight] = Counter()
        # Of its thread: taken by append_soon, and the disk did not want them.
        self._unwritten: list[_Append] = []
        self._work: queue.SimpleQueue[_Append | _Call | None] = queue.SimpleQueue()
        self._listener: Callable[[], object] | None = None
        self._path.touch(mode=0o600)  # before SQLite makes it with the process's mask
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            self._stream_id = self._open()
            self._waiting = int(self._one("SELECT count(*) FROM events"))
            self._last_before = int(self._one(LAST))  # number given before this process
        except BaseException:
            self._db.close()
            raise
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    @property
    def stream_id(self) -> str:
        """Random, made with the file: numbers of a file that was lost are never mistaken."""
        return self._stream_id

    @property
    def capacity(self) -> int:
        """How many events may wait."""
        return self._capacity

    @property
    def waiting(self) -> int:
        """How many events have not been acknowledged."""
        return self._waiting

    @property
    def dropped(self) -> dict[Weight, int]:
        """How many events there was no room for, by weight."""
        with self._lock:
            return dict(self._dropped)

    def on_written(self, listener: Callable[[], object]) -> None:
        """Calls `listener`, in the outbox's thread, whenever there is more to read."""
        self._listener = listener

    async def append(self, event: Event) -> None:
        """Returns when the event is on disk. Raises OutboxError when it can't be."""
        written: Future[None] = Future()
        written.set_running_or_notify_cancel()  # whoever stops waiting does not stop the writing
        with self._lock:
            self._waiting += 1
        self._work.put(_Append(event, written))
        await asyncio.wrap_future(written)

    def append_soon(self, event: Event) -> bool:
        """Takes the event and returns at once; False: there was no room for it."""
        share = SHARES.get(event.weight)
        with self._lock:
            if share is not None and self._waiting >= share * self._capacity:
                self._dropped[event.weight] += 1
                return False
            self._waiting += 1
        self._work.put(_Append(event, None))
        return True

    async def flush(self) -> None:
        """Returns when all that was taken so far is on disk. Raises OutboxError if not."""
        if await self._call(lambda _: self._unwritten):
            raise OutboxError(f"{self._path} can't be written")

    async def read(self, after: int, limit: int) -> list[Entry]:
        """The next events behind number `after`, oldest first."""

        def work(db: sqlite3.Connection) -> list[Entry]:
            numbers, events = db.execute(READ, (after, limit)).fetchone()
            if numbers is None:
                return []
            found = zip(_decode_numbers(numbers), decode_events(events), strict=True)
            return [Entry(seq, event) for seq, event in sorted(found, key=itemgetter(0))]

        return await self._call(work)

    async def acknowledge(self, seq: int) -> None:
        """Forgets all events up to this one: the database has them."""

        def work(db: sqlite3.Connection) -> int:
            return db.execute("DELETE FROM events WHERE seq <= ?", (seq,)).rowcount

        removed = await self._call(work)
        with self._lock:
            self._waiting -= removed

    async def count_from(self, seq: int) -> bool:
        """Goes on behind this number, which the database has seen; whether that was news.

        It is when the file was put back from a copy: then events of this process have numbers that
        others had before.
        """

        def work(db: sqlite3.Connection) -> bool:
            ahead = seq - self._last_before
            if ahead <= 0:
                return False
            last = int(self._one(LAST))
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "UPDATE events SET seq = -(seq + ?) WHERE seq > ?", (ahead, self._last_before)
            )
            db.execute("UPDATE events SET seq = -seq WHERE seq < 0")
            db.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            db.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (last + ahead,))
            db.execute("COMMIT")
            self._last_before = seq
            return True

        return await self._call(work)

    async def rooms(self) -> Sequence[RoomRecord]:
        """The snapshot: every open room as it last was."""

        def work(db: sqlite3.Connection) -> list[RoomRecord]:
            return [_decode_room(room) for (room,) in db.execute("SELECT room FROM rooms")]

        return await self._call(work)

    async def replace_rooms(self, rooms: Sequence[RoomRecord]) -> None:
        """The snapshot is now these: the database knew better."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM rooms")
            for room in rooms:
                self._snapshot(room)
            db.execute("COMMIT")

        await self._call(work)

    async def close(self) -> None:
        """Writes what was taken, if that can be done, and closes the file."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    # ---- the outbox's thread ----

    def _run(self) -> None:
        closing_down = False
        with closing(self._db):
            while not closing_down:
                batch, calls, closing_down = self._take()
                self._unwritten = self._write(batch)
                for call in calls:
                    try:
                        call.answer.set_result(call.work(self._db))
                    except Exception as error:  # whoever asked is told
                        call.answer.set_exception(error)
        if self._unwritten:
            log.error("outbox_lost", events=len(self._unwritten))

    def _take(self) -> tuple[list[_Append], list[_Call], bool]:
        """What came, in its order; waits for something unless there is something to retry."""
        batch, calls = self._unwritten, list[_Call]()
        try:
            item = self._work.get(timeout=RETRY_S if batch else None)
            if isinstance(item, _Append) and item.written is None:
                time.sleep(GATHER_S)
            while item is not None:
                if isinstance(item, _Call):
                    calls.append(item)
                    break  # it sees what came before it, and nothing later
                batch.append(item)
                if len(batch) >= MOST_PER_COMMIT:
                    break
                item = self._work.get_nowait()
            return batch, calls, item is None
        except queue.Empty:
            return batch, calls, False

    def _write(self, batch: list[_Append]) -> list[_Append]:
        """Commits the batch; returns what is to be tried again."""
        if not batch:
            return []
        try:
            self._commit(batch)
        except sqlite3.Error as error:
            log.error("outbox_not_written", reason=str(error), events=len(batch))
            refused = [append.written for append in batch if append.written is not None]
            with self._lock:
                self._waiting -= len(refused)
            for written in refused:
                written.set_exception(OutboxError(f"{self._path} can't be written: {error}"))
            return [append for append in batch if append.written is None]
        for append in batch:
            if append.written is not None:
                append.written.set_result(None)
        if self._listener is not None:
            self._listener()
        return []

    def _commit(self, batch: list[_Append]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for at in range(0, len(batch), EVENTS_PER_STATEMENT):
                events = [encode_event(a.event) for a in batch[at : at + EVENTS_PER_STATEMENT]]
                rows = ",".join(["(?)"] * len(events))
                self._db.execute(f"INSERT INTO events (event) VALUES {rows}", events)  # noqa: S608
            for append in batch:
                if isinstance(append.event, RoomChanged):
                    self._snapshot(append.event.room)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back itself when the disk is full
                self._db.execute("ROLLBACK")
            raise

    def _snapshot(self, room: RoomRecord) -> None:
        if room.state is RoomState.CLOSED:
            self._db.execute("DELETE FROM rooms WHERE id = ?", (room.id,))
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO rooms VALUES (?, ?)",
                (room.id, _encode(room)),
            )

    def _open(self) -> str:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        version = int(self._one("PRAGMA user_version"))
        if version == 0:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO stream VALUES (?)", (str(uuid.uuid4()),))
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"{self._path} was written by a newer roomserver")
        return str(self._one("SELECT id FROM stream"))

    def _one(self, query: str) -> Any:
        with closing(self._db.execute(query)) as cursor:
            return cursor.fetchone()[0]

    async def _call(self, work: Callable[[sqlite3.Connection], R]) -> R:
        answer: Future[R] = Future()
        answer.set_running_or_notify_cancel()
        self._work.put(_Call(work, answer))
        return await asyncio.wrap_future(answer)
