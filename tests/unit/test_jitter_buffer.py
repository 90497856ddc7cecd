"""JitterBuffer: what goes in by timestamp comes out in time, whatever happens on the way."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaycore import ChannelCounters, Frame, JitterBuffer
from support.jitter_rig import (
    NS_PER_S,
    START_NS,
    ComparedRun,
    Sent,
    disturb,
    finish,
    play,
    signal,
    steady,
)

MS = 1_000_000
MAX_U64 = 2**64 - 1


def heard(frames: list[Frame], channel: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """All samples of one channel, one frame after another."""
    return np.concatenate([frame.samples[channel] for frame in frames])


# ---- a source on time ----


@pytest.mark.parametrize("frame_ms", [5, 10, 20, 40, 60])
@pytest.mark.parametrize(
    ("rate", "lengths"),
    [
        (8000, [160]),
        (44100, [441]),
        (48000, [960]),
        (48000, [4096]),
        (96000, [4096, 1]),
        (16000, [16000]),
        (48000, [127, 1, 441, 1, 1, 960, 4096, 1]),
        (44100, [*[127, 1] * 300, 4096]),
    ],
)
@pytest.mark.parametrize("target_ms", [None, 10])
def test_a_source_on_time_is_played_bit_exact(
    frame_ms: int, rate: int, lengths: list[int], target_ms: float | None
) -> None:
    if target_ms is not None and len(lengths) > 2:
        target_ms = 170  # a fixed target can't foresee longer packets
    buffer = JitterBuffer(2, rate, frame_ms=frame_ms, target_ms=target_ms, origin=77)
    packets = steady(rate=rate, lengths=lengths, duration_s=3, channels=2, timestamp=MAX_U64 - 999)
    total = sum(packet.samples.shape[1] for packet in packets)

    frames = play(buffer, packets) + finish(buffer)

    for channel in range(2):
        sound = heard(frames, channel)
        np.testing.assert_array_equal(sound[:total], signal(MAX_U64 - 999, total, channel))
        assert not sound[total:].any()
        assert len(sound) - total < buffer.max_frame_samples
        assert buffer.counters(channel) == ChannelCounters(total, 0, 0, 0, 0, 0)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert [frame.discontinuity for frame in frames] == [True] + [False] * (len(frames) - 1)
    assert not any(frame.concealed_mask for frame in frames)


def test_one_channel_per_packet_is_the_same_as_all_in_one() -> None:
    together = steady(rate=48000, lengths=[480], duration_s=1, channels=4)
    apart = [
        Sent(packet.arrival_ns, channel, packet.timestamp, packet.samples[channel])
        for packet in together
        for channel in range(4)
    ]
    sounds = []
    for packets in (together, apart):
        buffer = JitterBuffer(4, 48000)
        sounds.append(np.hstack([f.samples for f in play(buffer, packets) + finish(buffer)]))

    np.testing.assert_array_equal(sounds[0], sounds[1])


@pytest.mark.parametrize("frame_ms", [5, 10, 20, 40, 60])
@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 88200, 96000])
def test_frame_n_covers_exact_samples(rate: int, frame_ms: int) -> None:
    buffer = JitterBuffer(1, rate, frame_ms=frame_ms, target_ms=100, origin=10**12)
    frames = play(buffer, steady(rate=rate, lengths=[rate // 20], duration_s=2)) + finish(buffer)

    assert len(frames) > 30
    for n, frame in enumerate(frames):
        begin, end = (k * rate * frame_ms // 1000 for k in (n, n + 1))
        assert (frame.index, frame.timestamp) == (n, 10**12 + begin)
        assert frame.samples.shape == (1, end - begin)
        assert frame.samples.shape[1] <= buffer.max_frame_samples
    assert buffer.end_timestamp == 10**12 + end


def test_44100_hz_in_5_ms_frames_alternates() -> None:
    buffer = JitterBuffer(1, 44100, frame_ms=5, target_ms=50)
    frames = play(buffer, steady(rate=44100, lengths=[441], duration_s=0.5))

    assert [frame.samples.shape[1] for frame in frames[:6]] == [220, 221, 220, 221, 220, 221]


def test_int16_and_float32_packets_sound_the_same() -> None:
    pcm = np.arange(-480, 480, dtype=np.int16) * 30
    buffer = JitterBuffer(2, 48000, target_ms=20)
    assert buffer.push(0, 0, pcm, START_NS)
    assert buffer.push(1, 0, pcm.astype(np.float32) / 32768, START_NS)
    buffer.finish()

    frame = buffer.pop(START_NS)

    assert frame is not None
    np.testing.assert_array_equal(frame.samples[0], pcm / 32768)
    np.testing.assert_array_equal(frame.samples[1], pcm / 32768)


# ---- against the model ----

HOSTILE = [0, 1, 2**32 - 500, 2**63 - 77, 2**63, 2**64 - 1000]


@given(
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([8000, 8000, 8000, 11025]),
    frame_ms=st.sampled_from([5, 10, 20, 40, 60]),
    channels=st.integers(1, 2),
    lengths=st.lists(st.sampled_from([1, 7, 40, 127, 160, 441, 800]), min_size=1, max_size=4),
    target_ms=st.sampled_from([None, 10, 60, 120, 400]),
    timestamp=st.sampled_from(HOSTILE) | st.integers(0, MAX_U64),
    delay_ms=st.sampled_from([0, 5, 40, 80, 150, 300]),
    loss=st.sampled_from([0, 0.01, 0.1, 0.3]),
    twice=st.sampled_from([0, 0.01, 0.2]),
    stall_ms=st.sampled_from([0, 0, 5, 50, 400]),
    trouble=st.sampled_from(["none", "none", "jump", "hole", "hostile", "overlap", "split"]),
    to_the_end=st.booleans(),
)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_schedule_agrees_with_the_model(
    seed: int,
    rate: int,
    frame_ms: int,
    channels: int,
    lengths: list[int],
    target_ms: float | None,
    timestamp: int,
    delay_ms: float,
    loss: float,
    twice: float,
    stall_ms: float,
    trouble: str,
    to_the_end: bool,
) -> None:
    rng = random.Random(seed)
    if sum(lengths) < 30 * len(lengths):
        lengths = [*lengths, 160]
    packets = steady(
        rate=rate, lengths=lengths, duration_s=0.4, channels=channels, timestamp=timestamp
    )
    packets = TROUBLES[trouble](packets, rng, rate)
    packets = disturb(packets, rng, delay_ms=delay_ms, loss=loss, twice=twice)
    run = ComparedRun(channels=channels, rate=rate, frame_ms=frame_ms, target_ms=target_ms)
    run.run(packets, rng, stall_ms=stall_ms)
    if to_the_end:
        run.finish()


def moved(packet: Sent, by: int) -> Sent:
    timestamp = (packet.timestamp + by) % 2**64
    return Sent(packet.arrival_ns, packet.channel, timestamp, packet.samples)


def jump(packets: list[Sent], rng: random.Random, rate: int) -> list[Sent]:
    """The source's clock jumps, once."""
    by = rng.choice(
        [2**63, -1000, 3600 * rate, -3600 * rate, rate // 4, -rate // 4, rate, 2 * rate]
    )
    half = len(packets) // 2
    return packets[:half] + [moved(packet, by) for packet in packets[half:]]


def hole(packets: list[Sent], rng: random.Random, rate: int) -> list[Sent]:
    """Nothing is sent for a while, or everything comes later from then on."""
    begin = START_NS + rng.randrange(50, 200) * MS
    length = rng.randrange(400) * MS
    if rng.random() < 0.5:
        return [p for p in packets if not begin <= p.arrival_ns < begin + length]
    return [
        Sent(p.arrival_ns + length * (p.arrival_ns >= begin), p.channel, p.timestamp, p.samples)
        for p in packets
    ]


def hostile(packets: list[Sent], rng: random.Random, rate: int) -> list[Sent]:
    """Some timestamps are anything at all."""
    return [moved(p, rng.randrange(2**64)) if rng.random() < 0.1 else p for p in packets]


def overlap(packets: list[Sent], rng: random.Random, rate: int) -> list[Sent]:
    """Packets begin before the last one ended."""
    return [moved(packet, -rng.randrange(50)) for packet in packets]


def split(packets: list[Sent], rng: random.Random, rate: int) -> list[Sent]:
    """One channel per packet, and one of them begins late or ends early."""
    out = [
        Sent(packet.arrival_ns, channel, packet.timestamp, packet.samples[channel])
        for packet in packets
        for channel in range(len(packet.samples))
    ]
    cut = rng.randrange(len(out))
    keep_end = rng.random() < 0.5
    return [p for i, p in enumerate(out) if p.channel == 0 or (i >= cut) == keep_end]


TROUBLES: dict[str, Callable[[list[Sent], random.Random, int], list[Sent]]] = {
    "none": lambda packets, rng, rate: packets,
    "jump": jump,
    "hole": hole,
    "hostile": hostile,
    "overlap": overlap,
    "split": split,
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("target_ms", [None, 150])
def test_a_bad_network(seed: int, target_ms: float | None) -> None:
    """Delays to 80 ms, reordering to 40 ms, 1 % twice, 1 % lost: a frame every tick, in order.

    Counters and audio are compared with the model at every tick.
    """
    rng = random.Random(seed)
    packets = steady(rate=8000, lengths=[80], duration_s=4, channels=2, timestamp=2**64 - 12345)
    packets = disturb(packets, rng, delay_ms=80, reorder_ms=40, loss=0.01, twice=0.01)
    run = ComparedRun(channels=2, rate=8000, frame_ms=20, target_ms=target_ms)

    run.run(packets, rng)

    run.finish()
    assert [frame.index for frame in run.frames] == list(range(len(run.frames)))
    assert not any(frame.discontinuity for frame in run.frames[1:])
    assert len(run.frames) >= 198
    for channel in range(2):
        counters = run.buffer.counters(channel)
        pushed = sum(packet.samples.shape[1] for packet in packets)
        assert pushed == (counters.received + counters.duplicate + counters.late + counters.dropped)
        assert counters.dropped == 0
        assert counters.lost <= counters.concealed
        if target_ms is not None:  # enough for every delay: only what was lost is missing
            assert counters.concealed == counters.lost
            assert counters.received + counters.lost == 4 * 8000


# ---- gaps ----


def test_lost_packets_whose_successors_are_there_leave_the_rest_bit_exact() -> None:
    packets = steady(rate=48000, lengths=[960], duration_s=2)
    gone = {10, 11, 40, 77}
    buffer = JitterBuffer(1, 48000, target_ms=80)

    frames = play(buffer, [p for i, p in enumerate(packets) if i not in gone]) + finish(buffer)

    sound = heard(frames)
    for i, packet in enumerate(packets):
        if i not in gone:
            np.testing.assert_array_equal(sound[i * 960 : (i + 1) * 960], packet.samples[0])
    assert buffer.counters(0) == ChannelCounters(96 * 960, 0, 0, 4 * 960, 4 * 960, 0)
    assert {frame.index for frame in frames if frame.concealed_mask} == gone


def test_a_packet_that_comes_late_is_not_lost() -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=2)
    late = packets.pop(30)
    buffer = JitterBuffer(1, 8000, target_ms=60)

    play(buffer, packets[:45])
    assert buffer.counters(0)[3:5] == (160, 160)  # lost, concealed
    buffer.push(0, late.timestamp, late.samples, packets[45].arrival_ns)
    play(buffer, packets[45:])
    counters = buffer.counters(0)

    assert (counters.late, counters.lost, counters.concealed) == (160, 0, 160)


def test_a_packet_over_the_played_edge_is_placed_in_part() -> None:
    buffer = JitterBuffer(1, 8000, target_ms=20)
    assert buffer.push(0, 0, signal(0, 160), START_NS)
    assert buffer.push(0, 160, signal(160, 160), START_NS)
    assert buffer.pop(START_NS) is not None  # plays 0 to 160
    assert buffer.push(0, 100, signal(100, 400), START_NS)
    buffer.pop(START_NS)

    counters = buffer.counters(0)
    assert counters == ChannelCounters(320 + 180, 160, 60, 0, 0, 0)


def test_a_channel_that_never_spoke_holds_nothing_up_and_is_silent() -> None:
    buffer = JitterBuffer(3, 8000, target_ms=60)
    frames = play(buffer, steady(rate=8000, lengths=[160], duration_s=1)) + finish(buffer)

    assert len(frames) == 50
    for frame in frames:
        assert frame.concealed_mask == 0
        assert not frame.samples[1:].any()
    assert buffer.counters(1) == ChannelCounters(0, 0, 0, 0, 0, 0)


def test_a_channel_that_falls_silent_is_concealed_for_200_ms() -> None:
    both = steady(rate=8000, lengths=[160], duration_s=2, channels=2)
    packets = [
        packet
        if i < 40 or i >= 70
        else Sent(packet.arrival_ns, 0, packet.timestamp, packet.samples[:1])
        for i, packet in enumerate(both)
    ]
    buffer = JitterBuffer(2, 8000, target_ms=60)

    frames = play(buffer, packets) + finish(buffer)

    assert buffer.counters(0) == ChannelCounters(16000, 0, 0, 0, 0, 0)
    assert buffer.counters(1) == ChannelCounters(70 * 160, 0, 0, 1600, 1600, 0)
    assert not any(frame.concealed_mask & 1 for frame in frames)
    assert not any(frame.discontinuity for frame in frames[1:])
    # 200 ms flagged; then silence until just before it speaks again.
    assert [frame.index for frame in frames if frame.concealed_mask & 2] == [*range(40, 50), 69]
    np.testing.assert_array_equal(heard(frames, 1)[70 * 160 :], signal(70 * 160, 30 * 160, 1))


def test_silence_of_all_channels_goes_back_to_buffering_and_on() -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=4)
    packets = [p for p in packets if not 1 <= p.timestamp / 8000 < 2.5]
    buffer = JitterBuffer(1, 8000, target_ms=60, origin=5000)

    frames = play(buffer, packets)

    silent = [i for i, frame in enumerate(frames) if frame.discontinuity]
    assert silent == [0, 60]  # 1 s of sound, 200 ms concealed, then nothing
    assert frames[59].timestamp == 5000 + 59 * 160
    # The timeline went on as the source's clock did, and what comes is what was sent.
    assert frames[60].timestamp == 5000 + int(2.5 * 8000)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    np.testing.assert_array_equal(heard(frames[61:]), signal(20160, 160 * (len(frames) - 61)))


