"""The broadcaster against a scripted room: what it sends, when, and how it comes back."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from typing import Any

import numpy as np
import pytest
from aiohttp import WSMsgType, web
from numpy.typing import NDArray

from roomserver.clients.broadcast import Broadcaster, BroadcastOptions
from roomserver.clients.entry import RoomEntry
from roomserver.clients.errors import ClientError, RefusedError
from roomserver.clients.meters import Display
from roomserver.clients.source import RawReader, SampleSource
from roomserver.clients.wav import WavReader, WavWriter
from roomserver.clients.wire import Encoding, Samples, to_f32
from support.fake_room import FakeRoom, close_with_error, sever, take_all

RATE = 8000


def signal(channels: int, count: int) -> NDArray[np.int16]:
    return (np.arange(channels * count).reshape(channels, count).T % 29989).astype(np.int16)


def wav(samples: Samples, rate: int = RATE) -> WavReader:
    file = io.BytesIO()
    writer = WavWriter(file, samples.shape[1], rate, Encoding.of(samples))
    writer.write(samples)
    writer.close()
    file.seek(0)
    return WavReader(file, "test.wav")


def received(room: FakeRoom, channels: int, count: int, dtype: Any = np.int16) -> Samples:
    """What the packets hold, placed by their timestamps; every sample exactly once."""
    samples = np.zeros((count, channels), dtype)
    filled = np.zeros((count, channels), int)
    for packet in room.packets:
        planes = slice(packet.first_channel, packet.first_channel + packet.planes.shape[0])
        samples[packet.timestamp : packet.end, planes] = packet.planes.T
        filled[packet.timestamp : packet.end, planes] += 1
    assert (filled == 1).all()
    return samples


@pytest.mark.parametrize(
    "options",
    [
        BroadcastOptions(),
        BroadcastOptions(packet_samples=(127, 1, 441)),
        BroadcastOptions(packet_samples=(960,), channels_per_packet=1),
        BroadcastOptions(packet_samples=(100,), channels_per_packet=2, encoding=Encoding.F32LE),
    ],
    ids=["default", "mixed sizes", "one channel each", "float"],
)
async def test_every_sample_is_sent_once_at_its_timestamp(
    room: FakeRoom, source_entry: RoomEntry, display: Display, options: BroadcastOptions
) -> None:
    samples = signal(3, 2500)
    await Broadcaster(source_entry, wav(samples), options, display).run()
    if options.encoding is Encoding.F32LE:
        np.testing.assert_array_equal(received(room, 3, 2500, np.float32), to_f32(samples))
    else:
        np.testing.assert_array_equal(received(room, 3, 2500), samples)
    assert [packet.sequence for packet in room.packets] == list(range(len(room.packets)))
    sizes = {packet.planes.shape for packet in room.packets[:-3]}
    step = options.channels_per_packet or 3
    assert {shape[0] for shape in sizes} == {step, 3 % step} - {0}
    assert {shape[1] for shape in sizes} <= set(options.packet_samples or (80,))
    assert room.texts == [{"type": "unregisterSource"}]


async def test_registration_says_the_format(
    room: FakeRoom, source_entry: RoomEntry, display: Display
) -> None:
    options = BroadcastOptions(frame_ms=5, buffer_ms=120, channel_names=("kick", "snare"))
    await Broadcaster(source_entry, wav(signal(2, 100)), options, display).run()
    del room.registrations[0]["roomToken"], room.registrations[0]["roomId"]
    assert room.registrations == [
        {
            "type": "registerSource",
            "channels": 2,
            "sampleRate": RATE,
            "encoding": "pcm_s16le",
            "frameMs": 5,
            "bufferMs": 120,
            "channelNames": ["kick", "snare"],
        }
    ]


async def test_packets_keep_to_the_media_clock(
    room: FakeRoom, source_entry: RoomEntry, display: Display
) -> None:
    options = BroadcastOptions(packet_samples=(80,))
    begin = time.monotonic()
    await Broadcaster(source_entry, wav(signal(1, 4000)), options, display).run()
    # Each packet is sent when its last sample is over, never before.
    assert all(packet.arrived - begin >= packet.end / RATE for packet in room.packets)
    offsets = {packet.time_us - packet.timestamp * 1_000_000 // RATE for packet in room.packets}
    assert max(offsets) - min(offsets) <= 2


async def test_after_a_broken_connection_it_goes_on_where_the_clock_is(
    room: FakeRoom, source_entry: RoomEntry, display: Display, log: io.StringIO
) -> None:
    async def take_some(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        while len(room.packets) < 10:
            await room.take(websocket)
        sever(websocket)

    room.source_scripts = [take_some, take_all]
    samples = signal(2, 3 * RATE)
    broadcaster = Broadcaster(source_entry, wav(samples), BroadcastOptions(), display)
    begin = time.monotonic()
    task = asyncio.create_task(broadcaster.run())
    await room.until(lambda: len(room.packets) > 30)
    broadcaster.stop()
    await task
    assert len(room.registrations) == 2
    before, after = room.packets[9], room.packets[10]
    assert after.timestamp > before.end
    # Not behind the clock, which started before the first packet came, and not ahead of it.
    assert after.timestamp / RATE >= room.registered_at[1] - room.packets[0].arrived
    assert after.end / RATE <= after.arrived - begin
    for packet in room.packets:
        np.testing.assert_array_equal(packet.planes.T, samples[packet.timestamp : packet.end])
    assert "connected again" in log.getvalue()
    assert room.texts == [{"type": "unregisterSource"}]


async def test_an_expired_token_is_renewed(
    room: FakeRoom, source_entry: RoomEntry, display: Display
) -> None:
    async def expire(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await room.take(websocket)
        room.token = "token-2"
        await close_with_error(websocket, 4401, "token_expired", "the token has expired")

    room.source_scripts = [expire, take_all]
    broadcaster = Broadcaster(source_entry, wav(signal(1, 3 * RATE)), BroadcastOptions(), display)
    task = asyncio.create_task(broadcaster.run())
    await room.until(lambda: len(room.packets) > 5)
    broadcaster.stop()
    await task
    assert [r["roomToken"] for r in room.registrations] == ["token-1", "token-1", "token-2"]
    assert room.tokens_given == 2


async def test_a_token_that_comes_over_the_connection_is_used(
    room: FakeRoom, source_entry: RoomEntry, display: Display
) -> None:
    async def renew(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        room.token = "token-3"
        await websocket.send_json({"type": "roomToken", "roomToken": "token-3", "expiresAt": 0})
        await room.take(websocket)
        await websocket.close(code=1001)

    room.source_scripts = [renew, take_all]
    broadcaster = Broadcaster(source_entry, wav(signal(1, 3 * RATE)), BroadcastOptions(), display)
    task = asyncio.create_task(broadcaster.run())
    await room.until(lambda: len(room.packets) > 5)
    broadcaster.stop()
    await task
    assert [r["roomToken"] for r in room.registrations] == ["token-1", "token-3"]


async def test_a_takeover_ends_it(
    room: FakeRoom, source_entry: RoomEntry, display: Display
) -> None:
    async def take_over(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await room.take(websocket)
        await websocket.close(code=4409)

    room.source_scripts = [take_over]
    broadcaster = Broadcaster(source_entry, wav(signal(1, RATE)), BroadcastOptions(), display)
    with pytest.raises(RefusedError, match="taken over") as caught:
        await broadcaster.run()
    assert caught.value.close_code == 4409


async def test_an_end_that_nobody_confirms_is_said_and_is_no_success(
    room: FakeRoom, source_entry: RoomEntry, display: Display, log: io.StringIO
) -> None:
    async def sever_when_it_leaves(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        while (message := await websocket.receive()).type is not WSMsgType.TEXT:
            pass
        assert json.loads(message.data)["type"] == "unregisterSource"
        sever(websocket)

    room.source_scripts = [sever_when_it_leaves]
    broadcaster = Broadcaster(source_entry, wav(signal(1, 800)), BroadcastOptions(), display)
    with pytest.raises(ClientError, match="the end could not be confirmed"):
        await broadcaster.run()
    assert "connecting again" not in log.getvalue()
    assert len(room.registrations) == 1


async def test_stop_while_the_server_is_away_ends_at_once(
    room: FakeRoom, source_entry: RoomEntry, display: Display, log: io.StringIO
) -> None:
    async def leave(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await room.take(websocket)
        room.token = "none"
        sever(websocket)

    async def busy(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await websocket.close(code=4429)

    room.source_scripts = [leave, busy]
    broadcaster = Broadcaster(source_entry, wav(signal(1, 9 * RATE)), BroadcastOptions(), display)
    task = asyncio.create_task(broadcaster.run())
    await room.until(lambda: len(room.registrations) == 2)
    broadcaster.stop()
    async with asyncio.timeout(5):
        with pytest.raises(ClientError, match="the end could not be confirmed"):
            await task


async def test_status_of_the_source_is_shown(
    room: FakeRoom, source_entry: RoomEntry, display: Display, log: io.StringIO
) -> None:
    async def tell(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        status = {"fillMs": 98.7, "targetMs": 100, "jitterMs": 1.25, "driftPpm": -3.2}
        counters = {"lost": [0, 80], "late": [0, 0], "listenerCount": 3}
        await websocket.send_json({"type": "sourceStatus", **status, **counters})
        await take_all(room, websocket)

    room.source_scripts = [tell]
    await Broadcaster(source_entry, wav(signal(2, 800)), BroadcastOptions(), display).run()
    shown = log.getvalue()
    for figure in (
        "listeners 3",
        "buffer 99/100 ms",
        "jitter 1.2 ms",
        "drift -3.2 ppm",
        "lost 10 ms",
    ):
        assert figure in shown


async def test_a_live_pipe_sets_the_pace_and_is_drained_while_nobody_listens(
    room: FakeRoom, source_entry: RoomEntry, display: Display
) -> None:
    async def take_ten_then_sever(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        while len(room.packets) < 10:
            await room.take(websocket)
        sever(websocket)

    room.source_scripts = [take_ten_then_sever, take_all]
    read_end, write_end = os.pipe()
    samples = signal(1, 4 * RATE)

    async def capture() -> None:
        """Writes 10 ms at a time, four times as fast as the nominal rate."""
        for at in range(0, samples.shape[0], 80):
            await asyncio.to_thread(os.write, write_end, samples[at : at + 80].tobytes())
            await asyncio.sleep(0.0025)
        os.close(write_end)

    source = RawReader(os.fdopen(read_end, "rb", buffering=0), "s16le", 1, RATE, "pipe")
    broadcaster = Broadcaster(source_entry, source, BroadcastOptions(live=True), display)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(capture())
        await broadcaster.run()
    assert room.packets[-1].end == samples.shape[0]
    for packet in room.packets:
        np.testing.assert_array_equal(packet.planes[0], samples[packet.timestamp : packet.end, 0])


async def test_a_source_that_fails_is_named(source_entry: RoomEntry, display: Display) -> None:
    class Broken:
        name = "tape"
        channels = 1
        sample_rate = RATE
        encoding = Encoding.S16LE

        def read(self, count: int) -> Samples:
            raise OSError("input/output error")

        def skip(self, count: int) -> int:
            return 0

        def close(self) -> None:
            pass

    source: SampleSource = Broken()
    with pytest.raises(ClientError, match="tape: input/output error"):
        await Broadcaster(source_entry, source, BroadcastOptions(), display).run()
