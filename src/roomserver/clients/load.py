"""A load test of a server: many listeners and sources by `relaycore.LoadClient`.

The run has two parts: everybody joins, and everybody listens. What is due to a listener is counted
from its own joining on; at the end counting stops at one instant of the server's clock, and what is
still on its way may come.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relaycore import LoadClient
from relaycore.counters import LoadFigures
from roomserver.clients.connection import Message, RoomAccess, RoomApi
from roomserver.clients.errors import ClientError, UnreachableError
from roomserver.clients.load_options import LoadOptions, LoadRoom
from roomserver.clients.load_report import (
    GROUPS,
    LoadReport,
    MixReport,
    Quantiles,
    ServerReport,
    StormReport,
    bottleneck,
    count_errors,
    delivery,
    frames_due,
    thread_loads,
    total,
)
from roomserver.clients.load_storm import Storm
from roomserver.clients.process_use import ProcessSample, cpu_seconds
from roomserver.clients.tasks import unless
from roomserver.clients.tracker import StreamFormat
from roomserver.clients.wire import Frame

_PROGRESS_S: Final = 0.25
_SAMPLE_S: Final = 2.0  # between looks at the server's process
_MIX_STEP_S: Final = 0.02
_END_S: Final = 0.1  # until counting stops, so that no thread has counted what comes later
_DRAIN_S: Final = 2.0  # for what is on its way then
_LIVE_TIMEOUT_S: Final = 15.0
_CONNECT_TIMEOUT_S: Final = 5.0  # to one of the server's addresses
_FEW_ROOMS: Final = 16  # that are entered at a time
_PORTS: Final = 20_000  # of one local address, by default some 28,000
_MIXES: Final = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is: for a display.

    Attributes:
        stage: What goes on.
        done: Share of it, 0 to 1.
        joined, failed, lost: Listeners.
        frames_per_s, bytes_per_s: Received, over the last moment.
        delay: Of the present part, so far.
        load: Of the busiest thread of the load client, share of a processor.
    """

    stage: str
    done: float
    joined: int
    failed: int
    lost: int
    frames_per_s: float
    bytes_per_s: float
    delay: Quantiles
    load: float


Show = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _Counted:
    """What was counted up to a moment, and CPU seconds until then, read beside it.

    Attributes:
        figures: Of the load client's threads.
        own_s: Of the whole process.
        server_s: Of the server's; None: it is not looked at, or gone.
    """

    figures: tuple[LoadFigures, ...]
    own_s: float
    server_s: float | None


