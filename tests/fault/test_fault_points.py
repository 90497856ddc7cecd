"""A crash between two steps of append, drain and acknowledge loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from roomserver.store.database import Connection
from roomserver.store.faultpoints import FAULT_POINTS, VARIABLE, FaultPoint
from support.postgres import Cluster
from support.server import environment

TIMEOUT_S = 60.0
# Counts how often a line of the audit log was written, in the transaction that wrote it: a second
# time would be forgiven (ON CONFLICT), and not be seen in the table.
COUNT_TRIES = """
CREATE TABLE relay.tries (mark text PRIMARY KEY, times integer NOT NULL);
CREATE FUNCTION relay.count_try() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO relay.tries AS t VALUES (NEW.details ->> 'mark', 1)
    ON CONFLICT (mark) DO UPDATE SET times = t.times + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER count_try BEFORE INSERT ON relay.audit_log
    FOR EACH ROW EXECUTE FUNCTION relay.count_try();
"""


async def run_child(
    data_dir: Path, cluster: Cluster, task: str, **variables: str
) -> tuple[int, dict[str, set[str]]]:
    """The exit code of `support.store_child`, and what it said was acknowledged, by kind."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.store_child",
        str(data_dir),
        json.dumps(cluster.connection),
        task,
        stdout=asyncio.subprocess.PIPE,
        env=environment(PYTHONPATH=":".join(sys.path), **variables),
    )
    async with asyncio.timeout(TIMEOUT_S):
        output, _ = await process.communicate()
    said: dict[str, set[str]] = defaultdict(set)
    for line in output.decode().splitlines():
        kind, name = json.loads(line)
        said[kind].add(name)
    assert process.returncode is not None
    return process.returncode, said


async def column(tables: Connection, query: str) -> list[str]:
    return [str(row[0]) for row in await tables.fetch(query)]


@pytest.mark.parametrize("time", [1, 3])
@pytest.mark.parametrize("point", FAULT_POINTS)
async def test_a_crash_loses_nothing_and_doubles_nothing(
    cluster: Cluster, tables: Connection, tmp_path: Path, point: FaultPoint, time: int
) -> None:
    await tables.execute(COUNT_TRIES)
    code, said = await run_child(tmp_path, cluster, "work", **{VARIABLE: f"{point}:{time}"})
    assert code == -signal.SIGKILL, "the point was not passed"
    assert not said["end"]
    code, after = await run_child(tmp_path, cluster, "end")
    assert code == 0
    assert after["end"]

    assert said["room"] <= set(await column(tables, "SELECT id FROM relay.audio_rooms"))
    closed = set(await column(tables, "SELECT id FROM relay.audio_rooms WHERE NOT active"))
    assert said["closed"] <= closed
    assert after["open"] == set(
        await column(tables, "SELECT id FROM relay.audio_rooms WHERE active")
    )
    assert said["room"] - closed <= after["open"]
    stays = await column(
        tables, "SELECT id FROM relay.room_participants WHERE connection_duration = 5"
    )
    assert said["stay"] <= set(stays)
    marks = await column(tables, "SELECT details ->> 'mark' FROM relay.audit_log")
    assert said["audit"] <= set(marks)
    assert len(marks) == len(set(marks))
    assert await column(tables, "SELECT mark FROM relay.tries WHERE times <> 1") == []
    assert await column(tables, "SELECT kind FROM relay.dead_letters") == []
    assert await tables.fetchval("SELECT count(*) FROM relay.room_participants") == len(stays)


async def test_without_a_fault_point_nothing_happens(
    cluster: Cluster, tables: Connection, tmp_path: Path
) -> None:
    code, said = await run_child(tmp_path, cluster, "work")
    assert code == 0
    assert len(said["room"]) == 2 * len(said["closed"])
    assert said["end"]
