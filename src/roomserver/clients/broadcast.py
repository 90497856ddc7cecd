"""The broadcaster: sends a source's samples at the pace of their own clock."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import Final

from roomserver.clients.clock import LocalClock, MediaClock
from roomserver.clients.connection import Message, RelayConnection, retries_told_to
from roomserver.clients.entry import RoomEntry
from roomserver.clients.errors import ClientError, UnreachableError
from roomserver.clients.feed import Feed
from roomserver.clients.meters import Display
from roomserver.clients.source import SampleSource
from roomserver.clients.tasks import cancel, unless
from roomserver.clients.wire import Encoding, pack_source_packet

#: How late a packet may be before the clock is believed rather than chased.
_TOO_LATE_S: Final = 1.0
#: Longest time without a pause in which other tasks of the loop get their turn.
_YIELD_EVERY_S: Final = 0.005
_DRAIN_MARGIN_S: Final = 2.0
_UNCONFIRMED: Final = "the end could not be confirmed"


@dataclass(frozen=True, slots=True)
class BroadcastOptions:
    """How a source is sent.

    Attributes:
        encoding: None: 16 bit if the source has 16 bit, else float.
        frame_ms: Frame length of the room: 5, 10, 20, 40 or 60.
        buffer_ms: Fixed jitter target; None: adaptive.
        packet_samples: Samples per packet, used in turn; empty: 10 ms.
        channels_per_packet: None: all in one packet.
        channel_names: None: left to the server.
        live: The source is a capture with a clock of its own: send as it comes.
    """

    encoding: Encoding | None = None
    frame_ms: int = 20
    buffer_ms: float | None = None
    packet_samples: tuple[int, ...] = ()
    channels_per_packet: int | None = None
    channel_names: tuple[str, ...] | None = None
    live: bool = False


class Broadcaster:
    """Sends one source into one room until the source ends or `stop` is called.

    Args:
        entry: The room.
        source: What to send; closed at the end.
        options: How.
        display: Where to show it.
    """

    def __init__(
        self,
        entry: RoomEntry,
        source: SampleSource,
        options: BroadcastOptions,
        display: Display,
    ) -> None:
        self._entry = entry
        self._source = source
        self._options = options
        self.display = display
        self._encoding = options.encoding or source.encoding
        self._feed = Feed(source, self._encoding, live=options.live)
        sizes = options.packet_samples or (max(1, source.sample_rate // 100),)
        self._sizes = itertools.cycle(sizes)
        self._local = LocalClock()
        self._clock = MediaClock(source.sample_rate, 0.0)
        self._sequence = 0
        self._stopping = asyncio.Event()
        self._drained = asyncio.Event()
        self._started = False
        self._leaving = False
        self._fill_ms = 0.0

    def stop(self) -> None:
        """End cleanly: no more samples are sent, those sent are played out. From the loop only."""
        self._stopping.set()

    async def run(self) -> None:
        """Broadcast to the end.

        Raises:
            ClientError: The source cannot be read, the server refuses for good, or it did not say
                that all was played.
        """
        self.display.channels(self._channel_names())
        try:
            async with retries_told_to(self.display.say):
                connection = await unless(
                    self._stopping,
                    self._entry.connect("registerSource", "sourceRegistered", self._registration),
                )
                if connection is None:
                    return
                self._feed.start()
                self.display.say(
                    f"on air: {self._source.channels} channels, {self._source.sample_rate} Hz, "
                    f"{self._encoding}"
                )
                while not await self._session(connection):
                    connection = await unless(
                        self._stopping,
                        self._entry.reconnect(
                            "registerSource", "sourceRegistered", self._registration
                        ),
                    )
                    if connection is None:
                        raise ClientError(_UNCONFIRMED)
                    self.display.say("connected again")
                    self._feed.seek(self._clock.position(time.monotonic()))
        finally:
            self._feed.close()

    def _channel_names(self) -> list[str]:
        names = list(self._options.channel_names or ())
        return names + [str(channel) for channel in range(len(names), self._source.channels)]

    def _registration(self) -> Message:
        fields: Message = {
            "channels": self._source.channels,
            "sampleRate": self._source.sample_rate,
            "encoding": self._encoding.value,
            "frameMs": self._options.frame_ms,
        }
        if self._options.buffer_ms is not None:
            fields["bufferMs"] = self._options.buffer_ms
        if self._options.channel_names is not None:
            fields["channelNames"] = self._options.channel_names
        return fields

    async def _session(self, connection: RelayConnection) -> bool:
        """Send over one connection; True at the end of the broadcast, False to connect again.

        Raises:
            ClientError: Refused for good, or nobody said that all of it was played.
        """
        receiver = asyncio.create_task(self._receive(connection))
        sender = asyncio.create_task(self._send(connection))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({receiver, sender, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done() and isinstance(sender.exception(), UnreachableError):
                # The receiver knows why the connection went away, as soon as it has read it.
                await asyncio.wait({receiver}, timeout=1.0)
            if receiver.done():
                receiver.result()
            if sender.done():
                sender.result()
            await cancel(sender)
            drained = await self._leave(connection, receiver)
        except ClientError as error:
            if not self._entry.may_return(error):
                raise
            if self._leaving:
                raise ClientError(f"{_UNCONFIRMED}: {error}") from error
            self.display.say(f"{error}; connecting again")
            return False
        finally:
            await cancel(receiver, sender, stopping)
            await connection.abort()
        if not drained:
            raise ClientError(_UNCONFIRMED)
        return True

    async def _send(self, connection: RelayConnection) -> None:
        """Send packets, each when its last sample is due, until the source ends."""
        rate = self._source.sample_rate
        step = self._options.channels_per_packet or self._source.channels
        yielded = time.monotonic()
        while True:
            samples = await self._feed.take(next(self._sizes))
            count = samples.shape[0]
            if count == 0:
                return
            position = self._feed.position
            now = time.monotonic()
            if not self._started:
                self._clock.start = now
                self._started = True
            if self._options.live:
                # The capture's own clock paces us; its last sample has just been heard.
                self._clock.start = now - (position + count) / rate
            wait = self._clock.deadline(position + count) - now
            if wait > 0:
                await asyncio.sleep(wait)
                yielded = time.monotonic()
            elif wait < -_TOO_LATE_S:
                self._catch_up(now, -wait)
                if not self._feed.starved:
                    continue
            elif now - yielded > _YIELD_EVERY_S:
                await asyncio.sleep(0)
                yielded = now
            planes = samples.T
            time_us = self._local.to_unix_us(self._clock.deadline(position))
            for first in range(0, self._source.channels, step):
                await connection.send_packet(
                    pack_source_packet(
                        planes[first : first + step],
                        sequence=self._sequence,
                        timestamp=position,
                        time_us=time_us,
                        first_channel=first,
                    )
                )
                self._sequence += 1
            self.display.feed(samples)

    def _catch_up(self, now: float, late: float) -> None:
        """After a stall: a pipe that gave nothing shifts the clock, else audio is left out."""
        if self._feed.starved:
            self._clock.shift(late)
        else:
            self.display.say(f"{late:.1f} s behind: going on at the present moment")
            self._feed.seek(self._clock.position(now))

    async def _receive(self, connection: RelayConnection) -> None:
        """Take in what the server says until the connection ends, which raises."""
        while True:
            message = await connection.receive()
            if not isinstance(message, dict):
                continue
            match message["type"]:
                case "sourceStatus":
                    self._fill_ms = message["fillMs"]
                    self.display.figures(_figures(message, self._source.sample_rate))
                case "roomToken":
                    self._entry.take_token(message)
                case "roomSuspended":
                    self._drained.set()
                case "error":
                    self.display.say(f"server: {message.get('message')}")

    async def _leave(self, connection: RelayConnection, receiver: asyncio.Task[None]) -> bool:
        """Unregister, wait until what was sent has been played, close.

        Returns:
            Whether the server said that all of it was played.
        """
        self._leaving = True
        self._drained.clear()
        await connection.send({"type": "unregisterSource"})
        buffered_s = max(self._fill_ms, self._options.buffer_ms or 0.0) / 1000
        timeout = buffered_s + self._options.frame_ms / 1000 + _DRAIN_MARGIN_S
        drained = asyncio.create_task(self._drained.wait())
        try:
            await asyncio.wait(
                {drained, receiver}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await cancel(drained, receiver)
        await connection.close()
        return self._drained.is_set()


def _figures(status: Message, rate: int) -> dict[str, str]:
    """The figures of a ``sourceStatus`` for people; counters in milliseconds of one channel."""

    def worst(name: str) -> str:
        samples = max(status.get(name) or [0])
        return f"{1000 * samples / rate:.0f} ms"

    return {
        "listeners": str(status.get("listenerCount", 0)),
        "buffer": f"{status['fillMs']:.0f}/{status['targetMs']:.0f} ms",
        "jitter": f"{status['jitterMs']:.1f} ms",
        "drift": f"{status['driftPpm']:+.1f} ppm",
        "lost": worst("lost"),
        "late": worst("late"),
    }
