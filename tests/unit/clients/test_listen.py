"""The listener against a scripted room: what it records, reports and survives."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from numpy.typing import NDArray

from roomserver.clients.entry import RoomEntry
from roomserver.clients.errors import ClientError, RefusedError
from roomserver.clients.listen import Listener, ListenOptions
from roomserver.clients.meters import Display
from roomserver.clients.recorder import Recorder
from roomserver.clients.wav import WavReader
from support.fake_room import (
    ROOM_ID,
    FakeRoom,
    Script,
    close_with_error,
    now_us,
    pack_frame,
    sever,
    take_all,
)

RATE = 8000
COUNT = 160


def stream_started(stream: int = 1, *, channels: int = 2, rate: int = RATE) -> dict[str, Any]:
    return {
        "type": "streamStarted",
        "stream": stream,
        "channelCount": channels,
        "channelNames": [f"c{index}" for index in range(channels)],
        "sampleRate": rate,
        "frameMs": 20,
        "bufferMs": 100,
        "timestamp": stream * 1_000_000,
    }


def audio(number: int, channels: int = 2, stream: int = 1) -> NDArray[np.int16]:
    base = np.arange(COUNT * channels).reshape(COUNT, channels)
    return ((base + number * 1000 + stream * 333) % 30011).astype(np.int16)


def frame(number: int, *, stream: int = 1, channels: int = 2, flags: int = 0) -> bytes:
    return pack_frame(
        audio(number, channels, stream),
        stream=stream,
        sequence=number,
        timestamp=stream * 1_000_000 + number * COUNT,
        time_us=now_us(),
        flags=flags,
    )


def say(*messages: dict[str, Any] | bytes, close: int | None = 4410) -> Script:
    """A script: these messages, then a close (None: wait for the client's)."""

    async def script(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        for message in messages:
            if isinstance(message, bytes):
                await websocket.send_bytes(message)
            else:
                await websocket.send_json(message)
        if close is None:
            await take_all(room, websocket)
        else:
            await websocket.close(code=close)

    return script


def read(path: Path) -> NDArray[np.int16]:
    reader = WavReader.open(path)
    samples = reader.read(10**9)
    reader.close()
    assert samples.dtype == np.int16
    return samples.astype(np.int16)


def frames_of(numbers: Sequence[int], channels: int = 2, stream: int = 1) -> NDArray[np.int16]:
    return np.concatenate([audio(number, channels, stream) for number in numbers])


async def test_frames_are_recorded_as_they_are(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    room.listener_scripts = [say(stream_started(), *(frame(n) for n in range(20)))]
    out = tmp_path / "out.wav"
    listener = Listener(listener_entry, ListenOptions(), display, Recorder(str(out)))
    await listener.run()
    np.testing.assert_array_equal(read(out), frames_of(range(20)))
    assert "20 frames, 0 missing in 0 gaps" in listener.summary()
    assert str(out) in listener.summary()


async def test_missing_frames_leave_silence_and_are_reported(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    room.listener_scripts = [say(stream_started(), frame(0), frame(3, flags=1), frame(4))]
    out = tmp_path / "out.wav"
    listener = Listener(listener_entry, ListenOptions(), display, Recorder(str(out)))
    await listener.run()
    silence = np.zeros((2 * COUNT, 2), np.int16)
    expected = np.concatenate([audio(0), silence, audio(3), audio(4)])
    np.testing.assert_array_equal(read(out), expected)
    assert "2 missing in 1 gaps, 1 with concealed" in listener.summary()


async def test_the_registration_asks_for_what_was_wanted(
    room: FakeRoom, listener_entry: RoomEntry, display: Display
) -> None:
    room.listener_scripts = [say()]
    mix = {"faders": [0.5], "master": 2.0}
    options = ListenOptions(mix=mix, interval_ms=100, burst_ms=500, nickname="hall")
    await Listener(listener_entry, options, display).run()
    await Listener(listener_entry, ListenOptions(channels=(0, 5)), display).run()
    common = {"type": "registerListener", "roomId": ROOM_ID, "roomToken": "token-1"}
    assert room.registrations == [
        common
        | {"mode": "mix", "encoding": "pcm_s16le", "intervalMs": 100, "nickname": "hall"}
        | {"mix": mix, "burstMs": 500},
        common
        | {"mode": "multichannel", "encoding": "pcm_s16le", "intervalMs": 0, "channels": [0, 5]},
    ]


async def test_it_waits_for_a_source_and_follows_one_that_returns_otherwise(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path, log: io.StringIO
) -> None:
    room.registered_extra = {"state": "waiting"}
    suspended = {"type": "roomSuspended", "roomId": ROOM_ID, "suspendedUntil": now_us()}
    room.listener_scripts = [
        say(
            stream_started(1),
            frame(0),
            suspended,
            {"type": "roomResumed", "roomId": ROOM_ID},
            stream_started(2),
            frame(0, stream=2),
            suspended,
            stream_started(3, channels=1, rate=16000),
            frame(0, stream=3, channels=1),
            {"type": "roomClosed", "roomId": ROOM_ID, "reason": "closed_by_owner"},
        )
    ]
    out = tmp_path / "out.wav"
    listener = Listener(listener_entry, ListenOptions(), display, Recorder(str(out)))
    await listener.run()
    expected = np.concatenate([audio(0), audio(0, stream=2)])
    np.testing.assert_array_equal(read(out), expected)
    np.testing.assert_array_equal(read(tmp_path / "out-2.wav"), audio(0, 1, 3))
    for words in ("waiting for it", "the source is gone", "the source is back", "closed_by_owner"):
        assert words in log.getvalue()
    assert "source: 1 channels, 16000 Hz" in log.getvalue()


async def test_after_a_broken_connection_it_goes_on_where_it_was(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    async def break_off(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await websocket.send_json(stream_started())
        for number in range(3):
            await websocket.send_bytes(frame(number))
        await room.take(websocket)  # the first ping: what was sent has been read by then
        sever(websocket)

    room.registered_extra = {k: v for k, v in stream_started().items() if k != "type"}
    room.listener_scripts = [break_off, say(frame(2), frame(3), frame(4))]
    out = tmp_path / "out.wav"
    listener = Listener(listener_entry, ListenOptions(burst_ms=200), display, Recorder(str(out)))
    await listener.run()
    assert "from" not in room.registrations[0]
    assert "burstMs" not in room.registrations[1]
    heard = (room.registrations[1]["from"] - 1_000_000) // COUNT
    assert heard <= 3
    np.testing.assert_array_equal(read(out)[-2 * COUNT :], frames_of([3, 4]))
    assert read(out).shape[0] == 5 * COUNT


async def test_it_ends_after_exactly_the_seconds_wanted(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    room.listener_scripts = [say(stream_started(), *(frame(n) for n in range(9)), close=None)]
    out = tmp_path / "out.wav"
    options = ListenOptions(seconds=0.1111)
    await Listener(listener_entry, options, display, Recorder(str(out))).run()
    np.testing.assert_array_equal(read(out), frames_of(range(9))[: round(0.1111 * RATE)])


async def test_once_means_until_the_source_ends(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    suspended = {"type": "roomSuspended", "roomId": ROOM_ID, "suspendedUntil": now_us()}
    room.listener_scripts = [say(stream_started(), frame(0), suspended, close=None)]
    out = tmp_path / "out.wav"
    await Listener(listener_entry, ListenOptions(once=True), display, Recorder(str(out))).run()
    np.testing.assert_array_equal(read(out), audio(0))


async def test_once_hears_what_the_room_still_had_of_a_source_that_was_lost(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    suspended = {"type": "roomSuspended", "roomId": ROOM_ID, "suspendedUntil": now_us()}
    rest = [frame(1), frame(2)]
    room.listener_scripts = [say(stream_started(), frame(0), suspended, *rest, close=None)]
    out = tmp_path / "out.wav"
    await Listener(listener_entry, ListenOptions(once=True), display, Recorder(str(out))).run()
    np.testing.assert_array_equal(read(out), frames_of(range(3)))


async def test_stop_completes_the_file(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    room.listener_scripts = [say(stream_started(), frame(0), frame(1), close=None)]
    out = tmp_path / "out.wav"
    listener = Listener(listener_entry, ListenOptions(), display, Recorder(str(out)))
    task = asyncio.create_task(listener.run())
    await room.until(lambda: any(text["type"] == "ping" for text in room.texts))
    listener.stop()
    await task
    assert read(out).shape[0] in (0, COUNT, 2 * COUNT)


async def test_it_measures_its_delay_and_tells_the_server(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, log: io.StringIO
) -> None:
    delay_ms = 40.0

    async def stream(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        async def take() -> None:
            while await room.take(websocket):
                pass

        taker = asyncio.create_task(take())
        await websocket.send_json(stream_started())
        began = time.monotonic()
        number = 0
        while not any(text["type"] == "stats" for text in room.texts):
            packet = pack_frame(
                audio(number),
                sequence=number,
                timestamp=1_000_000 + number * COUNT,
                time_us=now_us() - int(delay_ms * 1000),
            )
            await websocket.send_bytes(packet)
            number += 1
            await asyncio.sleep(max(0.0, began + number * 0.02 - time.monotonic()))
        await websocket.close(code=4410)
        await taker

    room.listener_scripts = [stream]
    await Listener(listener_entry, ListenOptions(), display).run()
    stats = next(text for text in room.texts if text["type"] == "stats")
    assert delay_ms - 1 < stats["latencyMs"] < delay_ms + 2000
    assert stats["bufferMs"] == 0
    assert stats["lost"] == 0
    assert stats["jitterMs"] >= 0
    assert "+ 100 ms buffer" in log.getvalue()


@pytest.mark.parametrize("code", [4403, 4404])
async def test_a_refusal_for_good_ends_it_with_its_reason(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, code: int
) -> None:
    async def refuse(room: FakeRoom, websocket: web.WebSocketResponse) -> None:
        await close_with_error(websocket, code, "not_allowed", "you were kicked")

    room.listener_scripts = [refuse]
    with pytest.raises(RefusedError, match="you were kicked") as caught:
        await Listener(listener_entry, ListenOptions(), display).run()
    assert (caught.value.close_code, caught.value.code) == (code, "not_allowed")


async def test_a_file_that_cannot_be_written_ends_it(
    room: FakeRoom, listener_entry: RoomEntry, display: Display, tmp_path: Path
) -> None:
    room.listener_scripts = [say(stream_started(), frame(0), close=None)]
    recorder = Recorder(str(tmp_path / "none" / "out.wav"))
    with pytest.raises(ClientError, match=r"out\.wav: No such file"):
        await Listener(listener_entry, ListenOptions(), display, recorder).run()


async def test_a_full_disk_ends_it(
    room: FakeRoom, listener_entry: RoomEntry, display: Display
) -> None:
    room.listener_scripts = [say(stream_started(), *(frame(n) for n in range(200)), close=None)]
    recorder = Recorder("/dev/full")
    with pytest.raises(ClientError, match="No space left"):
        await Listener(listener_entry, ListenOptions(seconds=4), display, recorder).run()
