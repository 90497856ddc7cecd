"""Changes of subscription and mix: at one frame boundary, the answer immediately before."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roomserver.clients.wire import Encoding, Frame
from support.live import Capture, LiveRoom, live_room, timeline, wav_source
from support.server import ServerProcess

RATE = 48000
BUFFER_MS = 1000
BEHIND_S = 0.3


@pytest.fixture(params=[False, True], ids=["at live", "behind"])
def behind(request: pytest.FixtureRequest) -> bool:
    """Whether the listener does not read its socket for 300 ms around the change."""
    return bool(request.param)


@asynccontextmanager
async def on_air(studio: ServerProcess, samples: NDArray[Any]) -> AsyncIterator[LiveRoom]:
    """A room whose source sends the samples until the test is done with it."""
    async with live_room(studio.url) as room:
        broadcaster = room.broadcaster(wav_source(samples, RATE), buffer_ms=BUFFER_MS)
        task = asyncio.create_task(broadcaster.run())
        try:
            yield room
        finally:
            broadcaster.stop()
            await task


async def change(capture: Capture, message: dict[str, Any], answer: str, *, behind: bool) -> int:
    """Says the message after some frames, waits for some more; where its answer stands."""
    answers = len(capture.texts(answer))
    await capture.wait_frames(5, after=len(capture.messages))
    transport = capture.transport
    sock = transport.get_extra_info("socket")
    if behind:
        # A small buffer: what is not read soon fills it, and the server can send no more.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        transport.pause_reading()
        await asyncio.sleep(BEHIND_S / 2)
    await capture.connection.send(message)
    if behind:
        await asyncio.sleep(BEHIND_S / 2)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        transport.resume_reading()
    await capture.wait_text(answer, answers + 1)
    at = capture.index(answer, nth=answers)
    await capture.wait_frames(5, after=at)
    first = capture.messages[at + 1]
    if behind and isinstance(first, Frame):
        # Held up as was intended: it was due about when we said the message, at the latest.
        assert capture.arrived_us[at + 1] - first.time_us > BEHIND_S / 4 * 1e6
    return at


def around(capture: Capture, at: int) -> tuple[list[Frame], list[Frame]]:
    """Frames before and after an answer, which the very next message must be one of."""
    assert isinstance(capture.messages[at + 1], Frame), capture.messages[at + 1]
    before = [m for m in capture.messages[:at] if isinstance(m, Frame)]
    after = [m for m in capture.messages[at:] if isinstance(m, Frame)]
    assert before
    return before, after


def check_boundary(last: Frame, first: Frame) -> None:
    """No frame is missing or sent twice over the change."""
    assert first.sequence == last.sequence + 1
    assert first.timestamp == last.timestamp + last.sample_count


async def test_a_subscription_changes_at_one_frame_boundary(
    studio: ServerProcess, behind: bool
) -> None:
    samples = (np.arange(16 * 8 * RATE).reshape(-1, 16) % 30011).astype(np.int16)
    async with on_air(studio, samples) as room, room.listen() as capture:
        await capture.wait_frames(1)
        start = capture.texts("streamStarted")[0]["timestamp"]
        wish = {"type": "subscribe", "channels": [3, 9], "encoding": "pcm_f32le"}
        at = await change(capture, wish, "subscribed", behind=behind)
        assert capture.messages[at]["channels"] == [3, 9]  # type: ignore[index]
        before, after = around(capture, at)
        again = await change(
            capture, {"type": "subscribe", "channels": None}, "subscribed", behind=behind
        )
    check_boundary(before[-1], after[0])
    middle = [m for m in capture.messages[at:again] if isinstance(m, Frame)]
    last = [m for m in capture.messages[again:] if isinstance(m, Frame)]
    check_boundary(middle[-1], last[0])
    for frames, channels, encoding in (
        (before, range(16), Encoding.S16LE),
        (middle, [3, 9], Encoding.F32LE),
        (last, range(16), Encoding.F32LE),
    ):
        assert {frame.encoding for frame in frames} == {encoding}
        heard = timeline(frames)
        first = frames[0].timestamp - start
        expected = samples[first : first + heard.shape[0], list(channels)]
        full_scale = 1 if encoding is Encoding.S16LE else 32768
        np.testing.assert_array_equal(heard * full_scale, expected)


def pan_gains(fader: float, pan: float, master: float = 1.0) -> NDArray[np.float64]:
    angle = (pan + 1) * math.pi / 4
    return np.array([math.cos(angle), math.sin(angle)]) * fader * master


async def test_a_mix_changes_along_a_ramp_over_one_frame(
    studio: ServerProcess, behind: bool
) -> None:
    levels = np.array([0.25, 0.125])
    samples = np.broadcast_to(levels, (8 * RATE, 2)).astype(np.float32)

    def mixed(*gains: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(levels @ np.stack(gains))

    wish = {"faders": [1.0, 0.5], "pans": [-1.0, 0.0]}
    async with (
        on_air(studio, samples) as room,
        room.listen(mode="mix", encoding="pcm_f32le", mix=wish) as capture,
    ):
        await capture.wait_frames(1)
        steps: list[tuple[dict[str, Any], NDArray[np.float64]]] = [
            ({"faders": [0.25, 2.0]}, mixed(pan_gains(0.25, -1), pan_gains(2, 0))),
            (
                {"pans": [1.0, 0.5], "master": 0.5},
                mixed(pan_gains(0.25, 1, 0.5), pan_gains(2, 0.5, 0.5)),
            ),
            ({"solos": [False, True]}, mixed(pan_gains(0, 0), pan_gains(2, 0.5, 0.5))),
            ({"mutes": [False, True], "solos": []}, mixed(pan_gains(0.25, 1, 0.5), np.zeros(2))),
        ]
        now = mixed(pan_gains(1, -1), pan_gains(0.5, 0))
        begin = 0
        for message, target in steps:
            at = await change(capture, {"type": "setMix", **message}, "mixChanged", behind=behind)
            before, after = around(capture, at)
            check_boundary(before[-1], after[0])
            steady = [m for m in capture.messages[begin:at] if isinstance(m, Frame)]
            for frame in steady[1:] if begin else steady:
                np.testing.assert_allclose(
                    frame.samples, np.broadcast_to(now, frame.samples.shape), atol=1e-6
                )
            count = after[0].sample_count
            progress = (np.arange(count) / count)[:, None]
            ramp = now + (target - now) * progress
            np.testing.assert_allclose(after[0].samples, ramp, atol=2e-6)
            for frame in after[1:]:
                np.testing.assert_allclose(
                    frame.samples, np.broadcast_to(target, frame.samples.shape), atol=1e-6
                )
            now, begin = target, at


async def test_from_channels_to_a_mix_and_back(studio: ServerProcess, behind: bool) -> None:
    random = np.random.Generator(np.random.PCG64(1))
    samples = random.integers(-9000, 9000, (8 * RATE, 4), np.int16)
    async with on_air(studio, samples) as room, room.listen() as capture:
        await capture.wait_frames(1)
        start = capture.texts("streamStarted")[0]["timestamp"]
        mix = {"pans": [-1.0, 1.0], "mutes": [False, False, True, True]}
        at = await change(
            capture, {"type": "subscribe", "mode": "mix", "mix": mix}, "subscribed", behind=behind
        )
        before, after = around(capture, at)
        check_boundary(before[-1], after[0])
        back = await change(
            capture, {"type": "subscribe", "mode": "multichannel"}, "subscribed", behind=behind
        )
    middle = timeline([m for m in capture.messages[at:back] if isinstance(m, Frame)])
    first = after[0].timestamp - start
    expected = samples[first : first + middle.shape[0], :2].astype(np.int32)
    assert np.abs(middle.astype(np.int32) - expected).max() <= 1
    last = [m for m in capture.messages[back:] if isinstance(m, Frame)]
    first = last[0].timestamp - start
    heard = timeline(last)
    np.testing.assert_array_equal(heard, samples[first : first + heard.shape[0]])
