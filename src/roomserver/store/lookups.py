"""Where rooms are that are not here: asked once for all who want to know it at the same time.

A hall that was sent to another server comes at once, and all of it asks for one room. So equal
questions share an answer, under way or just given, and only the rest counts against the budgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from roomserver.store.interfaces import LookupsBusyError
from roomserver.store.records import Elsewhere

# Different rooms: so many looked up at once, so many that may wait, and of those that nothing but a
# guess names so many in a second.
LOOKUPS_AT_ONCE = 4
LOOKUPS_WAITING = 64
GUESSES_PER_S = 50
# How long an answer holds. A room may move meanwhile: who is sent to where it was asks there.
KEPT_S = 2.0


class _Kept(NamedTuple):
    until: float
    room: Elsewhere | None


class Lookups:
    """The look-ups of one server. One event loop."""

    def __init__(
        self,
        locate: Callable[[str], Awaitable[tuple[Elsewhere, bool] | None]],
        *,
        claim: Callable[[], Awaitable[None]],
        is_here: Callable[[str], bool],
    ) -> None:
        """locate: the open room with this id or code, and whether nobody has it.
        claim: takes up what nobody has.
        is_here: whether the room with this id is open here.
        """
        self._locate = locate
        self._claim = claim
        self._is_here = is_here
        self._at_once = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._running: dict[str, asyncio.Task[Elsewhere | None]] = {}
        self._kept: dict[str, _Kept] = {}  # oldest first
        self._guesses = (0.0, 0)  # since when, how many

    async def find(self, name: str, *, guess: bool) -> Elsewhere | None:
        """The room that another server has; of one that nobody has this server takes care.

        guess: whoever asks has shown nothing yet.

        Raises LookupsBusyError, and what `locate` and `claim` do.
        """
        now = asyncio.get_running_loop().time()
        self._forget_old(now)
        kept = self._kept.get(name)
        # Guesses that hit and guesses that do not take equally long. Who bears a token of the room
        # knows that there was one: it may have become known since.
        if kept is not None and (guess or kept.room is not None):
            room = kept.room
        else:
            running = self._running.get(name)
            if running is None:
                if len(self._running) >= LOOKUPS_WAITING or (guess and not self._may_guess(now)):
                    raise LookupsBusyError
                running = self._running[name] = asyncio.create_task(self._look(name))
                running.add_done_callback(lambda done: self._finished(name, done))
            # One caller going away must not take the answer from the others.
            room = await asyncio.shield(running)
        return None if room is None or self._is_here(room.id) else room

    def forget(self) -> None:
        """Rooms have moved: what was found before holds no more."""
        self._kept.clear()

    async def close(self) -> None:
        """Ends what is under way."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _look(self, name: str) -> Elsewhere | None:
        async with self._at_once:
            room, abandoned = await self._locate(name) or (None, False)
            if abandoned:
                # Ours afterwards, unless another was quicker: whoever asks next hears that.
                await self._claim()
                return None
        if room is not None and self._is_here(room.id):
            room = None
        self._kept.pop(name, None)
        self._kept[name] = _Kept(asyncio.get_running_loop().time() + KEPT_S, room)
        return room

    def _forget_old(self, now: float) -> None:
        while self._kept:
            name, kept = next(iter(self._kept.items()))
            if kept.until > now:
                break
            del self._kept[name]

    def _may_guess(self, now: float) -> bool:
        since, count = self._guesses
        if now - since >= 1:
            since, count = now, 0
        self._guesses = (since, count + 1)
        return count < GUESSES_PER_S

    def _finished(self, name: str, done: asyncio.Task[Elsewhere | None]) -> None:
        self._running.pop(name, None)
        if not done.cancelled():
            done.exception()  # seen, also when every caller went away