def test_a_short_word_is_played_though_it_never_fills_the_target() -> None:
    buffer = JitterBuffer(1, 8000, target_ms=400)
    word = Sent(START_NS, 0, 1000, signal(1000, 800))

    frames = play(buffer, [word], until_ns=START_NS + NS_PER_S)

    assert np.array_equal(heard(frames)[:800], word.samples)
    assert buffer.state == "buffering"


@pytest.mark.parametrize("frequency", [50, 110, 440, 1000, 3000])
@pytest.mark.parametrize("trouble", ["one lost", "five lost", "underrun", "silence"])
def test_concealment_does_not_click(frequency: float, trouble: str) -> None:
    """A click is energy far above the tone: there must be next to none in any short window."""
    rate = 48000
    at = np.arange(2 * rate)
    tone = (0.5 * np.sin(2 * np.pi * frequency * at / rate + 1)).astype(np.float32)
    packets = [
        Sent(START_NS + (i + 960) * NS_PER_S // rate, 0, i, tone[i : i + 960])
        for i in range(0, len(tone), 960)
    ]
    if trouble == "one lost":
        del packets[40]
    elif trouble == "five lost":
        del packets[40:45]
    elif trouble == "silence":
        del packets[40:60]
    else:  # six packets come together, 100 ms after the first was due
        for i in range(40, 46):
            packets[i] = Sent(packets[46].arrival_ns, 0, packets[i].timestamp, packets[i].samples)
    buffer = JitterBuffer(1, rate, target_ms=60)

    frames = play(buffer, packets)

    assert any(frame.concealed_mask for frame in frames)
    sound = heard(frames)
    hard = sound.copy()
    peak = 20000 + int(np.abs(sound[20000:20960]).argmax())
    hard[peak : peak + 960] = 0
    assert treble_db(hard) > -35  # a hole without care
    assert treble_db(sound) < -85
    assert np.abs(sound).max() < 0.55


def treble_db(sound: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Level above 8 kHz in the loudest window of 5 ms, in dB of full scale."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, 256)[::64]
    spectra = np.abs(np.fft.rfft(windows * np.hanning(256), axis=1))[:, 43:]
    return 20 * math.log10(float(np.sqrt((spectra**2).sum(axis=1)).max()) / 64 + 1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_samples_that_are_no_audio_are_not_carried_into_concealment(bad: float) -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=1)
    packets[20].samples[0, 100] = bad
    del packets[21]
    buffer = JitterBuffer(1, 8000, target_ms=60)

    frames = play(buffer, packets)

    assert np.abs(frames[21].samples).max() <= 1


# ---- clocks ----


@pytest.mark.parametrize("by_s", [3600, -3600, 0.25, -0.25, 5, 2**63 / 8000, -0.05])
def test_after_a_jump_of_its_clock_the_source_is_heard_again(by_s: float) -> None:
    before = steady(rate=8000, lengths=[160], duration_s=1, timestamp=2**40)
    after = [
        moved(packet, int(by_s * 8000))
        for packet in steady(rate=8000, lengths=[160], duration_s=3, timestamp=2**40)[50:]
    ]
    buffer = JitterBuffer(1, 8000, target_ms=60, origin=10**6)

    frames = play(buffer, before + after)

    counters = buffer.counters(0)
    # What was held is played, then at most 200 ms pass before the new position is believed and
    # the target is filled anew.
    assert counters.received >= 24000 - 0.5 * 8000
    assert buffer.state == "live"
    assert all(a.timestamp < b.timestamp for a, b in itertools.pairwise(frames))
    assert frames[-1].timestamp - 10**6 < 10 * 8000
    assert [frame.index for frame in frames] == list(range(len(frames)))
    # Its latest audio is heard, not far behind its newest.
    newest = np.concatenate([packet.samples[0] for packet in after[-16:]]).tobytes()
    assert frames[-1].samples[0].tobytes() in newest


@pytest.mark.parametrize("by_ms", [50, 130])
def test_a_longer_way_costs_one_interruption(by_ms: int) -> None:
    """All packets come later from now on: the delay grows, and nothing stutters after that."""
    packets = steady(rate=8000, lengths=[160], duration_s=4)
    later = [Sent(p.arrival_ns + by_ms * MS, 0, p.timestamp, p.samples) for p in packets[50:]]
    buffer = JitterBuffer(1, 8000, target_ms=60)

    frames = play(buffer, packets[:50] + later)

    assert [frame.discontinuity for frame in frames].count(True) == 2
    again = next(i for i, frame in enumerate(frames) if i and frame.discontinuity)
    assert 45 < again < 75
    assert not any(frame.concealed_mask for frame in frames[again + 1 :])
    assert buffer.counters(0).received >= 32000 - 0.3 * 8000


@given(
    timestamps=st.lists(st.integers(0, MAX_U64), min_size=1, max_size=60),
    channel_count=st.sampled_from([1, 64]),
    n=st.sampled_from([1, 160, 8000]),
)
@settings(max_examples=50, deadline=None)
def test_no_timestamp_is_too_hostile(timestamps: list[int], channel_count: int, n: int) -> None:
    buffer = JitterBuffer(channel_count, 8000)
    for i, timestamp in enumerate(timestamps):
        now = START_NS + 20 * MS * i
        buffer.push(i % channel_count, timestamp, signal(timestamp, n), now)
        buffer.pop(now)

    finish(buffer)

    pushed = np.sum([buffer.counters(c) for c in range(channel_count)], axis=0)
    received, duplicate, late, lost, concealed, dropped = pushed
    assert received + duplicate + late + dropped == n * len(timestamps)
    assert lost <= concealed


def simulate(
    *,
    hours: float,
    drift: Callable[[float], float],
    jitter_ms: float = 0,
    target_ms: float | None = None,
    frame_ms: int = 60,
    settled_s: float = 600,
) -> float:
    """Play a source whose clock runs `1 + drift(seconds)` times as fast as ours.

    Nothing may be concealed, dropped or invented. Returns how far the fill was from the target at
    worst, in ms, once settled.
    """
    rng = random.Random(1)
    buffer = JitterBuffer(1, 8000, frame_ms=frame_ms, target_ms=target_ms)
    n = 8 * frame_ms
    samples = np.ones(n, np.int16)
    out = np.empty((1, n), np.float32)
    push, pop = buffer.push, buffer.pop
    packets = int(hours * 3600 * 1000 / frame_ms)
    settled = int(settled_s * 1000 / frame_ms)
    period_ns = frame_ms * MS
    time_ns = float(START_NS)
    deadline = START_NS
    frames = 0
    worst = 0.0
    for k in range(packets):
        time_ns += period_ns / (1 + drift(k * frame_ms / 1000))
        arrival = int(time_ns + rng.random() * jitter_ms * MS)
        while deadline <= arrival:
            if pop(deadline, out) is not None:
                frames += 1
            deadline = buffer.next_deadline_ns
        push(0, k * n, samples, arrival)
        if k > settled and k % 100 == 0:
            worst = max(worst, abs(buffer.fill_ms - buffer.target_ms))
    pop(deadline, out)
    received, *others = buffer.counters(0)
    assert received == packets * n
    assert others == [0] * 5
    held_ms = (packets - frames) * frame_ms
    assert abs(held_ms - buffer.target_ms) <= 3 * frame_ms
    return worst


@pytest.mark.parametrize("ppm", [200, -200])
@pytest.mark.parametrize(("frame_ms", "target_ms"), [(20, None), (5, 30)])
def test_a_clock_that_is_off_moves_the_delay_by_less_than_a_frame(
    ppm: float, frame_ms: int, target_ms: float | None
) -> None:
    worst = simulate(
        hours=0.4,
        drift=lambda t: ppm * 1e-6,
        jitter_ms=2,
        frame_ms=frame_ms,
        target_ms=target_ms,
        settled_s=0.1,
    )
    assert worst < frame_ms


@pytest.mark.timeout(180)
def test_a_day_with_a_wandering_clock() -> None:
    worst = simulate(
        hours=24, drift=lambda t: 200e-6 * math.sin(2 * math.pi * t / 7200), jitter_ms=5
    )
    assert worst < 5


def test_the_drift_is_told() -> None:
    buffer = JitterBuffer(1, 8000, target_ms=100)
    for k in range(30_000):
        arrival = START_NS + int(k * 20 * MS / (1 + 150e-6))
        buffer.push(0, k * 160, np.zeros(160, np.int16), arrival)
        buffer.pop(max(arrival, buffer.next_deadline_ns))

    assert buffer.drift_ppm == pytest.approx(150, abs=2)
    assert buffer.fill_ms == pytest.approx(buffer.target_ms, abs=1)


def test_the_target_follows_how_late_packets_come() -> None:
    rng = random.Random(1)
    buffer = JitterBuffer(1, 8000)
    calm = steady(rate=8000, lengths=[160], duration_s=200)
    play(buffer, calm)
    calm_target = buffer.target_ms
    assert calm_target < 60  # a packet, a frame and little more
    assert buffer.jitter_ms < 1

    start = calm[-1].arrival_ns
    rough = steady(rate=8000, lengths=[160], duration_s=20, timestamp=200 * 8000, start_ns=start)
    play(buffer, disturb(rough, rng, delay_ms=80))

    assert buffer.jitter_ms > 30
    assert buffer.target_ms > calm_target + 30


def test_after_a_pause_of_the_caller_each_pop_gives_one_frame_that_is_due() -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=2)
    buffer = JitterBuffer(1, 8000, target_ms=60)
    play(buffer, packets[:50])
    for packet in packets[50:75]:
        buffer.push(0, packet.timestamp, packet.samples, packet.arrival_ns)
    now = packets[74].arrival_ns

    frames = []
    while (frame := buffer.pop(now)) is not None:
        frames.append(frame)

    assert len(frames) == pytest.approx(25, abs=1)
    deadlines = [frame.deadline_ns for frame in frames]
    assert np.diff(deadlines) == pytest.approx(20 * MS, rel=0.002)
    assert now - 21 * MS < deadlines[-1] <= now
    assert not any(frame.concealed_mask for frame in frames)


# ---- its interface ----


def test_finish_plays_the_rest_and_pads_the_last_frame() -> None:
    buffer = JitterBuffer(1, 8000, target_ms=500)
    buffer.push(0, 0, signal(0, 200), START_NS)
    assert buffer.pop(START_NS) is None
    buffer.finish()

    frames = finish(buffer)

    np.testing.assert_array_equal(heard(frames)[:200], signal(0, 200))
    assert not heard(frames)[200:].any()
    assert len(frames) == 2
    assert buffer.counters(0) == ChannelCounters(200, 0, 0, 0, 0, 0)
    assert buffer.next_deadline_ns == 2**63 - 1
    assert buffer.pop(START_NS + NS_PER_S) is None
    with pytest.raises(RuntimeError, match="after finish"):
        buffer.push(0, 200, signal(200, 10))


def test_finish_of_an_empty_buffer_ends_it() -> None:
    buffer = JitterBuffer(1, 8000)
    buffer.finish()
    assert not buffer.ended
    assert buffer.pop() is None
    assert buffer.ended


def test_push_says_when_there_is_no_room() -> None:
    buffer = JitterBuffer(2, 8000)
    second = np.zeros((2, 8000), np.float32)
    pushed = 0
    while buffer.push(0, 8000 * pushed, second):
        pushed += 1
        assert pushed < 10
    assert pushed >= 1
    buffer.pop(START_NS)
    assert buffer.push(0, 8000 * pushed, second)
    buffer.pop(START_NS)
    for channel in range(2):
        counters = buffer.counters(channel)
        assert counters.received + counters.dropped == (pushed + 1) * 8000


def test_frames_go_into_the_callers_array() -> None:
    buffer = JitterBuffer(2, 44100, frame_ms=5, target_ms=20)
    out = np.full((2, 300), 9, np.float32)
    assert buffer.push(0, 0, np.ones((2, 2000), np.float32), START_NS - 10 * MS)

    frame = buffer.pop(START_NS, out)

    assert frame is not None
    assert np.shares_memory(frame.samples, out)
    assert frame.samples.shape == (2, 220)
    assert (out[:, :220] == 1).all()
    assert (out[:, 221:] == 9).all()


def test_the_clock_is_monotonic_time_by_default() -> None:
    buffer = JitterBuffer(1, 8000, target_ms=10)
    buffer.push(0, 0, np.ones(80, np.float32))
    buffer.push(0, 80, np.ones(800, np.float32))
    buffer.finish()
    frame = buffer.pop()
    assert frame is not None
    assert frame.samples.all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 0},
        {"channels": 65},
        {"sample_rate": 7999},
        {"sample_rate": 96001},
        {"frame_ms": 30},
        {"target_ms": 0},
        {"target_ms": -1},
        {"target_ms": 1001},
        {"target_ms": math.nan},
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    good: dict[str, Any] = {"channels": 1, "sample_rate": 48000}
    with pytest.raises(ValueError, match=next(iter(arguments))):
        JitterBuffer(**(good | arguments))


