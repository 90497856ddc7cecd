"""Mixes that listeners keep under a name: in PostgreSQL, or in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from roomserver.protocol.server import MixState
from roomserver.store.database import Database

MOST = 100  # of one owner
MOST_OWNERS = 10_000  # in memory
ANSWER_S = 3.0

# An owner is a user or a participant; ids of the one are never those of the other.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('presets ' || $1, 0))"
COUNT_OTHERS = """
SELECT count(*) FROM relay.mix_presets
WHERE coalesce(user_id, participant_id) = $1 AND name <> $2
"""
SAVE = """
INSERT INTO relay.mix_presets
    (user_id, participant_id, name, faders, pans, mutes, solos, master)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT ((coalesce(user_id, participant_id)), name) DO UPDATE SET
    faders = excluded.faders, pans = excluded.pans, mutes = excluded.mutes,
    solos = excluded.solos, master = excluded.master
"""
LOAD = """
SELECT faders, pans, mutes, solos, master FROM relay.mix_presets
WHERE coalesce(user_id, participant_id) = $1 AND name = $2
"""
DELETE = """
DELETE FROM relay.mix_presets WHERE coalesce(user_id, participant_id) = $1 AND name = $2
RETURNING true
"""
NAMES = """
SELECT name FROM relay.mix_presets WHERE coalesce(user_id, participant_id) = $1 ORDER BY name
"""


class TooManyPresetsError(Exception):
    """The owner has as many as may be kept."""


class Owner(NamedTuple):
    """Whose presets: the user's if there is one, else the participant's."""

    user: str | None
    participant: str

    @property
    def key(self) -> str:
        """Who that is."""
        return self.user or self.participant


class PresetStore(Protocol):
    """Every method may raise DatabaseAwayError."""

    async def save(self, owner: Owner, name: str, mix: MixState) -> None:
        """Keeps the mix, in place of one of that name. Raises TooManyPresetsError."""

    async def load(self, owner: Owner, name: str) -> MixState | None:
        """The mix of that name; None if there is none."""

    async def delete(self, owner: Owner, name: str) -> bool:
        """Forgets it; whether there was one."""

    async def names(self, owner: Owner) -> Sequence[str]:
        """The names of all, in order."""


class PostgresPresetStore:
    """Implements `PresetStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, owner: Owner, name: str, mix: MixState) -> None:
        participant = owner.participant if owner.user is None else None
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            await connection.execute(LOCK, owner.key)
            if await connection.fetchval(COUNT_OTHERS, owner.key, name) >= MOST:
                raise _too_many()
            await connection.execute(
                SAVE,
                owner.user,
                participant,
                name,
                mix.faders,
                mix.pans,
                mix.mutes,
                mix.solos,
                mix.master,
            )

    async def load(self, owner: Owner, name: str) -> MixState | None:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            row = await connection.fetchrow(LOAD, owner.key, name)
        return msgspec.convert(dict(row), MixState) if row is not None else None

    async def delete(self, owner: Owner, name: str) -> bool:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return bool(await connection.fetchval(DELETE, owner.key, name))

    async def names(self, owner: Owner) -> Sequence[str]:
        async with self._database.transaction(within_s=ANSWER_S) as connection:
            return [row["name"] for row in await connection.fetch(NAMES, owner.key)]


class MemoryPresetStore:
    """Implements `PresetStore`; of so many owners, those who saved last."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, dict[str, MixState]] = OrderedDict()

    async def save(self, owner: Owner, name: str, mix: MixState) -> None:
        presets = self._owners.setdefault(owner.key, {})
        if name not in presets and len(presets) >= MOST:
            raise _too_many()
        presets[name] = mix
        self._owners.move_to_end(owner.key)
        while len(self._owners) > MOST_OWNERS:
            self._owners.popitem(last=False)

    async def load(self, owner: Owner, name: str) -> MixState | None:
        return self._owners.get(owner.key, {}).get(name)

    async def delete(self, owner: Owner, name: str) -> bool:
        return self._owners.get(owner.key, {}).pop(name, None) is not None

    async def names(self, owner: Owner) -> Sequence[str]:
        return sorted(self._owners.get(owner.key, ()))


def _too_many() -> TooManyPresetsError:
    return TooManyPresetsError(f"at most {MOST} presets are kept")
