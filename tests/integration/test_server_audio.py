"""Audio through a running server: what a source sends is what listeners hear."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.api_client import Api, RoomKeys, Socket, noise
from support.peer import Closed, Frame, source_packet

RATE = 48000


@pytest.fixture
async def room(api: Api, access_token: str) -> RoomKeys:
    return await api.create_room(access_token)


async def hear(socket: Socket) -> list[Frame]:
    """All frames until the room is suspended."""
    while True:
        message = await socket.next()
        assert not isinstance(message, Closed), socket.texts()
        if isinstance(message, dict) and message["type"] == "roomSuspended":
            return [m for m in socket.seen if isinstance(m, Frame) and m.kind == 2]


def joined(frames: list[Frame]) -> NDArray[Any]:
    """The samples [n, channels] of frames that follow each other without a gap."""
    for before, after in itertools.pairwise(frames):
        assert after.sequence == before.sequence + 1
        assert after.timestamp == before.timestamp + before.samples
    assert all(frame.flags & 1 == 0 for frame in frames)  # nothing concealed
    return np.concatenate([frame.data for frame in frames])


def audible(samples: NDArray[Any], sent: NDArray[Any]) -> NDArray[Any]:
    """What was heard, without the silence that fills the last frame up."""
    assert 0 <= len(samples) - len(sent) < RATE * 60 // 1000
    assert not samples[len(sent) :].any()
    return samples[: len(sent)]


def stereo(
    samples: NDArray[np.int16],
    faders: list[float],
    pans: list[float],
    mutes: list[bool],
    solos: list[bool],
    master: float,
) -> NDArray[np.float64]:
    """The mix of samples [channels, n] that the protocol describes, as [n, 2]."""
    heard = np.array(solos) if any(solos) else np.ones(len(solos), bool)
    gain = np.array(faders) * master * (heard & ~np.array(mutes))
    angle = (np.array(pans) + 1) * np.pi / 4
    gains = np.stack([gain * np.cos(angle), gain * np.sin(angle)])
    mixed: NDArray[np.float64] = (gains @ (samples / 32768.0)).T
    return mixed


async def test_three_listeners_hear_everything_a_subset_and_a_mix(api: Api, room: RoomKeys) -> None:
    sent = noise(16, RATE * 3 // 2) // 4
    faders = [0.5 + channel / 16 for channel in range(16)]
    pans = [channel / 7.5 - 1 for channel in range(16)]
    mutes = [channel == 3 for channel in range(16)]
    solos = [channel in (1, 3, 8) for channel in range(16)]
    mix = {"faders": faders, "pans": pans, "mutes": mutes, "solos": solos, "master": 0.8}
    async with (
        api.listener(room) as all_of_it,
        api.listener(room, channels=[0, 5, 15]) as subset,
        api.listener(room, mode="mix", mix=mix) as mixed,
        api.source(room, channels=16) as source,
    ):
        heard = [asyncio.create_task(hear(s)) for s in (all_of_it, subset, mixed)]
        await source.play(sent, rate=RATE)
        await source.say("unregisterSource")
        frames = [joined(await task) for task in heard]
    np.testing.assert_array_equal(audible(frames[0], sent.T), sent.T)
    np.testing.assert_array_equal(audible(frames[1], sent.T), sent[[0, 5, 15]].T)
    reference = np.rint(stereo(sent, faders, pans, mutes, solos, 0.8) * 32768).clip(-32768, 32767)
    assert np.abs(audible(frames[2], sent.T) - reference).max() <= 1


@pytest.mark.parametrize(
    ("channels", "rate", "frame_ms", "packet", "encoding"),
    [
        (1, 48000, 5, 127, "pcm_s16le"),
        (2, 44100, 10, 441, "pcm_s16le"),
        (64, 48000, 20, 960, "pcm_f32le"),
        (3, 96000, 40, 4096, "pcm_f32le"),
        (2, 44100, 60, 960, "pcm_f32le"),
    ],
)
async def test_every_format_passes_bit_exact(
    api: Api,
    room: RoomKeys,
    channels: int,
    rate: int,
    frame_ms: int,
    packet: int,
    encoding: str,
) -> None:
    sent: NDArray[Any] = noise(channels, rate // 2)
    if encoding == "pcm_f32le":
        sent = (sent / np.float32(32768)).astype(np.float32)
    wish = {"channels": channels, "sampleRate": rate, "frameMs": frame_ms, "encoding": encoding}
    async with (
        api.listener(room, encoding=encoding) as listener,
        api.source(room, **wish) as source,
    ):
        heard = asyncio.create_task(hear(listener))
        await source.play(sent, rate=rate, packet=packet, timestamp=12345)
        await source.say("unregisterSource")
        frames = await heard
    started = listener.texts("streamStarted")[0]
    assert started["timestamp"] == frames[0].timestamp
    samples = joined(frames)
    np.testing.assert_array_equal(samples[: sent.shape[1]], sent.T)
    assert not samples[sent.shape[1] :].any()
    lengths = {frame.samples for frame in frames}
    assert lengths <= {rate * frame_ms // 1000, rate * frame_ms // 1000 + 1}


async def test_single_channel_packets_of_all_lengths_meet_on_one_timeline(
    api: Api, room: RoomKeys
) -> None:
    sent = noise(3, RATE // 2)
    async with (
        api.listener(room) as listener,
        api.source(room, channels=3) as source,
    ):
        heard = asyncio.create_task(hear(listener))
        loop = asyncio.get_running_loop()
        start = loop.time()
        position, sequence = 0, 0
        lengths = [960, 1, 127, 441]
        while position < sent.shape[1]:
            length = lengths[sequence % len(lengths)]
            for channel in (2, 0, 1):
                piece = sent[channel : channel + 1, position : position + length]
                packet = source_packet(piece, position, first_channel=channel, sequence=sequence)
                await source.ws.send_bytes(packet)
            position += length
            sequence += 1
            await asyncio.sleep(max(0.0, start + position / RATE - loop.time()))
        await source.say("unregisterSource")
        samples = joined(await heard)
    np.testing.assert_array_equal(audible(samples, sent.T), sent.T)


async def test_a_source_may_return_with_another_format_and_time_moves_forward(
    api: Api, room: RoomKeys, access_token: str
) -> None:
    first = noise(2, RATE // 2)
    second = noise(5, 44100 // 2, seed=2)
    async with api.listener(room) as listener:
        async with api.source(room, channelNames=["Left", "Right"]) as source:
            heard = asyncio.create_task(hear(listener))
            await source.play(first, rate=RATE)
            await source.say("unregisterSource")
            frames = await heard
        listener.seen.clear()
        async with api.source(room, channels=5, sampleRate=44100, frameMs=10) as source:
            again = asyncio.create_task(hear(listener))
            await source.play(second, rate=44100)
            # Another one of the same user takes over without a word of goodbye.
            path = f"/api/broadcaster/rooms/{room.id}/token"
            room.token = (await api.call("POST", path, token=access_token)).body["roomToken"]
            async with api.source(room, channels=1) as third:
                await third.play(noise(1, RATE // 2), rate=RATE)
                await third.say("unregisterSource")
                more = await again
        np.testing.assert_array_equal(joined(frames)[: first.shape[1]], first.T)
    started = {text["stream"]: text for text in listener.texts("streamStarted")}
    assert set(started) == {2, 3}
    assert (started[2]["channelCount"], started[2]["sampleRate"], started[2]["frameMs"]) == (
        5,
        44100,
        10,
    )
    by_stream = {n: [frame for frame in more if frame.stream == n] for n in (2, 3)}
    np.testing.assert_array_equal(
        joined(by_stream[2]), second.T[: sum(frame.samples for frame in by_stream[2])]
    )
    assert by_stream[3][0].channels == 1
    for stream, own in by_stream.items():
        # Told before the first frame, and the timeline never runs backwards.
        announced = listener.seen.index(started[stream])
        assert announced < next(i for i, m in enumerate(listener.seen) if m is own[0])
        assert own[0].timestamp == started[stream]["timestamp"]
        assert own[0].sequence == 0
        assert own[0].flags & 2
    ends = [frames[-1], by_stream[2][0], by_stream[2][-1], by_stream[3][0]]
    for before, after in itertools.pairwise(ends):
        assert after.timestamp >= before.timestamp
    assert by_stream[2][0].timestamp >= frames[-1].timestamp + frames[-1].samples


async def test_a_late_listener_is_told_the_format_with_its_registration(
    api: Api, room: RoomKeys
) -> None:
    async with api.listener(room) as early, api.source(room, channels=4) as source:
        playing = asyncio.create_task(source.play(noise(4, RATE * 3), rate=RATE))
        await early.frames(1)
        async with api.listener(room, burstMs=200) as late:
            answer = late.texts("listenerRegistered")[0]
            assert answer["channelCount"] == 4
            assert answer["stream"] == 1
            assert answer["timestamp"] == early.texts("streamStarted")[0]["timestamp"]
            assert answer["state"] == "active"
            frames = await late.frames(5)
            assert frames[0].timestamp >= answer["timestamp"]
            assert late.texts("streamStarted") == []
        playing.cancel()


async def test_a_mix_change_lands_at_a_frame_boundary_with_a_ramp(api: Api, room: RoomKeys) -> None:
    level = np.full((1, RATE * 4), 16384, np.int16)
    async with (
        api.listener(room, mode="mix", encoding="pcm_f32le", mix={"pans": [-1]}) as listener,
        api.source(room, channels=1) as source,
    ):
        playing = asyncio.create_task(source.play(level, rate=RATE))
        await listener.frames(5)
        for master in (0.0, 2.0, 0.5):
            await listener.say("setMix", master=master)
            assert (await listener.until("mixChanged"))["master"] == master
            await listener.frames(4)
        playing.cancel()
    messages = [
        m
        for m in listener.seen
        if isinstance(m, Frame) or (isinstance(m, dict) and m["type"] == "mixChanged")
    ]
    gain, target = 1.0, 1.0
    for message in messages:
        if isinstance(message, dict):
            target = message["master"]
            continue
        n = message.samples
        ramp = gain + (target - gain) * np.arange(n) / n
        np.testing.assert_allclose(message.data[:, 0], 0.5 * ramp, atol=1e-5)
        np.testing.assert_allclose(message.data[:, 1], 0.0, atol=1e-6)
        gain = target
    assert gain == 0.5


async def test_a_subscription_change_takes_effect_right_after_its_answer(
    api: Api, room: RoomKeys
) -> None:
    async with api.listener(room) as listener, api.source(room, channels=4) as source:
        playing = asyncio.create_task(source.play(noise(4, RATE * 4), rate=RATE))
        await listener.frames(5)
        await listener.say("subscribe", channels=[2], encoding="pcm_f32le")
        answer = await listener.until("subscribed")
        assert (answer["channels"], answer["encoding"]) == ([2], "pcm_f32le")
        await listener.frames(5)
        playing.cancel()
    at = listener.seen.index(answer)
    before = [m for m in listener.seen[:at] if isinstance(m, Frame)]
    after = [m for m in listener.seen[at:] if isinstance(m, Frame)]
    assert {(frame.channels, frame.encoding) for frame in before} == {(4, 0)}
    assert {(frame.channels, frame.encoding) for frame in after} == {(1, 1)}
    frames = before + after
    assert all(b.sequence == a.sequence + 1 for a, b in itertools.pairwise(frames))


async def test_levels_are_measured_of_every_channel(api: Api, room: RoomKeys) -> None:
    quiet_and_loud = np.stack([np.zeros(RATE), np.full(RATE, 16384)]).astype(np.int16)
    async with api.listener(room, levels=True) as listener, api.source(room) as source:
        await source.play(quiet_and_loud, rate=RATE)
        await listener.frames(40)
        levels = [m for m in listener.seen if isinstance(m, Frame) and m.kind == 3]
    assert len(levels) >= 6
    assert levels[-1].data[1] == pytest.approx([-6.02, -6.02], abs=0.01)
    assert (levels[-1].data[0] < -90).all()


async def test_a_silent_source_is_told_in_the_status_until_it_speaks_again(
    api: Api, room: RoomKeys
) -> None:
    async def status(listener: Socket, *, buffering: bool) -> None:
        message: dict[str, Any] = {}
        while (message.get("state"), message.get("buffering")) != ("active", buffering):
            message = await listener.until("roomStatus")
        assert message["hasBroadcaster"]

    async with api.listener(room) as listener, api.source(room) as source:
        for timestamp in (0, 10 * RATE):
            playing = asyncio.create_task(
                source.play(noise(2, RATE * 3 // 2), rate=RATE, timestamp=timestamp)
            )
            await status(listener, buffering=False)
            await playing
            await status(listener, buffering=True)
        report = await source.until("sourceStatus")
        assert len(report["received"]) == 2
        assert report["listenerCount"] == 1
        assert report["fillMs"] >= 0
