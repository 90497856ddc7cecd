"""JitterBuffer: what goes in by timestamp comes out in time, whatever is missing on the way."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

from relaycore import ChannelCounters, Frame, JitterBuffer
from support.jitter_rig import (
    MAX_U64,
    MS,
    NS_PER_S,
    START_NS,
    Sent,
    finish,
    heard,
    play,
    signal,
    steady,
)

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


@pytest.mark.parametrize("packet_ms", [150, 250, 300, 450])
def test_packets_that_come_seldom_fill_the_target_too(packet_ms: int) -> None:
    buffer = JitterBuffer(1, 8000, target_ms=900)
    packets = steady(rate=8000, lengths=[8 * packet_ms], duration_s=9)

    frames = play(buffer, packets)

    assert abs(buffer.fill_ms - 900) < 25
    assert not any(frame.concealed_mask for frame in frames)


@pytest.mark.parametrize("stall_ms", [100, 300, 600])
def test_a_source_that_stalls_while_it_begins_gets_its_whole_delay(stall_ms: int) -> None:
    """What is late then is caught up with, and 700 ms are late for a buffer of 1 s at no time."""

    def late(packet: Sent, begin_ms: int, ms: int) -> Sent:
        begin_ns = START_NS + begin_ms * MS
        held_up = begin_ns <= packet.arrival_ns < begin_ns + ms * MS
        arrival_ns = begin_ns + ms * MS if held_up else packet.arrival_ns
        return Sent(arrival_ns, packet.channel, packet.timestamp, packet.samples)

    buffer = JitterBuffer(2, 8000, target_ms=1000)
    packets = steady(rate=8000, lengths=[160], duration_s=6, channels=2)
    packets = [late(late(packet, 200, stall_ms), 3000, 700) for packet in packets]

    frames = play(buffer, packets)

    assert not any(frame.concealed_mask for frame in frames)
    assert [frame.index for frame in frames if frame.discontinuity] == [0]
    assert abs(buffer.fill_ms - 1000) < 250  # the mean of arrivals has moved


@pytest.mark.parametrize("late_ms", [100, 300, 700])
@pytest.mark.parametrize("target_ms", [None, 60, 400, 1000])
def test_frames_that_are_fetched_late_are_all_there_and_no_later_than_they_were(
    target_ms: float | None, late_ms: int
) -> None:
    """Nobody pops for a while, amid the buffering too; the source goes on meanwhile."""
    packets = steady(rate=8000, lengths=[160], duration_s=6, channels=2)
    on_time = JitterBuffer(2, 8000, target_ms=target_ms)
    late = JitterBuffer(2, 8000, target_ms=target_ms)
    first_ms = 100 if target_ms is None else target_ms - 50
    pauses = [(START_NS + round(ms * MS), late_ms * MS) for ms in (first_ms, 2000, 3000, 4500)]

    expected = play(on_time, packets)
    frames = play(late, packets, pauses=pauses)

    assert len(frames) == len(expected)
    for frame, other in zip(frames, expected, strict=True):
        assert np.array_equal(frame.samples, other.samples)
        assert frame.concealed_mask == 0
        assert (frame.index, frame.timestamp) == (other.index, other.timestamp)
        assert abs(frame.deadline_ns - other.deadline_ns) < 10 * MS
    assert late.counters(0) == on_time.counters(0)
    assert late.fill_ms == pytest.approx(on_time.fill_ms, abs=10)


def test_what_waited_once_does_not_cut_the_next_buffering_short() -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=9)
    late = (START_NS + 3000 * MS, 600 * MS)  # then some of it is beyond the window
    packets = [p for p in packets if not 5 <= p.timestamp / 8000 < 7]
    buffer = JitterBuffer(1, 8000, target_ms=1000)

    play(buffer, packets, pauses=[late])

    assert abs(buffer.fill_ms - 1000) < 30


def test_what_waits_for_late_frames_is_played_though_nothing_follows() -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=3)
    last_ns = packets[-1].arrival_ns
    buffer = JitterBuffer(1, 8000, target_ms=1000)

    frames = play(buffer, packets, pauses=[(last_ns - 700 * MS, 700 * MS + 1)])
    buffer.finish()
    while not buffer.ended:  # all at once, as late as it is
        frame = buffer.pop(max(last_ns + 1, buffer.next_deadline_ns))
        if frame is not None:
            frames.append(frame)

    assert np.array_equal(heard(frames), signal(0, 3 * 8000))
    assert buffer.counters(0) == ChannelCounters(3 * 8000, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("packet_ms", [20, 295])
@pytest.mark.parametrize("begin_ms", [300, 450, 600])
@pytest.mark.parametrize("target_ms", [400, 1000])
def test_what_came_while_nobody_listened_is_read_bit_by_bit(
    target_ms: int, begin_ms: int, packet_ms: int
) -> None:
    """A thread that stood still amid the buffering, and then reads a packet every 4 ms."""
    length_ms = target_ms - 50
    begin_ns, end_ns = START_NS + begin_ms * MS, START_NS + (begin_ms + length_ms) * MS
    packets = steady(rate=8000, lengths=[8 * packet_ms], duration_s=4, channels=2)
    waiting = [packet for packet in packets if packet.arrival_ns >= begin_ns]
    read = [packet for packet in packets if packet.arrival_ns < begin_ns] + [
        Sent(max(packet.arrival_ns, end_ns + 4 * i * MS), 0, packet.timestamp, packet.samples)
        for i, packet in enumerate(waiting)
    ]
    buffer = JitterBuffer(2, 8000, target_ms=target_ms)

    frames = play(buffer, read, pauses=[(begin_ns, length_ms * MS)])

    assert not any(frame.concealed_mask for frame in frames)
    played = np.concatenate([frame.samples[0] for frame in frames])
    assert np.array_equal(played, signal(0, len(played)))
    first_ns = frames[0].deadline_ns
    assert abs(first_ns - (START_NS + target_ms * MS)) < 100 * MS


def test_a_packet_far_ahead_holds_nothing_up_that_comes_behind_it() -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=4)
    pause = (START_NS + 1500 * MS, 700 * MS)
    stray = Sent(pause[0] + 1, 0, packets[0].timestamp + 3 * 8000, signal(0, 160))
    buffer = JitterBuffer(1, 8000, target_ms=100)

    frames = play(buffer, [*packets, stray], pauses=[pause])

    assert not any(frame.concealed_mask for frame in frames)
    assert buffer.counters(0).dropped == 160


@pytest.mark.parametrize("target_ms", [None, 10, 400, 1000])
def test_without_a_packet_for_2_s_a_stream_is_buffering(target_ms: float | None) -> None:
    packets = steady(rate=8000, lengths=[160], duration_s=3)
    buffer = JitterBuffer(1, 8000, target_ms=target_ms)

    played = play(buffer, packets)
    after = play(buffer, [], until_ns=packets[-1].arrival_ns + 2 * NS_PER_S)

    assert not any(frame.concealed_mask for frame in played)
    assert sum(bool(frame.concealed_mask) for frame in after) == 10  # 200 ms
    assert buffer.state == "buffering"


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
