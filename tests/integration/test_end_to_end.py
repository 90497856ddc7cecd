"""From a file to listeners through a real server, in real time, bit by bit."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roomserver.clients.wire import Encoding, Frame, Samples, convert
from support.live import Capture, live_room, timeline, wav_source
from support.server import ServerProcess

# A busy machine may run us late; so much buffer that nothing is ever concealed for it.
BUFFER_MS = 1000  # a source that gets no processor for a while leaves no hole


def noise(channels: int, count: int, encoding: Encoding = Encoding.S16LE) -> Samples:
    """Every value is possible, no channel is like another."""
    random = np.random.Generator(np.random.PCG64(channels * 1_000_003 + count))
    if encoding is Encoding.S16LE:
        return random.integers(-32768, 32768, (count, channels), np.int16)
    samples: NDArray[np.float32] = random.normal(0, 0.4, (count, channels)).astype(np.float32)
    return samples


def check_exact(capture: Capture, expected: Samples) -> None:
    """What was heard is the file, from the first timestamp on, then silence to a frame's end."""
    frames = capture.frames
    assert frames, capture.messages
    assert not any(frame.concealed for frame in frames)
    heard = timeline(frames)
    start = frames[0].timestamp - stream_start(capture)
    assert start >= 0
    rest = expected[start:]
    assert rest.shape[0] > 0
    assert rest.shape[0] <= heard.shape[0] < rest.shape[0] + frames[-1].sample_count
    np.testing.assert_array_equal(heard[: rest.shape[0]], rest)
    assert not heard[rest.shape[0] :].any()


def stream_start(capture: Capture) -> int:
    """Timestamp of the source's first sample."""
    started = [*capture.texts("streamStarted"), capture.connection.registered]
    return int(started[0]["timestamp"])


def stereo(samples: Samples, mix: dict[str, Any]) -> NDArray[np.int16]:
    """The protocol's mix of 16-bit samples, in double precision up to the last step."""
    channels = samples.shape[1]

    def values(name: str, default: float) -> NDArray[np.float64]:
        given = list(mix.get(name, ()))
        return np.array(given + [default] * (channels - len(given)), np.float64)

    gains = values("faders", 1.0) * mix.get("master", 1.0) * (1 - values("mutes", 0))
    solos = values("solos", 0)
    if solos.any():
        gains = gains * solos
    angle = (values("pans", 0.0) + 1) * np.pi / 4
    matrix = np.stack([np.cos(angle) * gains, np.sin(angle) * gains])
    mixed: NDArray[np.float64] = (samples / 32768) @ matrix.T
    return np.clip(np.rint(mixed * 32768), -32768, 32767).astype(np.int16)


async def test_sixteen_channels_to_three_listeners_at_once(studio: ServerProcess) -> None:
    rate = 48000
    samples = noise(16, 2 * rate + 123) // 6  # room for the sum of a mix
    mix = {
        "faders": [0.5, 1.0, 0.25, 0.0, 1.5] + [0.7] * 10,
        "pans": [-1.0, -0.5, 0.0, 0.5, 1.0, 0.3],
        "mutes": [False] * 5 + [True],
        "solos": [True, True, True, False, True, True, True, True, False, True],
        "master": 0.8,
    }
    async with (
        live_room(studio.url) as room,
        room.listen() as everything,
        room.listen(channels=[0, 5, 15]) as some,
        room.listen(mode="mix", mix=mix) as mixed,
    ):
        await room.broadcast(wav_source(samples, rate), buffer_ms=BUFFER_MS)
        for capture in (everything, some, mixed):
            await capture.wait_text("roomSuspended")
    check_exact(everything, samples)
    check_exact(some, samples[:, [0, 5, 15]])
    assert everything.frames[0].timestamp == stream_start(everything)
    heard = timeline(mixed.frames)
    reference = stereo(samples, mix)
    start = mixed.frames[0].timestamp - stream_start(mixed)
    compared = heard[: samples.shape[0] - start].astype(np.int32)
    assert np.abs(compared - reference[start:]).max() <= 1
    assert np.abs(reference).max() > 2000
    assert not heard[samples.shape[0] - start :].any()