class LoadRun:
    """One run; `stop` ends it early, with the report so far.

    Args:
        api: The server.
        rooms: What is listened to, at least one; listener k is in room k modulo their number.
        options: How.
        show: Told where it is, a few times a second.
    """

    def __init__(
        self, api: RoomApi, rooms: Sequence[LoadRoom], options: LoadOptions, show: Show
    ) -> None:
        self._api = api
        self._rooms = rooms
        self._options = options
        self._show = show
        self._stopping = asyncio.Event()
        self._samples: list[ProcessSample] = []
        self._before: ProcessSample | None = None
        self._seen = (0.0, 0, 0)  # moment, frames and bytes at the last progress
        self._room_ids: list[str] = []
        self._tokens: list[str] = []
        self._frame_ms = [options.frame_ms] * len(rooms)
        self._channels = [options.channels] * len(rooms)
        self._gone = ""  # why the server's process is not to be seen any more

    def stop(self) -> None:
        """End now. From the loop only."""
        self._stopping.set()

    async def run(self) -> LoadReport:
        """Load the server and report.

        Raises:
            ClientError: It cannot be reached, refuses what is needed to begin, or a source.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        if self._options.pid is not None:
            self._before = ProcessSample.take(self._options.pid)
        await self._enter_rooms()
        with await self._client() as client:
            if self._rooms[0].source is not None:
                await self._start_sources(client)
            if self._stopping.is_set():
                raise ClientError("ended before anybody joined")
            begun = time.monotonic()
            self._add_listeners(client)
            await self._wait_joined(client)
            joining = self._count(client, restart=True)
            joining_s = time.monotonic() - begun
            storm = await self._listen(client)
            steady_s = time.monotonic() - begun - joining_s
            steady = self._count(client)
            await self._sample()
            until_us = await self._drain(client)
            report = self._report(client, joining, steady, until_us, storm)
            client.stop_sources()
        return replace(
            report, started=started, joining_s=round(joining_s, 3), steady_s=round(steady_s, 3)
        )

    # ---- before ----

    async def _enter_rooms(self) -> None:
        """A token for each room, and what its frames are."""
        gate = asyncio.Semaphore(_FEW_ROOMS)

        async def enter(room: LoadRoom) -> RoomAccess:
            async with gate:
                return await self._api.join(room.name, room.password, nickname="load")

        async def learn(number: int) -> StreamFormat:
            async with gate:
                connection = await self._api.connect(
                    self._registration(number, self._tokens[number]), answer="listenerRegistered"
                )
                await connection.close()
            announced = StreamFormat.of(connection.registered)
            if announced is None:
                name = self._rooms[number].name
                raise ClientError(f"room {name} has no source; with --email the load makes one")
            return announced

        entered = await asyncio.gather(*map(enter, self._rooms))
        self._room_ids = [access.room_id for access in entered]
        self._tokens = [access.room_token for access in entered]
        if self._rooms[0].source is None:
            announced = await asyncio.gather(*map(learn, range(len(self._rooms))))
            self._frame_ms = [of.frame_ms for of in announced]
            self._channels = [len(of.channel_names) for of in announced]

    async def _client(self) -> LoadClient:
        url = self._api.url
        assert url.host is not None
        assert url.port is not None
        address = await self._address(url.host, url.port)
        bind = self._options.bind
        if not bind and address.startswith("127."):
            count = -(-self._options.listeners // _PORTS)
            bind = tuple(f"127.0.0.{number + 1}" for number in range(count)) if count > 1 else ()
        base = url.path.rstrip("/")
        try:
            return LoadClient(
                address,
                url.port,
                authority=url.authority,
                path=f"{base}/ws",
                join_path=f"{base}/auth/room/join",
                bind=bind,
                threads=self._options.threads,
                in_flight=self._options.in_flight,
                rejoin=True,
                tls=url.scheme == "https",
                ca_file=self._api.ca_file,
                server_name=url.host,
            )
        except (ValueError, OSError) as error:
            raise ClientError(str(error)) from error

    async def _address(self, host: str, port: int) -> str:
        """The one, of those that a name may have, at which the server answers."""
        loop = asyncio.get_running_loop()
        wanted = socket.AF_UNSPEC
        if self._options.bind:
            wanted = socket.AF_INET6 if ":" in self._options.bind[0] else socket.AF_INET
        try:
            found = await loop.getaddrinfo(host, port, family=wanted, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ClientError(f"{host}: {error.strerror}") from error
        refusals = []
        for family, _, _, _, address in found:
            try:
                with socket.socket(family, socket.SOCK_STREAM) as attempt:
                    attempt.setblocking(False)
                    async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                        await loop.sock_connect(attempt, address)
            except OSError as error:
                refusals.append(f"{address[0]}: {error.strerror or 'no answer in time'}")
            else:
                return str(address[0])
        raise UnreachableError("; ".join(refusals))

    async def _start_sources(self, client: LoadClient) -> None:
        options = self._options
        texts = []
        for room in self._rooms:
            assert room.source is not None
            text: Message = {
                "type": "registerSource",
                "roomId": room.source.room_id,
                "roomToken": room.source.room_token,
                "channels": options.channels,
                "sampleRate": options.sample_rate,
                "encoding": options.source_encoding.value,
                "frameMs": options.frame_ms,
            }
            if options.buffer_ms is not None:
                text["bufferMs"] = options.buffer_ms
            texts.append(json.dumps(text))
        client.add_sources(
            texts,
            channels=options.channels,
            sample_rate=options.sample_rate,
            encoding=options.source_encoding.value,
            frame_ms=options.frame_ms,
        )
        while not self._stopping.is_set():
            figures = client.figures()
            sources = figures[-1]
            if sources.failed:
                raise ClientError(
                    f"{sources.failed} sources were refused: {_told(count_errors([sources]))}"
                )
            self._progress("sources register", sources.settled / len(texts), figures)
            if sources.settled == len(texts):
                break
            await self._pause(_PROGRESS_S)
        for number in {0, len(texts) - 1}:
            await unless(self._stopping, self._hear(number))

    async def _hear(self, number: int) -> None:
        """Wait until a room has audio."""
        connection = await self._api.connect(
            self._registration(number, self._tokens[number]), answer="listenerRegistered"
        )
        try:
            async with asyncio.timeout(_LIVE_TIMEOUT_S):
                while not isinstance(await connection.receive(), Frame):
                    pass
        except TimeoutError:
            raise ClientError(
                f"room {self._rooms[number].name} has a source and no audio"
            ) from None
        finally:
            await connection.close()

    # ---- listeners ----

    def _add_listeners(self, client: LoadClient) -> None:
        options = self._options
        passed = 0
        for group, (count, bytes_per_s) in enumerate(
            zip(options.groups, (None, options.slow_bandwidth, 0), strict=True)
        ):
            if count == 0:
                continue
            own = options.own_mixes and options.mode == "mix"
            texts = [
                json.dumps(self._registration(number, self._token(number), own_mix=own))
                for number in range(passed, passed + (count if own else len(self._rooms)))
            ]
            asks = []
            if not options.share_token:
                rooms = range(passed, passed + len(self._rooms))
                asks = [json.dumps(self._ask(number)) for number in rooms]
            client.add_listeners(
                count,
                texts,
                asks=asks,
                group=group,
                per_second=options.ramp,
                bytes_per_s=bytes_per_s,
            )
            passed += count

    def _token(self, number: int) -> str:
        if self._options.share_token:
            return self._tokens[number % len(self._rooms)]
        return "$TOKEN"

    def _ask(self, number: int) -> Message:
        room = self._rooms[number % len(self._rooms)]
        return {"roomCode": room.name, "password": room.password}

    def _registration(self, number: int, token: str, *, own_mix: bool = False) -> Message:
        message: Message = {
            "type": "registerListener",
            "roomId": self._room_ids[number % len(self._rooms)],
            "roomToken": token,
            "mode": self._options.mode,
            "encoding": self._options.encoding.value,
            "intervalMs": self._options.interval_ms,
        }
        if own_mix:
            channels = self._channels[number % len(self._rooms)]
            message["mix"] = _random_mix(np.random.default_rng(number), channels)
        return message

    async def _wait_joined(self, client: LoadClient) -> None:
        while not self._stopping.is_set():
            figures = client.figures()
            settled = sum(f.settled for f in figures if not f.is_sources)
            self._progress("listeners join", settled / self._options.listeners, figures)
            if settled == self._options.listeners:
                break
            await self._pause(_PROGRESS_S)
        figures = client.figures()
        if not any(f.joined for f in figures if not f.is_sources):
            told = _told(count_errors(figures))
            raise ClientError(f"nobody joined{': ' + told if told else ''}")

    async def _listen(self, client: LoadClient) -> StormReport | None:
        """The part in which everybody is there."""
        options = self._options
        begun = time.monotonic()
        storm: Storm | None = None
        changer = asyncio.create_task(self._change_mixes(client)) if options.mix_changes else None
        sampled = -_SAMPLE_S
        try:
            while not self._stopping.is_set():
                passed = time.monotonic() - begun
                if passed - sampled >= _SAMPLE_S:
                    sampled = passed
                    await self._sample()
                if storm is None and options.storm_s is not None and passed >= options.storm_s:
                    storm = Storm(client, options.groups[0], options.storm)
                figures = client.figures()
                self._progress("everybody listens", passed / options.seconds, figures)
                if passed >= options.seconds:
                    break
                await self._pause(min(_PROGRESS_S, options.seconds - passed))
        finally:
            if changer is not None:
                changer.cancel()
                await asyncio.wait({changer})
        if changer is not None and not changer.cancelled():
            changer.result()
        return storm.report(client) if storm is not None else None

    def _count(self, client: LoadClient, *, restart: bool = False) -> _Counted:
        """Everything at one instant; `restart` begins the next interval there."""
        server_s = None
        with self._looking() as pid:
            if pid is not None:
                server_s = cpu_seconds(pid)
        return _Counted(client.figures(restart=restart), time.process_time(), server_s)

    async def _sample(self) -> None:
        """Look at the server's memory. With thousands of sockets that takes a while."""
        with self._looking() as pid:
            if pid is not None:
                self._samples.append(await asyncio.to_thread(ProcessSample.take, pid))

    @contextmanager
    def _looking(self) -> Iterator[int | None]:
        """The server's process, if it is to be seen. That it is gone is told as what went wrong."""
        try:
            yield self._options.pid
        except ClientError as error:
            self._gone = str(error)

    async def _change_mixes(self, client: LoadClient) -> None:
        """Listeners by turns change their mixes, at an even pace."""
        count = self._options.groups[0]
        chance = np.random.default_rng(1)
        mixes = {
            channels: [
                json.dumps({"type": "setMix", **_random_mix(chance, channels)})
                for _ in range(_MIXES)
            ]
            for channels in set(self._channels)
        }
        begun, sent = time.monotonic(), 0
        turns = itertools.cycle(range(count))
        while True:
            await asyncio.sleep(_MIX_STEP_S)
            due = int((time.monotonic() - begun) * self._options.mix_changes)
            chosen = list(itertools.islice(turns, due - sent))
            which = chance.integers(_MIXES, size=len(chosen)).tolist()
            channels = [self._channels[number % len(self._rooms)] for number in chosen]
            texts = [mixes[c][mix] for c, mix in zip(channels, which, strict=True)]
            if chosen:
                client.send(chosen, texts)
            sent = due

    async def _pause(self, seconds: float) -> None:
        """Wait, unless it is stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # ---- afterwards ----

    async def _drain(self, client: LoadClient) -> int:
        """Stop counting at an instant of the server's clock, which is returned, and let everything
        from before it come."""
        until_us = time.monotonic_ns() // 1000 + _offset_us(client.figures()) + int(_END_S * 1e6)
        client.count_until(until_us)
        end = time.monotonic() + _END_S + _DRAIN_S + self._options.interval_ms / 1000
        while time.monotonic() < end:
            await asyncio.sleep(_END_S)
            records = client.listeners()
            listening = (records["group"] == 0) & (records["state"] == 2)
            answered = all(f.replies == f.sent for f in client.figures())
            has_last = records["last_us"] >= until_us - self._frame_ms_of(records) * 1000
            if answered and has_last[listening].all():
                break
        return until_us

    def _report(
        self,
        client: LoadClient,
        joining: _Counted,
        steady: _Counted,
        until_us: int,
        storm: StormReport | None,
    ) -> LoadReport:
        final = client.figures()
        records = client.listeners()
        listening = [f for f in (*joining.figures, *final) if not f.is_sources]
        due = frames_due(
            records,
            until_us=until_us,
            offset_us=_offset_us(final),
            frame_ms=self._frame_ms_of(records),
        )
        groups = {}
        for number, name in enumerate(GROUPS):
            chosen = records["group"] == number
            if chosen.any():
                delays = total(f.delay[number] for f in listening)
                groups[name] = delivery(records[chosen], due[chosen], delays)
        delay_steady = Quantiles.of(total(f.delay[0] for f in steady.figures))
        threads = thread_loads(steady.figures, process_s=steady.own_s - joining.own_s)
        first = steady.figures[0]
        seconds = max((first.taken_ns - first.since_ns) / 1e9, 1e-9)
        received = sum(f.bytes for f in steady.figures if not f.is_sources)
        errors = count_errors((*joining.figures, *final))
        if self._gone:
            errors[self._gone] = 1
        server = None
        if (
            self._before is not None
            and joining.server_s is not None
            and steady.server_s is not None
            and self._samples
        ):
            server = ServerReport.of(
                self._before,
                self._samples,
                cpu_s=steady.server_s - joining.server_s,
                seconds=seconds,
                frames=sum(f.frames for f in steady.figures),
            )
        mixes = None
        if self._options.mix_changes:
            sent, replies = sum(f.sent for f in final), sum(f.replies for f in final)
            mixes = MixReport(sent, replies, Quantiles.of(total(f.reply for f in final)))
        return LoadReport(
            server_url=str(self._api.url),
            started="",
            options=asdict(self._options),
            interrupted=self._stopping.is_set(),
            shared_token=self._options.share_token,
            rooms=len(self._rooms),
            wanted=self._options.listeners,
            joined=int((records["joined_ns"] > 0).sum()),
            failed=sum(f.failed for f in listening),
            lost=sum(f.lost for f in listening),
            returned=sum(f.returned for f in listening),
            joining_s=0.0,
            steady_s=0.0,
            groups=groups,
            delay_joining=Quantiles.of(total(f.delay[0] for f in joining.figures)),
            delay_steady=delay_steady,
            join=Quantiles.of(total(f.join for f in listening)),
            bytes_per_s=round(received / seconds, 1),
            source_packets=int(np.sum(client.sources()["frames"])),
            source_packets_skipped=joining.figures[-1].skipped + final[-1].skipped,
            round_trip_us=min((f.round_trip_us for f in final if f.round_trip_us), default=0),
            threads=threads,
            bottleneck=bottleneck(threads, delay_steady.p99),
            storm=storm,
            mixes=mixes,
            server=server,
            errors=errors,
        )

    def _frame_ms_of(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """Of each listener's room: listener k is in room k modulo their number."""
        return np.resize(np.array(self._frame_ms, np.int64), len(records))

    def _progress(self, stage: str, done: float, figures: Sequence[LoadFigures]) -> None:
        now = time.monotonic()
        at, frames, received = self._seen
        listening = [f for f in figures if not f.is_sources]
        self._seen = (now, sum(f.frames for f in listening), sum(f.bytes for f in listening))
        passed = max(now - at, 1e-9)
        self._show(
            Progress(
                stage,
                min(done, 1.0),
                sum(f.joined for f in listening),
                sum(f.failed for f in listening),
                sum(f.lost for f in listening),
                max(0, self._seen[1] - frames) / passed,
                max(0, self._seen[2] - received) / passed,
                Quantiles.of(total(f.delay[0] for f in listening)),
                max(f.cpu_ns / max(f.taken_ns - f.since_ns, 1) for f in figures),
            )
        )


def _random_mix(chance: np.random.Generator, channels: int) -> Message:
    return {
        "faders": chance.uniform(0.2, 1.0, channels).round(3).tolist(),
        "pans": chance.uniform(-1.0, 1.0, channels).round(3).tolist(),
    }


def _offset_us(figures: Sequence[LoadFigures]) -> int:
    """The server's clock less ours, as the thread with the quickest answers knows it."""
    known = [(f.round_trip_us, f.clock_offset_us) for f in figures if f.clock_offset_us is not None]
    if not known:
        raise ClientError(
            "no listener learned the server's clock: nobody joined, or it is not told"
        )
    return min(known)[1]


def _told(errors: Mapping[str, int]) -> str:
    return "; ".join(f"{what} ({count})" for what, count in errors.items())
