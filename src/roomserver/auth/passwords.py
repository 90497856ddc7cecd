"""Passwords: bcrypt in bounded pools of threads of low priority, and verifiers that spare it.

bcrypt costs 0.2 s of a core. It runs in threads of its own (it releases the GIL) whose priority
is lower than that of everything else, so that a storm of logins does not move the audio; where the
relay has no real-time priority they leave one processor to the rest as well. A pool that has enough
waiting refuses more: the caller answers 503 instead of letting a queue grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import bcrypt

MAX_PASSWORD_BYTES = 72  # bcrypt reads no more
LEAST_ROUNDS = 4  # of bcrypt
LEAST_ACCOUNT_PASSWORD = 8  # characters; a room's is as short as its owner likes
LOWER_PRIORITY = 10  # added to the nice value
LOWEST_PRIORITY = 19
# A busy thread of real-time priority has none for moments, less than a millisecond as a rule.
LOOKS = 3
LOOK_AGAIN_S = 0.005
# That a room of another server is gone nobody says here. One forgotten costs a bcrypt again.
MOST_VERIFIERS = 10_000
# Of a pool's places, for those who ask from one address, once half of all are taken: who guesses
# from one leaves the others room. From three all of it can be taken.
SHARE_OF_ONE = 4


class InvalidPasswordError(ValueError):
    """A text that cannot be a password: too short, too long for bcrypt, or with a NUL."""


class PoolFullError(Exception):
    """Too many passwords are waiting to be checked."""


def password_bytes(password: str, *, least: int = 1) -> bytes:
    """The bytes to hash, of at least so many characters.

    Raises InvalidPasswordError: what is too long is refused, never cut.
    """
    try:
        data = password.encode()
    except UnicodeEncodeError:
        raise InvalidPasswordError("a password is Unicode text") from None
    if not data:
        raise InvalidPasswordError("a password may not be empty")
    if len(password) < least:
        raise InvalidPasswordError(f"the password needs at least {least} characters")
    if len(data) > MAX_PASSWORD_BYTES:
        raise InvalidPasswordError(f"a password may have at most {MAX_PASSWORD_BYTES} bytes")
    if b"\0" in data:
        raise InvalidPasswordError("a password may not contain a NUL character")
    return data


T = TypeVar("T")


class PasswordPool:
    """A bounded pool of threads that hash and check. Used from the event loop."""

    def __init__(self, name: str, *, rounds: int, threads: int, queue: int) -> None:
        self.name = name
        self._rounds = rounds
        self.capacity = threads * queue
        """How many may be checked or wait for it."""
        self._most_of_one = max(1, self.capacity // SHARE_OF_ONE)
        self._of_one: Counter[str] = Counter()  # by who asks
        self.waiting = 0
        """How many are."""
        self.refused = 0
        """How many were not let in since the start."""
        self._executor = ThreadPoolExecutor(
            threads, thread_name_prefix=f"bcrypt-{name}", initializer=_stand_back
        )
        # Of each cost up to ours. Nothing hashes to them, and to find that out costs the same.
        self._decoys = {
            cost: bcrypt.gensalt(cost) + b"." * 31 for cost in range(LEAST_ROUNDS, rounds + 1)
        }

    async def hash(self, password: bytes) -> bytes:
        """A salted hash of the password. Raises PoolFullError."""
        return await self._run(lambda: bcrypt.hashpw(password, bcrypt.gensalt(self._rounds)))

    async def check(
        self, password: bytes, hashed: bytes | None, *, asker: str | None = None
    ) -> bool:
        """Whether the password is the one that was hashed; takes as long with None for a hash, and
        with one that cost less because it was made elsewhere.

        `asker` is the address it comes from, which gets a quarter of the pool when half of it is
        taken. Raises PoolFullError.
        """
        if asker is None:
            return await self._run(lambda: self._check(password, hashed))
        is_short = self.waiting >= self.capacity // 2
        if is_short and self._of_one[asker] >= self._most_of_one:
            self.refused += 1
            raise PoolFullError(self.name)
        self._of_one[asker] += 1
        try:
            return await self._run(lambda: self._check(password, hashed))
        finally:
            self._of_one[asker] -= 1
            if not self._of_one[asker]:
                del self._of_one[asker]

    def close(self) -> None:
        """Waits for the checks under way and ends the threads; what still queues is cancelled."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _check(self, password: bytes, hashed: bytes | None) -> bool:
        if hashed is None:
            bcrypt.checkpw(password, self._decoys[self._rounds])
            return False
        matches = bcrypt.checkpw(password, hashed)
        # Each round doubles the work: with those from its own cost on, all of it is that of ours.
        for cost in range(int(hashed.split(b"$")[2]), self._rounds):
            bcrypt.checkpw(password, self._decoys[cost])
        return matches

    async def _run(self, work: Callable[[], T]) -> T:
        if self.waiting >= self.capacity:
            self.refused += 1
            raise PoolFullError(self.name)
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self.waiting -= 1


