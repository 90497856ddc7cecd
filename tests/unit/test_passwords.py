"""Passwords: bounded pools, and verifiers that spare bcrypt."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator

import bcrypt
import pytest

from roomserver.auth import passwords
from roomserver.auth.passwords import (
    InvalidPasswordError,
    PasswordPool,
    PoolFullError,
    RoomPasswords,
    password_bytes,
)


class CountingPool(PasswordPool):
    """Counts what reaches bcrypt."""

    checks = 0

    async def check(
        self, password: bytes, hashed: bytes | None, *, asker: str | None = None
    ) -> bool:
        self.checks += 1
        return await super().check(password, hashed, asker=asker)


@pytest.fixture
def pool() -> Iterator[CountingPool]:
    pool = CountingPool("test", rounds=4, threads=2, queue=4)
    yield pool
    pool.close()


def test_an_accounts_password_has_eight_characters_or_more() -> None:
    assert password_bytes("ü" * 8, least=8) == ("ü" * 8).encode()
    with pytest.raises(InvalidPasswordError, match="at least 8 characters"):
        password_bytes("ü" * 7, least=8)
    assert password_bytes("x") == b"x"  # a room's


@pytest.mark.parametrize("text", ["", "x" * 73, "ü" * 37, "a\0b", "\ud800"])
def test_what_bcrypt_would_cut_or_cannot_take_is_refused(text: str) -> None:
    with pytest.raises(InvalidPasswordError):
        password_bytes(text)


def test_72_bytes_are_a_password() -> None:
    assert len(password_bytes("ü" * 36)) == 72


async def test_a_hash_fits_its_password_only(pool: CountingPool) -> None:
    hashed = await pool.hash(b"right")
    assert await pool.check(b"right", hashed)
    assert not await pool.check(b"wrong", hashed)
    assert not await pool.check(b"right", None)


@pytest.mark.parametrize("cost", [None, 4, 6, 7, 8, 9])
async def test_a_hash_of_another_server_is_not_told_by_the_time_it_takes(
    monkeypatch: pytest.MonkeyPatch, cost: int | None
) -> None:
    """No account, one of ours, one that came with a cheaper hash: the same work."""
    check = bcrypt.checkpw
    work: list[int] = []

    def checkpw(password: bytes, hashed: bytes) -> bool:
        work.append(2 ** int(hashed[4:6]))
        return check(password, hashed)

    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(cost)) if cost is not None else None
    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    pool = PasswordPool("test", rounds=8, threads=1, queue=1)
    for password in (b"right", b"wrong"):
        work.clear()
        assert await pool.check(password, hashed) is (password == b"right" and cost is not None)
        assert sum(work) == 2 ** max(8, cost or 0)
    pool.close()


async def test_a_pool_that_has_enough_waiting_refuses_more(pool: CountingPool) -> None:
    hashed = await pool.hash(b"right")
    results = await asyncio.gather(
        *(pool.check(b"right", hashed) for _ in range(20)), return_exceptions=True
    )
    assert results.count(True) == 8
    assert sum(isinstance(result, PoolFullError) for result in results) == 12
    assert await pool.check(b"right", hashed)


async def test_one_address_gets_half_of_a_pool_and_a_quarter_of_a_busy_one(
    pool: CountingPool,
) -> None:
    hashed = await pool.hash(b"right")
    askers = ["192.0.2.1"] * 10 + ["192.0.2.2"]
    for others, places in ((0, 4), (0, 4), (4, 2)):  # what is over takes no place
        elsewhere = [pool.check(b"right", hashed) for _ in range(others)]
        results = await asyncio.gather(
            *elsewhere,
            *(pool.check(b"right", hashed, asker=asker) for asker in askers),
            return_exceptions=True,
        )
        del results[:others]
        assert results[:places] == [True] * places
        assert all(isinstance(result, PoolFullError) for result in results[places:-1])
        assert results[-1] is True
    assert pool.refused == 6 + 6 + 8


# A relay's thread that has real-time priority goes without it for moments.
@pytest.mark.parametrize(
    "policy", [[os.SCHED_OTHER], [os.SCHED_FIFO], [os.SCHED_OTHER, os.SCHED_FIFO]]
)
async def test_bcrypt_stands_back_in_threads_of_its_own(
    pool: CountingPool, monkeypatch: pytest.MonkeyPatch, policy: list[int]
) -> None:
    looks: Counter[int] = Counter()

    def policy_of(task: int) -> int:
        looks[task] += 1
        return policy[min(looks[task], len(policy)) - 1]

    monkeypatch.setattr(os, "sched_getscheduler", policy_of)
    loop = asyncio.get_running_loop()
    nice, processors, name = await loop.run_in_executor(
        pool._executor,
        lambda: (
            os.getpriority(os.PRIO_PROCESS, threading.get_native_id()),
            os.sched_getaffinity(threading.get_native_id()),
            threading.current_thread().name,
        ),
    )
    ours = os.sched_getaffinity(0)
    assert nice == min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)
    assert processors <= ours
    left_out = os.SCHED_FIFO not in policy and len(ours) > 1
    assert len(processors) == len(ours) - left_out
    assert name.startswith("bcrypt-test")


async def test_a_thousand_joins_cost_no_bcrypt_after_the_room_was_made(pool: CountingPool) -> None:
    passwords = RoomPasswords(pool)
    hashed = await passwords.make("room", b"right")
    for _ in range(1000):
        assert await passwords.check("room", b"right", hashed)
    assert pool.checks == 0


async def test_after_a_restart_a_thousand_equal_joins_share_one_bcrypt(pool: CountingPool) -> None:
    hashed = await pool.hash(b"right")
    passwords = RoomPasswords(pool)
    joins = [passwords.check("room", b"right", hashed) for _ in range(1000)]
    assert all(await asyncio.gather(*joins))
    assert pool.checks == 1


async def test_a_wrong_password_and_an_unknown_room_cost_the_same(pool: CountingPool) -> None:
    passwords = RoomPasswords(pool)
    hashed = await passwords.make("room", b"right")
    assert not await passwords.check("room", b"wrong", hashed)
    assert not await passwords.check("elsewhere", b"right", None)
    assert pool.checks == 2


async def test_a_verifier_does_not_outlive_its_password(pool: CountingPool) -> None:
    passwords = RoomPasswords(pool)
    hashed = await passwords.make("room", b"old")
    changed = await pool.hash(b"new")
    assert not await passwords.check("room", b"old", changed)
    assert await passwords.check("room", b"new", changed)
    assert hashed != changed
    passwords.forget("room")
    assert not await passwords.check("room", b"new", None)


async def test_verifiers_of_rooms_elsewhere_do_not_pile_up(
    pool: CountingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells when those are gone; the oldest costs a bcrypt again."""
    monkeypatch.setattr(passwords, "MOST_VERIFIERS", 3)
    hashed = await pool.hash(b"right")
    rooms = RoomPasswords(pool)
    for number in range(5):
        assert await rooms.check(f"room {number}", b"right", hashed)
    pool.checks = 0
    for number in (2, 3, 4):
        assert await rooms.check(f"room {number}", b"right", hashed)
    assert pool.checks == 0
    assert await rooms.check("room 1", b"right", hashed)
    assert pool.checks == 1


async def test_what_was_right_for_the_password_before_is_wrong_for_the_next(
    pool: CountingPool,
) -> None:
    passwords = RoomPasswords(pool)
    before, after = await pool.hash(b"old"), await pool.hash(b"new")
    first = asyncio.ensure_future(passwords.check("room", b"old", before))
    await asyncio.sleep(0)  # it is under way, and the password is changed
    assert not await passwords.check("room", b"old", after)
    assert await first
    assert not await passwords.check("room", b"old", after)


async def test_one_caller_that_goes_away_does_not_take_the_answer_from_others(
    pool: CountingPool,
) -> None:
    hashed = await pool.hash(b"right")
    passwords = RoomPasswords(pool)
    first = asyncio.ensure_future(passwords.check("room", b"right", hashed))
    second = asyncio.ensure_future(passwords.check("room", b"right", hashed))
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    assert pool.checks == 1
