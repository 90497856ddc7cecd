"""A room of a real server in a test: broadcasts in real time and listeners that keep everything."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from rich.console import Console

from roomserver.clients.account import AccountEntry
from roomserver.clients.broadcast import Broadcaster, BroadcastOptions
from roomserver.clients.connection import Message, RelayConnection, RoomAccess, RoomApi
from roomserver.clients.entry import RoomEntry
from roomserver.clients.meters import Display
from roomserver.clients.source import SampleSource
from roomserver.clients.wav import WavReader, WavWriter
from roomserver.clients.wire import Encoding, Frame, Levels, Samples
from support.server import PASSWORD

EMAIL = "engineer@example.org"
ROOM_PASSWORD = "hall and stage"
TIMEOUT_S = 60.0


@dataclass
class Capture:
    """A listener that keeps every message in the order in which it came."""

    connection: RelayConnection
    messages: list[Message | Frame | Levels] = field(default_factory=list)
    arrived_us: list[int] = field(default_factory=list)  # Unix time of each message
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def frames(self) -> list[Frame]:
        """The frames so far."""
        return [message for message in self.messages if isinstance(message, Frame)]

    def texts(self, kind: str) -> list[Message]:
        """The texts of one type so far."""
        return [m for m in self.messages if isinstance(m, dict) and m["type"] == kind]

    def index(self, kind: str, *, nth: int = 0) -> int:
        """Where the nth text of one type stands."""
        found = [
            index
            for index, message in enumerate(self.messages)
            if isinstance(message, dict) and message["type"] == kind
        ]
        return found[nth]

    @property
    def transport(self) -> asyncio.Transport:
        """What is beneath the connection: for a test that does not read for a while."""
        connection = self.connection._websocket._response.connection
        assert connection is not None
        assert isinstance(connection.transport, asyncio.Transport)
        return connection.transport

    async def run(self) -> None:
        """Reads until cancelled."""
        while True:
            message = await self.connection.receive()
            async with self._changed:
                self.messages.append(message)
                self.arrived_us.append(time.time_ns() // 1000)
                self._changed.notify_all()

    async def wait_frames(self, count: int, *, after: int = 0) -> None:
        """Waits for so many frames behind message number `after`."""

        def come() -> bool:
            later = self.messages[after:]
            return sum(isinstance(message, Frame) for message in later) >= count

        async with asyncio.timeout(TIMEOUT_S), self._changed:
            await self._changed.wait_for(come)

    async def wait_until(
        self, wanted: Callable[[Message | Frame | Levels], bool], *, after: int = 0
    ) -> int:
        """Waits for a message that is wanted, from message number `after` on; its number."""
        looked_at = after

        def come() -> bool:
            nonlocal looked_at
            while looked_at < len(self.messages):
                if wanted(self.messages[looked_at]):
                    return True
                looked_at += 1
            return False

        async with asyncio.timeout(TIMEOUT_S), self._changed:
            await self._changed.wait_for(come)
        return looked_at

    async def wait_text(self, kind: str, count: int = 1) -> Message:
        """Waits for the count-th text of one type."""
        async with asyncio.timeout(TIMEOUT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.texts(kind)) >= count)
        return self.texts(kind)[count - 1]


@dataclass
class LiveRoom:
    """One room and the ways into it."""

    api: RoomApi
    entry: RoomEntry
    code: str

    @asynccontextmanager
    async def listen(self, **fields: Any) -> AsyncIterator[Capture]:
        """A listener with these fields of `registerListener`."""
        access = await self.api.join(self.code, ROOM_PASSWORD)
        registration = {
            "type": "registerListener",
            "roomId": access.room_id,
            "roomToken": access.room_token,
            **fields,
        }
        connection = await self.api.connect(registration, answer="listenerRegistered")
        capture = Capture(connection)
        reader = asyncio.create_task(capture.run())
        try:
            yield capture
        finally:
            reader.cancel()
            await asyncio.wait({reader})
            failure = None if reader.cancelled() else reader.exception()
            await connection.close()
            if failure is not None:
                raise failure

    def broadcaster(self, source: SampleSource, **options: Any) -> Broadcaster:
        """A broadcaster of the project, showing nothing."""
        console = Console(file=io.StringIO())
        return Broadcaster(self.entry, source, BroadcastOptions(**options), Display(console, ""))

    async def broadcast(self, source: SampleSource, **options: Any) -> None:
        """Broadcasts to the end of the source."""
        async with asyncio.timeout(TIMEOUT_S):
            await self.broadcaster(source, **options).run()


@asynccontextmanager
async def live_room(url: str, email: str = EMAIL) -> AsyncIterator[LiveRoom]:
    """A new room of a server on which the account has the usual password."""
    async with RoomApi(url) as api:

        async def renew() -> RoomAccess:
            return await account.broadcaster_token(access.room_id)

        account = AccountEntry(api, email, PASSWORD)
        access = await account.create_room(ROOM_PASSWORD)
        yield LiveRoom(api, RoomEntry(api, access, renew), access.room_code)


def wav_source(samples: Samples, rate: int) -> WavReader:
    """The samples as a WAV file that was written and is read again."""
    file = io.BytesIO()
    writer = WavWriter(file, samples.shape[1], rate, Encoding.of(samples))
    writer.write(samples)
    writer.close()
    file.seek(0)
    return WavReader(file, "test.wav")


def timeline(frames: Sequence[Frame]) -> Samples:
    """Frames of one stream put together; each must follow the one before without a gap."""
    for before, after in pairwise(frames):
        assert after.sequence == before.sequence + 1
        assert after.timestamp == before.timestamp + before.sample_count
        assert after.stream == before.stream
    joined: Samples = np.concatenate([frame.samples for frame in frames])
    return joined
