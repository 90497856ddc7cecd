"""The listener: follows a room, meters it, records it, and measures its delay."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from roomserver.clients.clock import LocalClock, ServerClock, ping_interval
from roomserver.clients.connection import Message, RelayConnection, retries_told_to
from roomserver.clients.entry import RoomEntry
from roomserver.clients.errors import ClientError, RefusedError
from roomserver.clients.meters import Display
from roomserver.clients.recorder import Recorder
from roomserver.clients.tasks import cancel, unless
from roomserver.clients.tracker import StreamFormat, StreamTracker
from roomserver.clients.wire import Encoding, Frame, Levels

_STATS_INTERVAL_S: Final = 1.0
_ROOM_CLOSED: Final = 4410
#: So long without a frame after the source is gone: what the room had buffered has been played.
_QUIET_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """What to hear.

    Attributes:
        channels: Indices; None: all.
        mix: Fields of ``setMix`` for a stereo mix; None: the channels apart.
        encoding: Of the frames and the recording.
        interval_ms: Least distance between sends.
        burst_ms: Recent audio wanted on joining.
        nickname: How the room shows us.
        seconds: End after so much audio; None: go on.
        once: End when the source ends.
    """

    channels: tuple[int, ...] | None = None
    mix: Message | None = None
    encoding: Encoding = Encoding.S16LE
    interval_ms: int = 0
    burst_ms: int = 0
    nickname: str | None = None
    seconds: float | None = None
    once: bool = False


@dataclass(slots=True)
class Delay:
    """Delay and jitter of arriving frames, in milliseconds."""

    latency_ms: float | None = None
    jitter_ms: float = 0.0

    def add(self, latency_ms: float) -> None:
        """Take in a frame's time from its tick to here (jitter smoothed as RFC 3550 does)."""
        if self.latency_ms is not None:
            self.jitter_ms += (abs(latency_ms - self.latency_ms) - self.jitter_ms) / 16
        self.latency_ms = latency_ms


@dataclass(slots=True)
class _Session:
    """What ends with a connection."""

    clock: ServerClock = field(default_factory=ServerClock)
    delay: Delay = field(default_factory=Delay)
    ending: asyncio.TimerHandle | None = None  # set while the source is gone and that is the end


