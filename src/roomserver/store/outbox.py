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
import fcntl
import queue
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import structlog

from roomserver.ids import new_id
from roomserver.protocol.codes import RoomState
from roomserver.store.events import (
    Event,
    RoomChanged,
    Unreadable,
    Weight,
    decode_events,
    encode_event,
)
from roomserver.store.faultpoints import fault_point
from roomserver.store.records import RoomRecord

FILE_NAME = "outbox.db"
LOCK_NAME = "outbox.lock"  # held while a server uses the file; others may read it
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE stream (id TEXT NOT NULL) STRICT;
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL) STRICT;
CREATE TABLE rooms (id TEXT PRIMARY KEY, room BLOB NOT NULL) STRICT, WITHOUT ROWID
"""
EVERY_COMMIT_ON_DISK = "PRAGMA synchronous = FULL"
# Of pages that are in the system's memory anyway: SQLite's own 2 MB fill up once many events have
# waited, and stay full.
LITTLE_CACHE = "PRAGMA cache_size = -256"  # KiB
LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
MOST_PER_COMMIT = 1000
# Every statement gives the interpreter away and has to get it back, so one writes many events.
EVENTS_PER_STATEMENT = 64
# How long an event that nobody waits for may wait for others, which then share its commit.
GATHER_S = 0.005
RETRY_S = 1.0
# Of the capacity, from where on events of a weight are dropped.
SHARES = {Weight.COUNTERS: 0.7, Weight.JOIN: 0.8, Weight.LEAVE: 0.9, Weight.AUDIT: 1.0}

# The next events as one row, for the same reason; numbers, because order is not promised.
READ = """
SELECT '[' || group_concat(seq) || ']', '[' || group_concat(event) || ']' FROM (
    SELECT seq, CAST(event AS TEXT) AS event FROM events WHERE seq > ? ORDER BY seq LIMIT ?
)
"""
READ_ONE_BY_ONE = "SELECT seq, event FROM events WHERE seq > ? ORDER BY seq LIMIT ?"

_decode_numbers = msgspec.json.Decoder(list[int]).decode
_decode_room = msgspec.json.Decoder(RoomRecord).decode
_encode = msgspec.json.Encoder().encode
R = TypeVar("R")

log = structlog.stdlib.get_logger("roomserver.outbox")


class OutboxError(Exception):
    """An event could not be written down; nothing was acknowledged and nothing was kept of it.

    Of the file itself: it can't be used, and the message says why and what to do.
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """One event and its number in the stream; numbers only grow."""

    seq: int
    event: Event | Unreadable


@dataclass(slots=True)
class _Append:
    data: bytes
    room: RoomRecord | None  # goes into the snapshot with it
    written: Future[int] | None  # None: nobody waits


@dataclass(slots=True)
class _Call:
    work: Callable[[sqlite3.Connection], Any]
    answer: Future[Any]


