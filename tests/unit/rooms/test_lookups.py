"""Rooms that are not here, of several servers on a database: asked for once, then answered."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from roomserver.protocol.codes import Role, RoomCloseReason
from roomserver.store.database import DatabaseAwayError
from roomserver.store.interfaces import LookupsBusyError
from roomserver.store.memory import MemoryRoomStore
from roomserver.store.records import Elsewhere
from support.control_plane import ControlPlane


class SharedStore(MemoryRoomStore):
    """A store of one of several servers, on which every look-up is counted."""

    lookups = 0
    error: Exception | None = None

    @property
    def shared(self) -> bool:
        return True

    async def locate(self, name: str, *, guess: bool) -> Elsewhere | None:
        self.lookups += 1
        if self.error is not None:
            raise self.error
        return None


@pytest.fixture
def store(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> SharedStore:
    store = SharedStore()
    monkeypatch.setattr(plane.rooms, "_store", store)
    return store


async def closed(plane: ControlPlane, connection: int) -> int:
    """The code it was closed with."""
    async with asyncio.timeout(5):
        while connection not in plane.media.closed:  # noqa: ASYNC110 - the fake relay sends no event
            await asyncio.sleep(0)
    return plane.media.closed[connection]


@pytest.mark.parametrize("name", ["NOSUCH", "another room", "another that was closed"])
async def test_a_good_token_with_a_wrong_room_is_looked_up_once(
    plane: ControlPlane, store: SharedStore, name: str
) -> None:
    """Nobody finds out so which rooms there are, or were."""
    room, other = await plane.room(), await plane.room()
    if name != "NOSUCH":
        name = other.record.code
        if name == "another that was closed":
            other.close(RoomCloseReason.CLOSED_BY_OWNER)
    token = plane.token(room, Role.LISTENER)
    connection = plane.connect()
    wish = {"type": "registerListener", "roomId": name, "roomToken": token}
    plane.say(connection, wish)
    assert await closed(plane, connection) == 4404
    assert plane.media.last(connection)["code"] == "room_not_found"
    assert store.lookups == 1


@pytest.mark.parametrize("error", [LookupsBusyError(), DatabaseAwayError("gone")])
async def test_who_can_not_be_told_where_the_room_is_may_come_again(
    plane: ControlPlane, store: SharedStore, error: Exception
) -> None:
    store.error = error
    token, _ = plane.tokens.issue_room("elsewhere", Role.LISTENER)
    connection = plane.connect()
    wish = {"type": "registerListener", "roomId": "elsewhere", "roomToken": token}
    plane.say(connection, wish)
    assert await closed(plane, connection) == 4429
    assert plane.media.last(connection)["code"] == "database_away"


async def test_whose_token_expires_meanwhile_is_answered_all_the_same(
    plane: ControlPlane, store: SharedStore
) -> None:
    token, _ = plane.tokens.issue_room("elsewhere", Role.LISTENER)
    connection = plane.connect()
    wish = {"type": "registerListener", "roomId": "elsewhere", "roomToken": token}
    plane.say(connection, wish)
    plane.stepped_s = plane.tokens.room_s + 1  # the look-up has yet to begin
    assert await closed(plane, connection) == 4404
    assert store.lookups == 1


async def test_a_look_up_that_fails_is_our_fault_and_said_to_be(
    plane: ControlPlane, store: SharedStore
) -> None:
    store.error = RuntimeError("a bug")
    token, _ = plane.tokens.issue_room("elsewhere", Role.LISTENER)
    connection = plane.connect()
    wish = {"type": "registerListener", "roomId": "elsewhere", "roomToken": token}
    with capture_logs() as logs:
        plane.say(connection, wish)
        assert await closed(plane, connection) == 1001
    assert plane.media.last(connection)["code"] == "internal"
    errors = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert errors == ["room_not_looked_up"]