@dataclass(frozen=True)
class Case:
    """One broadcast of about a second."""

    channels: int = 2
    rate: int = 48000
    encoding: Encoding = Encoding.S16LE
    frame_ms: int = 20
    packets: tuple[int, ...] = (480,)
    one_each: bool = False

    def __str__(self) -> str:
        kind = "f32" if self.encoding is Encoding.F32LE else "s16"
        sizes = "+".join(map(str, self.packets))
        each = "-each" if self.one_each else ""
        return f"{self.channels}ch-{self.rate}-{kind}-{self.frame_ms}ms-{sizes}{each}"


def cases() -> list[Case]:
    """Every frame length with every packet length; rates, widths and ways to pack in turn."""
    packets = ((127, 1), (441, 1, 441), (960,), (4096, 1))
    formats = itertools.cycle(
        [
            (2, 44100, Encoding.S16LE),
            (1, 48000, Encoding.F32LE),
            (3, 96000, Encoding.S16LE),
            (16, 48000, Encoding.S16LE),
            (1, 44100, Encoding.S16LE),
            (2, 96000, Encoding.F32LE),
            (5, 32000, Encoding.S16LE),
        ]
    )
    each = itertools.cycle([False, True, False])
    grid = [
        Case(*next(formats), frame_ms, sizes, next(each))
        for frame_ms in (5, 10, 20, 40, 60)
        for sizes in packets
    ]
    wide = [
        Case(64, 48000, Encoding.F32LE, 20, (960, 1)),
        Case(64, 48000, Encoding.F32LE, 10, (4096,), one_each=True),
        Case(1, 8000, Encoding.S16LE, 60, (441, 1), one_each=True),
    ]
    return grid + wide


def in_groups(every: list[Case], size: int) -> list[list[Case]]:
    return [every[at : at + size] for at in range(0, len(every), size)]


@pytest.mark.parametrize("group", in_groups(cases(), 4), ids=lambda group: str(group[0]))
async def test_every_way_to_send_is_heard_exactly(studio: ServerProcess, group: list[Case]) -> None:
    async def one(case: Case) -> None:
        samples = noise(case.channels, case.rate * 8 // 10 + 7, case.encoding)
        async with (
            live_room(studio.url) as room,
            room.listen(encoding=case.encoding.value) as capture,
        ):
            await room.broadcast(
                wav_source(samples, case.rate),
                buffer_ms=BUFFER_MS,
                frame_ms=case.frame_ms,
                packet_samples=case.packets,
                channels_per_packet=1 if case.one_each else None,
            )
            await capture.wait_text("roomSuspended")
        check_exact(capture, samples)
        check_frame_lengths(capture.frames, case)

    await asyncio.gather(*map(one, group))


def check_frame_lengths(frames: list[Frame], case: Case) -> None:
    """Frame n covers samples floor(n r m / 1000) to floor((n + 1) r m / 1000)."""
    step = case.rate * case.frame_ms
    for frame in frames:
        begin, end = (n * step // 1000 for n in (frame.sequence, frame.sequence + 1))
        assert frame.sample_count == end - begin


@pytest.mark.parametrize("sent", list(Encoding))
async def test_the_encoding_heard_is_independent_of_that_sent(
    studio: ServerProcess, sent: Encoding
) -> None:
    samples = noise(2, 24000, sent)
    async with (
        live_room(studio.url) as room,
        room.listen(encoding="pcm_s16le") as as_integers,
        room.listen(encoding="pcm_f32le") as as_floats,
    ):
        await room.broadcast(wav_source(samples, 48000), buffer_ms=BUFFER_MS)
        for capture in (as_integers, as_floats):
            await capture.wait_text("roomSuspended")
    check_exact(as_integers, convert(samples, Encoding.S16LE))
    check_exact(as_floats, convert(samples, Encoding.F32LE))