class Listener:
    """Listens to one room until `stop`, enough seconds, or the room's end.

    Args:
        entry: The room.
        options: What to hear.
        display: Where to show it.
        recorder: Where to keep it, if at all; closed at the end.
    """

    def __init__(
        self,
        entry: RoomEntry,
        options: ListenOptions,
        display: Display,
        recorder: Recorder | None = None,
    ) -> None:
        self._entry = entry
        self._options = options
        self._display = display
        self._recorder = recorder
        self._local = LocalClock()
        self._stopping = asyncio.Event()
        self._seconds_left = options.seconds
        self._told_missing = 0
        self._samples = 0
        self._state = "waiting"
        self._listeners = 0
        self.tracker = StreamTracker()

    def stop(self) -> None:
        """End cleanly. From the loop only."""
        self._stopping.set()

    async def run(self) -> None:
        """Listen to the end.

        Raises:
            ClientError: The server refuses for good, or the recording fails.
        """
        try:
            async with retries_told_to(self._display.say):
                connection = await unless(
                    self._stopping,
                    self._entry.connect(
                        "registerListener", "listenerRegistered", self._registration
                    ),
                )
                while connection is not None and not await self._session(connection):
                    connection = await unless(
                        self._stopping,
                        self._entry.reconnect(
                            "registerListener", "listenerRegistered", self._registration
                        ),
                    )
                    if connection is not None:
                        self._display.say("connected again")
        finally:
            if self._recorder is not None:
                await asyncio.to_thread(self._recorder.close)

    def summary(self) -> str:
        """One line about all that was heard."""
        tracker = self.tracker
        text = (
            f"{tracker.frames} frames, {tracker.missing_frames} missing in {tracker.gaps} gaps, "
            f"{tracker.concealed_frames} with concealed samples"
        )
        if self._recorder is not None and self._recorder.parts:
            text += f"; written to {', '.join(self._recorder.parts)}"
        return text

    def _registration(self) -> Message:
        options = self._options
        fields: Message = {
            "mode": "multichannel" if options.mix is None else "mix",
            "encoding": options.encoding.value,
            "intervalMs": options.interval_ms,
        }
        if options.nickname is not None:
            fields["nickname"] = options.nickname
        if options.channels is not None:
            fields["channels"] = options.channels
        if options.mix is not None:
            fields["mix"] = options.mix
        if self.tracker.next_timestamp is not None:
            fields["from"] = self.tracker.next_timestamp
        elif options.burst_ms:
            fields["burstMs"] = options.burst_ms
        return fields

    async def _session(self, connection: RelayConnection) -> bool:
        """Listen over one connection; True at the end, False to connect again."""
        session = _Session()
        receiver = asyncio.create_task(self._receive(connection, session))
        pinger = asyncio.create_task(self._ping(connection))
        reporter = asyncio.create_task(self._report(connection, session))
        stopping = asyncio.create_task(self._stopping.wait())
        tasks = (receiver, pinger, reporter, stopping)
        try:
            # The receiver alone says how a connection ends; the others only fall silent.
            await asyncio.wait({receiver, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if receiver.done():
                receiver.result()
            await cancel(*tasks)
            await connection.close()
        except ClientError as error:
            if isinstance(error, RefusedError) and error.close_code == _ROOM_CLOSED:
                return True
            if not self._entry.may_return(error):
                raise
            self._display.say(f"{error}; connecting again")
            return False
        finally:
            self._go_on(session)
            await cancel(*tasks)
            await connection.abort()
        return True

    async def _receive(self, connection: RelayConnection, session: _Session) -> None:
        """Take in messages; returns when we have heard enough, raises when the connection ends."""
        self._begin(connection.registered)
        self._state = connection.registered["state"]
        self._listeners = connection.registered["listenerCount"]
        if StreamFormat.of(connection.registered) is None:
            self._display.say("no audio in the room yet; waiting for it")
        if self._state == "suspended" and self.tracker.frames:
            self._end_when_quiet(session)  # it went while we were away
        while True:
            message = await connection.receive()
            if isinstance(message, Frame):
                if self._hear(message, session):
                    return
            elif not isinstance(message, Levels):
                self._read(message, session)

    def _begin(self, message: Message) -> None:
        announced = StreamFormat.of(message)
        if announced is None or not self.tracker.begin(announced):
            return
        names: tuple[str, ...] = announced.channel_names
        if self._options.mix is not None:
            names = ("left", "right")
        elif self._options.channels is not None:
            names = tuple(
                names[channel] if channel < len(names) else str(channel)
                for channel in sorted(set(self._options.channels))
            )
        self._display.channels(names)
        self._display.say(
            f"source: {len(announced.channel_names)} channels, {announced.sample_rate} Hz, "
            f"{announced.frame_ms} ms frames"
        )

    def _hear(self, frame: Frame, session: _Session) -> bool:
        """Take in a frame; True when it completes the seconds that were asked for."""
        if session.ending is not None:
            self._end_when_quiet(session)
        placed = self.tracker.place(frame)
        if session.clock.known:
            now_us = self._local.now_us() + session.clock.offset_us
            session.delay.add((now_us - frame.time_us) / 1000)
        silence, samples = placed.silence, placed.samples
        rate = self.tracker.format.sample_rate if self.tracker.format else 1
        complete = False
        if self._seconds_left is not None:
            left = round(self._seconds_left * rate)
            silence = min(silence, left)
            samples = samples[: left - silence]
            self._seconds_left -= (silence + samples.shape[0]) / rate
            complete = left <= silence + samples.shape[0]
        self._display.feed(samples)
        if self._recorder is not None:
            if self._recorder.begin(frame.channels, rate, frame.encoding):
                self._display.say(f"recording {self._recorder.parts[-1]}")
            self._recorder.write(silence, samples)
        return complete

    def _end_when_quiet(self, session: _Session) -> None:
        """The source is gone: what the room still plays of it is heard before `once` ends."""
        self._go_on(session)
        if self._options.once:
            loop = asyncio.get_running_loop()
            session.ending = loop.call_later(_QUIET_S, self._stopping.set)

    def _go_on(self, session: _Session) -> None:
        if session.ending is not None:
            session.ending.cancel()
            session.ending = None

    def _read(self, message: Message, session: _Session) -> None:
        """Take in a text message."""
        match message["type"]:
            case "streamStarted":
                self._begin(message)
            case "pong":
                session.clock.add(
                    message["t"], message["received"], message["sent"], self._local.now_us()
                )
            case "roomStatus":
                self._state = "buffering" if message["buffering"] else message["state"]
                self._listeners = message["listenerCount"]
            case "roomToken":
                self._entry.take_token(message)
            case "roomSuspended":
                self._state = "suspended"
                self._end_when_quiet(session)
                until = datetime.fromtimestamp(message["suspendedUntil"] / 1e6)
                self._display.say(f"the source is gone; waiting for it until {until:%H:%M:%S}")
            case "roomResumed":
                self._go_on(session)
                self._display.say("the source is back")
            case "roomClosed":
                self._display.say(f"the room was closed ({message['reason']})")
            case "error":
                self._display.say(f"server: {message.get('message')}")

    async def _ping(self, connection: RelayConnection) -> None:
        """Ask for the server's time, quickly at first."""
        count = 0
        while True:
            await asyncio.sleep(ping_interval(count))
            await connection.send({"type": "ping", "t": self._local.now_us()})
            count += 1

    async def _report(self, connection: RelayConnection, session: _Session) -> None:
        """Show the figures and tell the server what we measure, once a second."""
        due = time.monotonic()
        told = 0
        while True:
            due = max(due + _STATS_INTERVAL_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._show(session)
            delay = session.delay
            if delay.latency_ms is None or self.tracker.frames == told:
                continue  # nothing was heard since: an old figure would be no news
            told = self.tracker.frames
            await connection.send(
                {
                    "type": "stats",
                    "bufferMs": 0,  # what is received is heard at once
                    "latencyMs": round(delay.latency_ms, 1),
                    "jitterMs": round(delay.jitter_ms, 2),
                    "lost": self.tracker.missing_frames,
                }
            )

    def _show(self, session: _Session) -> None:
        tracker = self.tracker
        if tracker.missing_frames > self._told_missing and tracker.format is not None:
            frames = tracker.missing_frames - self._told_missing
            self._told_missing = tracker.missing_frames
            self._display.say(f"gap: {frames} frames ({frames * tracker.format.frame_ms} ms)")
        figures = {"room": self._state, "listeners": str(self._listeners)}
        if session.delay.latency_ms is not None:
            figures["delay"] = f"{session.delay.latency_ms:.1f} ms"
            if tracker.format is not None and tracker.format.buffer_ms is not None:
                figures["delay"] += f" + {tracker.format.buffer_ms:.0f} ms buffer"
            figures["jitter"] = f"{session.delay.jitter_ms:.1f} ms"
            figures["round trip"] = f"{session.clock.round_trip_us / 1000:.1f} ms"
        figures["missing"] = str(tracker.missing_frames)
        figures["concealed"] = str(tracker.concealed_frames)
        self._display.figures(figures)
