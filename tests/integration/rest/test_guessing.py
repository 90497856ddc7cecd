"""Which rooms there are can't be found out by joining them."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from .stage import ROUTES, TIMEOUT_S, Stage

JOIN = ROUTES["POST /auth/room/join"]
# The server's question of where a room is.
ASKED = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE '%AS abandoned%FROM relay.audio_rooms%'
"""


@pytest.mark.parametrize("secret", [{}, {"password": "wrong"}, {"invite": "x"}])
async def test_a_refusal_asks_the_database_whether_there_is_such_a_room_or_not(
    stage: Stage, secret: dict[str, str]
) -> None:
    """Else it could be told by the time that it takes."""
    room = await stage.room()
    tables = await asyncpg.connect(**stage.scene.cluster.connection)
    told = []
    for code in (room.code, "NNNNNN"):
        async with stage.locked("audio_rooms"), asyncio.TaskGroup() as group:
            joining = group.create_task(stage.call(JOIN, json={"roomCode": code, **secret}))
            async with asyncio.timeout(TIMEOUT_S):
                while not await tables.fetchval(ASKED):
                    assert not joining.done(), joining
                    await asyncio.sleep(0.01)
        answer = joining.result()
        told.append((answer.status, answer.body))
    await tables.close()
    assert told[0] == told[1]
    assert told[0][0] == 401
