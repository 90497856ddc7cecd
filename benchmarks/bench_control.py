"""The pieces of a join, each against the least that such a thing has to do.

A join goes through a limit and a room's verifier, gets a token, brings it back, is answered, and is
written down twice: what it takes beyond these pieces is aiohttp's, the relay's and the kernel's.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.conftest import Compare
from roomserver.auth.passwords import attempt_id
from roomserver.auth.tokens import Keys, Tokens
from roomserver.edge.addresses import limit_key
from roomserver.edge.limits import Limiter, LimitStorage
from roomserver.protocol.codec import decode, encode
from roomserver.protocol.codes import Role, RoomState
from roomserver.protocol.server import ListenerRegistered, SubscriptionState
from roomserver.store.events import Audited, Event, Joined, encode_event
from roomserver.store.outbox import Outbox
from roomserver.store.records import AuditEvent, AuditRecord, ParticipantRecord

KEY = b"0123456789abcdef0123456789abcdef"
ROOM = str(uuid.UUID(int=1))
PASSWORD = b"correct horse battery"
ADDRESS = "192.0.2.1"
EVENTS = (1, 10, 100, 1000)
STAY = ParticipantRecord(
    room=ROOM,
    participant=str(uuid.UUID(int=2)),
    connection=str(uuid.UUID(int=3)),
    role=Role.LISTENER,
    user=None,
    nickname="Listener",
    address=ADDRESS,
    joined_at=1_700_000_000.0,
)
AUDIT = AuditRecord(AuditEvent.ROOM_JOINED, 1_700_000_000.0, ADDRESS, None, ROOM)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(Keys(KEY), access_s=900, room_s=43_200)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_issue_a_room_token(compare: Compare, tokens: Tokens) -> None:
    text = tokens.issue_room(ROOM, Role.LISTENER)[0].encode()
    compare(
        "token: issue",
        lambda: tokens.issue_room(ROOM, Role.LISTENER),
        {"a MAC over as many bytes": lambda: hmac.digest(KEY, text, "sha256")},
    )


def test_read_a_room_token(compare: Compare, tokens: Tokens) -> None:
    text, _ = tokens.issue_room(ROOM, Role.LISTENER)
    data = text.encode()
    compare(
        "token: read",
        lambda: tokens.read_room(text),
        {"a MAC over as many bytes": lambda: hmac.digest(KEY, data, "sha256")},
    )


def test_decode_a_registration(compare: Compare, tokens: Tokens) -> None:
    token, _ = tokens.issue_room(ROOM, Role.LISTENER)
    text = json.dumps({"type": "registerListener", "roomId": ROOM, "roomToken": token})
    compare("message: decode", lambda: decode(text), {"json.loads": lambda: json.loads(text)})


def test_encode_its_answer(compare: Compare) -> None:
    subscription = SubscriptionState()
    answer = ListenerRegistered(
        room_id=ROOM,
        room_name="Hall",
        client_id=STAY.connection,
        state=RoomState.ACTIVE,
        has_broadcaster=True,
        listener_count=1000,
        mode=subscription.mode,
        channels=None,
        encoding=subscription.encoding,
        interval_ms=0,
        levels=False,
        mix=subscription.mix,
    )
    value = json.loads(encode(answer))
    compare("message: encode", lambda: encode(answer), {"json.dumps": lambda: json.dumps(value)})


def test_recognise_a_password(compare: Compare) -> None:
    compare(
        "password: verifier",
        lambda: attempt_id(ROOM, PASSWORD),
        {"a MAC": lambda: hmac.digest(KEY, PASSWORD, "sha256")},
    )


def test_look_up_an_address(compare: Compare) -> None:
    known = {ADDRESS: ADDRESS}
    compare("address: limit key", lambda: limit_key(ADDRESS), {"a dict": lambda: known[ADDRESS]})


def test_attempt_under_a_limit(compare: Compare, loop: asyncio.AbstractEventLoop) -> None:
    limiter = Limiter("join", "10 per 5 minutes", LimitStorage())

    async def attempts() -> None:
        for _ in range(100):
            async with limiter.attempt(ADDRESS, ROOM, same=b"x"):
                pass

    @asynccontextmanager
    async def empty() -> AsyncIterator[None]:
        yield

    async def nothing() -> None:
        for _ in range(100):
            async with empty():
                pass

    compare(
        "limit: 100 attempts",
        lambda: loop.run_until_complete(attempts()),
        {"100 empty context managers": lambda: loop.run_until_complete(nothing())},
    )


@pytest.mark.parametrize("count", EVENTS)
def test_write_events_down(
    compare: Compare, loop: asyncio.AbstractEventLoop, tmp_path: Path, count: int
) -> None:
    outbox = Outbox(tmp_path, capacity=10**9)
    events: list[Event] = [
        Joined(STAY) if i % 2 else Audited(str(uuid.UUID(int=i)), AUDIT) for i in range(count)
    ]
    data = b"".join(map(encode_event, events))
    descriptor = os.open(tmp_path / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def through_the_outbox() -> None:
        for event in events:
            outbox.append_soon(event)
        await outbox.flush()

    def to_a_file() -> None:
        os.write(descriptor, data)
        os.fsync(descriptor)

    compare(
        f"outbox: {count} events on disk",
        lambda: loop.run_until_complete(through_the_outbox()),
        {"one write and fsync": to_a_file},
    )
    os.close(descriptor)
    loop.run_until_complete(outbox.close())


def test_read_events_back(
    compare: Compare, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path, capacity=10**9)
    for _ in range(500):
        outbox.append_soon(Joined(STAY))
    loop.run_until_complete(outbox.flush())
    one = encode_event(Joined(STAY))
    compare(
        "outbox: read 500 events",
        lambda: loop.run_until_complete(outbox.read(0, 500)),
        {"500 json.loads": lambda: [json.loads(one) for _ in range(500)]},
    )
    loop.run_until_complete(outbox.close())
