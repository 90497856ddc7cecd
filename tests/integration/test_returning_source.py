"""Listeners that outlast a source: what they are told, and in which order."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from roomserver.clients.connection import RoomApi
from roomserver.clients.errors import RefusedError
from roomserver.clients.wire import Frame
from support.live import Capture, LiveRoom, live_room, timeline, wav_source
from support.server import ServerProcess

BUFFER_MS = 1000  # and each stream is longer, so that it is heard while it comes


def ramp(channels: int, count: int) -> np.ndarray:
    """Samples that differ everywhere."""
    return (np.arange(channels * count).reshape(count, channels) % 30011).astype(np.int16)


def check_streams(capture: Capture, formats: list[tuple[int, int]]) -> None:
    """`streamStarted` before the first frame of each stream; the timeline only moves forward."""
    announced: list[tuple[int, int]] = []
    stream = 0
    end = 0
    for message in capture.messages:
        if isinstance(message, Frame):
            assert stream, "a frame before any streamStarted"
            assert message.stream == stream
            assert message.channels == announced[-1][0]
            assert message.timestamp >= end
            end = message.timestamp + message.sample_count
        elif isinstance(message, dict) and message["type"] == "streamStarted":
            assert message["stream"] > stream
            assert message["timestamp"] >= end
            stream = message["stream"]
            announced.append((message["channelCount"], message["sampleRate"]))
    assert announced == formats


def frames_of(capture: Capture, stream: int) -> list[Frame]:
    return [frame for frame in capture.frames if frame.stream == stream]


async def test_listeners_stay_while_the_source_returns_with_another_format(
    studio: ServerProcess,
) -> None:
    first, second = ramp(2, 72_000), ramp(5, 66_150)
    async with (
        live_room(studio.url) as room,
        room.listen() as early,  # before any source
        room.listen(channels=[1, 4]) as picky,  # channel 4 does not exist yet: silent
    ):
        assert early.connection.registered["state"] == "waiting"
        assert "stream" not in early.connection.registered
        await room.broadcast(wav_source(first, 48000), buffer_ms=BUFFER_MS)
        for capture in (early, picky):
            await capture.wait_text("roomSuspended")
        await room.broadcast(wav_source(second, 44100), buffer_ms=BUFFER_MS, frame_ms=10)
        for capture in (early, picky):
            await capture.wait_text("roomSuspended", 2)
    check_streams(early, [(2, 48000), (5, 44100)])
    np.testing.assert_array_equal(timeline(frames_of(early, 1))[:72_000], first)
    np.testing.assert_array_equal(timeline(frames_of(early, 2))[:66_150], second)
    np.testing.assert_array_equal(timeline(frames_of(picky, 2))[:66_150], second[:, [1, 4]])
    heard = timeline(frames_of(picky, 1))[:72_000]
    np.testing.assert_array_equal(heard[:, 0], first[:, 1])
    assert not heard[:, 1].any()
    order = [early.index(kind) for kind in ("streamStarted", "roomSuspended", "roomResumed")]
    assert order == sorted(order)
    assert early.index("roomResumed") < early.index("streamStarted", nth=1)


async def test_a_source_that_is_lost_is_heard_again_on_the_same_connection(
    studio: ServerProcess,
) -> None:
    async with live_room(studio.url) as room, room.listen() as capture:
        lost = asyncio.create_task(
            room.broadcast(wav_source(ramp(1, 480_000), 48000), buffer_ms=BUFFER_MS)
        )
        await capture.wait_frames(5)
        lost.cancel()  # the connection goes away without a word
        await asyncio.wait({lost})
        await capture.wait_text("roomSuspended")
        await room.broadcast(wav_source(ramp(3, 144_000), 96000), buffer_ms=BUFFER_MS)
        await capture.wait_text("roomSuspended", 2)
    check_streams(capture, [(1, 48000), (3, 96000)])
    np.testing.assert_array_equal(timeline(frames_of(capture, 2))[:144_000], ramp(3, 144_000))


async def test_the_owner_takes_over_from_another_connection(studio: ServerProcess) -> None:
    async with live_room(studio.url) as room, room.listen() as capture:
        async with asyncio.TaskGroup() as group:
            group.create_task(taken_over(room))
            await capture.wait_frames(5)
            group.create_task(
                room.broadcast(wav_source(ramp(2, 24_000), 16000), buffer_ms=BUFFER_MS)
            )
        await capture.wait_text("roomSuspended")
    check_streams(capture, [(1, 48000), (2, 16000)])
    np.testing.assert_array_equal(timeline(frames_of(capture, 2))[:24_000], ramp(2, 24_000))


async def taken_over(room: LiveRoom) -> None:
    with pytest.raises(RefusedError) as caught:
        await room.broadcast(wav_source(ramp(1, 480_000), 48000), buffer_ms=BUFFER_MS)
    assert caught.value.close_code == 4409


async def test_one_who_joins_late_is_told_the_format_with_the_registration(
    studio: ServerProcess,
) -> None:
    samples = ramp(2, 96_000)
    async with live_room(studio.url) as room, room.listen() as early:
        sending = asyncio.create_task(
            room.broadcast(wav_source(samples, 48000), buffer_ms=BUFFER_MS)
        )
        await early.wait_frames(10)
        async with room.listen(burstMs=100) as late:
            await sending
            await late.wait_text("roomSuspended")
    registered = late.connection.registered
    start = early.texts("streamStarted")[0]
    for name in ("stream", "channelCount", "sampleRate", "frameMs", "timestamp"):
        assert registered[name] == start[name]
    assert not late.texts("streamStarted")
    begin = late.frames[0].timestamp - registered["timestamp"]
    assert begin > 0
    np.testing.assert_array_equal(timeline(late.frames)[: 96_000 - begin], samples[begin:])


async def test_after_a_reconnect_the_audio_goes_on_where_it_was(studio: ServerProcess) -> None:
    samples = ramp(2, 120_000)
    async with live_room(studio.url) as room, room.listen() as before:
        sending = asyncio.create_task(
            room.broadcast(wav_source(samples, 48000), buffer_ms=BUFFER_MS)
        )
        await before.wait_frames(10)
        resume_at = before.frames[9].timestamp + before.frames[9].sample_count
        await before.wait_frames(25)
        async with room.listen(**{"from": resume_at}) as again:
            await sending
            await again.wait_text("roomSuspended")
    start = before.texts("streamStarted")[0]["timestamp"]
    assert again.frames[0].timestamp <= resume_at
    begin = again.frames[0].timestamp - start
    np.testing.assert_array_equal(timeline(again.frames)[: 120_000 - begin], samples[begin:])


async def test_a_wrong_password_is_refused_in_words(studio: ServerProcess) -> None:
    async with live_room(studio.url) as room, RoomApi(studio.url) as api:
        with pytest.raises(RefusedError) as caught:
            await api.join(room.code, "wrong")
    assert caught.value.status == 401
    assert "answered 401" not in str(caught.value)