class Outbox:
    """The queue. `append_soon` may be called from any thread, the rest in one event loop."""

    def __init__(self, data_dir: Path, *, capacity: int) -> None:
        """Opens or makes the file, for this process alone.

        Raises OutboxError when it is damaged, of a newer release, or another server has it, and
        OSError.
        """
        self._path = data_dir / FILE_NAME
        self._capacity = capacity
        self._lock = threading.Lock()
        self._waiting = 0  # events not acknowledged yet, in the file or on the way to it
        self._dropped: Counter[Weight] = Counter()
        self._closed = False
        self._work: queue.SimpleQueue[_Append | _Call | None] = queue.SimpleQueue()
        self._listener: Callable[[], object] | None = None
        # Of its thread: taken and not on disk, and why not, and when that is tried again.
        self._taken: deque[_Append] = deque()
        self._trouble: str | None = None
        self._retry_at = 0.0
        self._lock_file = self._take_lock()
        try:
            self._path.touch(mode=0o600)  # before SQLite makes it with the process's mask
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        except BaseException:
            self._lock_file.close()
            raise
        try:
            self._stream_id = self._open()
            self._waiting = int(self._one("SELECT count(*) FROM events"))
            self._last_seq = int(self._one(LAST_SEQ))
            self._last_before = self._last_seq  # number given before this process
        except BaseException as error:
            self._db.close()
            self._lock_file.close()
            if isinstance(error, sqlite3.Error):
                raise OutboxError(self._what_is_wrong(error)) from error
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
    def last_seq(self) -> int:
        """The number of the newest event on disk; 0 before the first."""
        return self._last_seq

    @property
    def waiting(self) -> int:
        """How many events have not been acknowledged."""
        return self._waiting

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at the moment."""
        return self._trouble

    @property
    def dropped(self) -> dict[Weight, int]:
        """How many events there was no room for, by weight."""
        with self._lock:
            return dict(self._dropped)

    def on_written(self, listener: Callable[[], object]) -> None:
        """Calls `listener`, in the outbox's thread, whenever there is more to read."""
        self._listener = listener

    async def append(self, event: Event) -> int:
        """Returns the event's number when it is on disk. Raises OutboxError when it can't be."""
        written: Future[int] = Future()
        written.set_running_or_notify_cancel()  # whoever stops waiting does not stop the writing
        try:
            append = _Append(encode_event(event), _room_of(event), written)
        except (ValueError, TypeError) as error:
            raise OutboxError(f"an event can't be written: {error}") from None
        with self._lock:
            self._put(append)
            self._waiting += 1
        return await asyncio.wrap_future(written)

    def append_soon(self, event: Event) -> bool:
        """Takes the event and returns at once; False: there was no room for it."""
        share = SHARES.get(event.weight)
        with self._lock:
            if self._closed or (share is not None and self._waiting >= share * self._capacity):
                self._dropped[event.weight] += 1
                return False
            try:
                self._put(_Append(encode_event(event), _room_of(event), None))
            except (ValueError, TypeError):  # no JSON can hold it: half a surrogate, for instance
                self._dropped[event.weight] += 1
                log.exception("event_not_written", kind=type(event).__name__)
                return False
            self._waiting += 1
        return True

    async def flush(self) -> int:
        """Returns the newest number when all that was taken so far is on disk.

        Raises OutboxError if it can't be; it is tried again.
        """

        def work(_: sqlite3.Connection) -> int:
            self._write()
            if self._taken:
                raise OutboxError(f"{self._path} can't be written: {self._trouble}")
            return self._last_seq

        return await self._call(work)

    async def read(self, after: int, limit: int) -> list[Entry]:
        """The next events behind number `after`, oldest first."""

        def work(db: sqlite3.Connection) -> list[Entry]:
            try:
                numbers, events = db.execute(READ, (after, limit)).fetchone()
                if numbers is None:
                    return []
                found = zip(_decode_numbers(numbers), decode_events(events), strict=True)
                return [Entry(seq, event) for seq, event in sorted(found, key=itemgetter(0))]
            except (ValueError, sqlite3.OperationalError):  # one of them is no event, or no text
                rows = db.execute(READ_ONE_BY_ONE, (after, limit))
                return [Entry(seq, _decode(event)) for seq, event in rows]

        return await self._call(work)

    async def acknowledge(self, seq: int) -> None:
        """Forgets all events up to this one: the database has them."""

        def work(db: sqlite3.Connection) -> int:
            # What a power cut brings back the database knows: nobody needs to wait for the disk.
            db.execute("PRAGMA synchronous = NORMAL")
            try:
                removed = db.execute("DELETE FROM events WHERE seq <= ?", (seq,)).rowcount
            finally:
                db.execute(EVERY_COMMIT_ON_DISK)
            fault_point("acknowledge:deleted")
            return removed

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
            last = self._last_seq + ahead
            with self._transaction():
                db.execute(
                    "UPDATE events SET seq = -(seq + ?) WHERE seq > ?", (ahead, self._last_before)
                )
                db.execute("UPDATE events SET seq = -seq WHERE seq < 0")
                db.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
                db.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (last,))
            self._last_before, self._last_seq = seq, last
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
            with self._transaction():
                db.execute("DELETE FROM rooms")
                for room in rooms:
                    self._snapshot(room)

        await self._call(work)

    async def close(self) -> None:
        """Writes what was taken, if that can be done, and closes the file."""
        with self._lock:
            if not self._closed:
                self._put(None)
                self._closed = True
        await asyncio.to_thread(self._thread.join)

    # ---- the outbox's thread ----

    def _run(self) -> None:
        with closing(self._lock_file), closing(self._db):
            more = True
            while more:
                call, more = self._take()
                waited_for = any(append.written is not None for append in self._taken)
                if waited_for or not more or time.monotonic() >= self._retry_at:
                    self._write()
                if call is not None:
                    try:
                        call.answer.set_result(call.work(self._db))
                    except Exception as error:  # whoever asked is told
                        call.answer.set_exception(error)
        if self._taken:
            log.error("outbox_lost", events=len(self._taken), reason=self._trouble)

    def _take(self) -> tuple[_Call | None, bool]:
        """Takes what came, in its order, and waits if there is nothing to do.

        A call sees what came before it, and nothing later. False: that was the last.
        """
        timeout = None
        if self._taken:  # to be tried again
            timeout = max(0.0, self._retry_at - time.monotonic())
        try:
            for _ in range(MOST_PER_COMMIT):
                item = self._work.get(timeout=timeout)
                if not isinstance(item, _Append):
                    return item, item is not None
                if not self._taken and item.written is None:
                    time.sleep(GATHER_S)
                self._taken.append(item)
                timeout = 0.0
        except queue.Empty:
            pass
        return None, True

    def _write(self) -> None:
        """Commits what was taken, in order and piece by piece, up to what the disk refuses."""
        while self._taken:
            piece = list(islice(self._taken, MOST_PER_COMMIT))
            fault_point("append:taken")
            try:
                numbers = self._commit(piece)
            except Exception as error:  # whatever it is, this thread goes on
                self._refused(error)
                return
            fault_point("append:committed")
            if self._trouble is not None:
                self._trouble = None
                log.info("outbox_writes_again", events=len(self._taken))
            self._last_seq = numbers[-1]
            for append, seq in zip(piece, numbers, strict=True):
                self._taken.popleft()
                if append.written is not None:
                    append.written.set_result(seq)
            fault_point("append:told")
            if self._listener is not None:
                self._listener()

    def _refused(self, error: Exception) -> None:
        """Tells those who wait; the rest is kept, and tried again after a while."""
        if self._trouble is None:  # said once, not with every try
            log.error("outbox_not_written", reason=str(error), events=len(self._taken))
        self._trouble = str(error)
        self._retry_at = time.monotonic() + RETRY_S
        told = [append.written for append in self._taken if append.written is not None]
        self._taken = deque(append for append in self._taken if append.written is None)
        with self._lock:
            self._waiting -= len(told)
        for written in told:
            written.set_exception(OutboxError(f"{self._path} can't be written: {error}"))

    def _commit(self, piece: Sequence[_Append]) -> range:
        """Their numbers."""
        last = 0
        with self._transaction():
            for at in range(0, len(piece), EVENTS_PER_STATEMENT):
                events = [append.data for append in piece[at : at + EVENTS_PER_STATEMENT]]
                rows = ",".join(["(?)"] * len(events))
                statement = f"INSERT INTO events (event) VALUES {rows}"  # noqa: S608
                last = self._db.execute(statement, events).lastrowid or 0
            fault_point("append:inserted")
            for append in piece:
                if append.room is not None:
                    self._snapshot(append.room)
            fault_point("append:snapshotted")
        return range(last - len(piece) + 1, last + 1)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back itself when the disk is full
                self._db.execute("ROLLBACK")
            raise

    def _snapshot(self, room: RoomRecord) -> None:
        if room.state is RoomState.CLOSED:
            self._db.execute("DELETE FROM rooms WHERE id = ?", (room.id,))
        else:
            self._db.execute("INSERT OR REPLACE INTO rooms VALUES (?, ?)", (room.id, _encode(room)))

    # ---- the file ----

    def _open(self) -> str:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(EVERY_COMMIT_ON_DISK)
        self._db.execute(LITTLE_CACHE)
        version = int(self._one("PRAGMA user_version"))
        if version == 0:
            with self._transaction():
                for statement in SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO stream VALUES (?)", (new_id(),))
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise OutboxError(f"{self._path} was written by a newer roomserver")
        found = str(self._one("PRAGMA quick_check(1)"))
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        return str(self._one("SELECT id FROM stream"))

    def _take_lock(self) -> IO[str]:
        """Two servers with one file would number their events in one stream."""
        file = self._path.with_name(LOCK_NAME).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OutboxError(
                f"{self._path} is in use by another server; give this one a --data-dir of its own"
            ) from None
        return file

    def _what_is_wrong(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return f"{self._path} can't be used: {error}"
        reason = " ".join(str(error).split())
        return (
            f"{self._path} is damaged ({reason}). It may hold what the database has not been told"
            f" yet: keep a copy of it and of {FILE_NAME}-wal beside it, move both away, and start"
            f" again"
        )

    def _one(self, query: str) -> Any:
        with closing(self._db.execute(query)) as cursor:
            return cursor.fetchone()[0]

    def _put(self, item: _Append | _Call | None) -> None:
        """Under the lock, so that nothing comes behind the last."""
        if self._closed:
            raise OutboxError(f"{self._path} is closed")
        self._work.put(item)

    async def _call(self, work: Callable[[sqlite3.Connection], R]) -> R:
        answer: Future[R] = Future()
        answer.set_running_or_notify_cancel()
        with self._lock:
            self._put(_Call(work, answer))
        return await asyncio.wrap_future(answer)


def _room_of(event: Event) -> RoomRecord | None:
    return event.room if isinstance(event, RoomChanged) else None


def _decode(data: bytes) -> Event | Unreadable:
    try:
        [event] = decode_events(b"[" + data + b"]")
        return event
    except ValueError as error:  # msgspec's is one
        return Unreadable(data, str(error))
