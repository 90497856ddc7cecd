"""Who listens to a room at this moment, and how it reaches them."""

from __future__ import annotations

import heapq

from msgspec import Struct

from roomserver.edge.endpoints import Api, Call
from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.rooms import OWN_ROOM, own_room
from roomserver.protocol.client import Mode
from roomserver.rooms.connection import Connection
from roomserver.store.records import Account, Place


class PlayerReport(Struct, rename="camel", kw_only=True):
    """What a player said last in `stats`; `at` in Unix us."""

    at: int
    buffer_ms: float | None
    jitter_ms: float | None
    latency_ms: float | None
    lost: int | None


class Listener(Struct, rename="camel", kw_only=True):
    """A connection that listens; `joinedAt` in Unix us, `player` null until it says something."""

    participant_id: str
    client_id: str
    user_id: str | None
    nickname: str | None
    address: str
    joined_at: int
    mode: Mode
    player: PlayerReport | None

    @classmethod
    def of(cls, connection: Connection) -> Listener:
        """As the connection is now. Only for one that is registered as a listener."""
        token, subscription = connection.token, connection.subscription
        assert token is not None
        assert subscription is not None
        said = connection.stats
        return cls(
            participant_id=token.participant,
            client_id=connection.client_id,
            user_id=token.user,
            nickname=connection.nickname,
            address=connection.address,
            joined_at=connection.joined_us,
            mode=subscription.mode,
            player=None
            if said is None
            else PlayerReport(
                at=connection.stats_us,
                buffer_ms=said.buffer_ms,
                jitter_ms=said.jitter_ms,
                latency_ms=said.latency_ms,
                lost=said.lost,
            ),
        )


class Listeners(Struct, rename="camel"):
    """Answer of `GET …/listeners`, newest first; `total` is of all pages, `at` in Unix us."""

    at: int
    total: int
    listeners: list[Listener]
    next: str | None


api = Api()


@api.get("/api/broadcaster/rooms/{room}/listeners", problems=OWN_ROOM)
async def listeners(call: Call, account: Account, query: PageQuery) -> Listeners:
    """Who listens now, newest first; needs no database."""
    room = own_room(call, account)
    there = [each for each in room.listeners if each.leaving is None]
    rest, after = there, query.after
    if after is not None:
        end = (after.at_us, str(after.id))
        rest = [each for each in there if _age(each) < end]
    found = heapq.nlargest(query.fetch, rest, key=_age)
    page, following = cut_page(query, found, _place)
    return Listeners(
        round(room.now * 1e6), len(there), [Listener.of(each) for each in page], following
    )


def _age(connection: Connection) -> tuple[int, str]:
    # As places are ordered, for UUIDs and their texts are ordered alike; thousands are looked at
    # every two seconds, and parsing is for those that are shown.
    return connection.joined_us, connection.client_id


def _place(connection: Connection) -> Place:
    return Place.of(connection.joined_us / 1e6, connection.client_id)