def _stand_back() -> None:
    # Linux keeps both per thread, here those of the thread that made this one. Where they are not
    # allowed or not known, bcrypt runs as is.
    thread = threading.get_native_id()
    with contextlib.suppress(OSError, AttributeError):
        nice = os.getpriority(os.PRIO_PROCESS, 0) + LOWER_PRIORITY
        os.setpriority(os.PRIO_PROCESS, thread, min(nice, LOWEST_PRIORITY))
    # Niceness orders the threads of one group. Between groups (sessions, containers, services) only
    # what each has used counts, and bcrypt on every processor would use up its whole group's turn,
    # the relay's threads', too: they would then wait for a time slice of somebody else. Those of
    # real-time priority wait for nobody; but a processor that one of them keeps busy leaves bcrypt
    # a twentieth at most, so that then it runs on whichever has something left.
    with contextlib.suppress(OSError, AttributeError):
        if not _has_realtime_threads():
            processors = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(thread, processors[1:] or processors)


def _has_realtime_threads() -> bool:
    for look in range(LOOKS):
        time.sleep(look * LOOK_AGAIN_S)
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended, or nobody may know
                if os.sched_getscheduler(int(task.name)) == os.SCHED_FIFO:
                    return True
    return False


_process_key = secrets.token_bytes(32)


def attempt_id(subject: str, password: bytes) -> bytes:
    """The same for equal attempts in this process, and nothing that leads back to the password."""
    # Of what can be keyed this alone does not give the interpreter away, which has to be got back.
    text = subject.encode() + b"\0" + password
    return hashlib.blake2b(text, key=_process_key, digest_size=32).digest()


class RoomPasswords:
    """Checks passwords of rooms so that a thousand joins cost one bcrypt.

    A password that was right once is remembered as its MAC under a key of this process. Whoever
    brings it again passes at once. Everything else costs one bcrypt: the first success after a
    restart, a wrong password, a room that does not exist; so none of these can be told from
    another by its time. Equal attempts at the same time share one.
    """

    def __init__(self, pool: PasswordPool) -> None:
        self._pool = pool
        # With the hash each belongs to: one made for an earlier password fits no more.
        self._verifiers: dict[str, tuple[bytes, bytes]] = {}
        self._running: dict[tuple[str, bytes, bytes | None], asyncio.Future[bool]] = {}

    async def make(self, room: str, password: bytes) -> bytes:
        """Hashes the password of a new room and remembers its verifier. Raises PoolFullError."""
        hashed = await self._pool.hash(password)
        self._remember(room, hashed, attempt_id(room, password))
        return hashed

    def knows(self, room: str, attempt: bytes, hashed: bytes | None) -> bool:
        """Whether that password is known to open the room, so that nothing has to be found out.

        `attempt` is its `attempt_id` at the room.
        """
        known_hash, known_digest = self._verifiers.get(room, (b"", b""))
        same = hmac.compare_digest(known_digest, attempt)
        return same and known_hash == hashed

    async def check(
        self, room: str, password: bytes, hashed: bytes | None, *, asker: str | None = None
    ) -> bool:
        """Whether the password opens the room; `hashed` is None when there is no such room.

        `asker` as for the pool. Raises PoolFullError.
        """
        digest = attempt_id(room, password)
        if self.knows(room, digest, hashed):
            return True
        attempt = (room, digest, hashed)  # that which was right for another password is not
        running = self._running.get(attempt)
        if running is None:
            running = asyncio.ensure_future(self._pool.check(password, hashed, asker=asker))
            self._running[attempt] = running
            running.add_done_callback(lambda done: self._finished(attempt, done))
        # One caller going away must not take the answer from the others.
        right = await asyncio.shield(running)
        if right and hashed is not None:
            self._remember(room, hashed, digest)
        return right

    def forget(self, room: str) -> None:
        """The room is gone."""
        self._verifiers.pop(room, None)

    def _remember(self, room: str, hashed: bytes, digest: bytes) -> None:
        self._verifiers.pop(room, None)  # the newest stands last
        self._verifiers[room] = (hashed, digest)
        if len(self._verifiers) > MOST_VERIFIERS:
            del self._verifiers[next(iter(self._verifiers))]

    def _finished(
        self, attempt: tuple[str, bytes, bytes | None], done: asyncio.Future[bool]
    ) -> None:
        self._running.pop(attempt, None)
        if not done.cancelled():
            done.exception()  # seen, also when every caller went away