def test_misuse_of_push_raises() -> None:
    buffer = JitterBuffer(2, 8000)
    good = np.zeros(10, np.float32)
    for channel in (-1, 2):
        with pytest.raises(ValueError, match="channel"):
            buffer.push(channel, 0, good)
    with pytest.raises(ValueError, match="channel"):
        buffer.push(1, 0, np.zeros((2, 10), np.float32))
    with pytest.raises(ValueError, match="at most one second"):
        buffer.push(0, 0, np.zeros(8001, np.float32))
    with pytest.raises(ValueError, match="shape"):
        buffer.push(0, 0, np.zeros((1, 1, 10), np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        buffer.push(0, 0, np.zeros(20, np.float32)[::2])
    with pytest.raises(TypeError, match="float32 or int16"):
        buffer.push(0, 0, np.zeros(10, np.float64))
    with pytest.raises(TypeError, match="list"):
        buffer.push(0, 0, [0.0])  # type: ignore[arg-type]
    for timestamp in (-1, 2**64):
        with pytest.raises(OverflowError):
            buffer.push(0, timestamp, good)
    assert buffer.push(0, 0, good[:0])
    buffer.pop(0)
    assert buffer.counters(0) == (0,) * 6


def test_misuse_of_pop_raises() -> None:
    buffer = JitterBuffer(2, 8000)
    for shape in ((2, 159), (1, 160), (320,)):
        with pytest.raises(ValueError, match="out: expected"):
            buffer.pop(0, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="out: expected"):
        buffer.pop(0, np.zeros((2, 160), np.int16))
    frozen = np.zeros((2, 160), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out"):
        buffer.pop(0, frozen)
    with pytest.raises(ValueError, match="now_ns"):
        buffer.pop(2**63 - 1)
    for channel in (-1, 2):
        with pytest.raises(ValueError, match="channel"):
            buffer.counters(channel)
    with pytest.raises(TypeError):
        Frame()


def test_one_thread_pushes_and_another_pops() -> None:
    """Whatever the scheduling, every sample is counted once and nothing is torn."""
    channels, packets, n = 4, 3000, 160
    buffer = JitterBuffer(channels, 8000, target_ms=100)
    failures: list[BaseException] = []
    pushed = 0

    def push_all() -> None:
        nonlocal pushed
        try:
            for k in range(packets):
                planes = np.stack([signal(k * n, n, c) for c in range(channels)])
                # Full means that the other thread did not pop for a while: the packet is lost.
                pushed += buffer.push(0, k * n, planes, START_NS + k * 20 * MS)
            buffer.finish()
        except BaseException as error:
            failures.append(error)

    pusher = threading.Thread(target=push_all)
    pusher.start()
    now = START_NS
    played = 0
    while not buffer.ended:
        frame = buffer.pop(now)
        if frame is None:
            now = max(now, min(buffer.next_deadline_ns, now + 20 * MS))
            continue
        played += 1
        assert np.abs(frame.samples).max() <= 3
        stats = buffer.counters(0)
        assert stats.lost <= stats.concealed
    pusher.join()

    assert not failures
    assert played > 0
    for channel in range(channels):
        received, duplicate, late, _, _, dropped = buffer.counters(channel)
        assert received + duplicate + late + dropped == pushed * n
