"""JitterBuffer and time: drift, jumps, late packets, stalls of the caller."""

from __future__ import annotations

import itertools
import math
import random
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaycore import JitterBuffer
from support.jitter_rig import (
    MAX_U64,
    MS,
    START_NS,
    Sent,
    disturb,
    finish,
    heard,
    moved,
    play,
    signal,
    steady,
)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Whoever asks for 64 MiB at once, or in the end, gets nothing."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    "by_s", [3600, -3600, 0.25, -0.25, 5, 2**63 / 8000, -(2**62) / 8000, -0.05]
)
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


@pytest.mark.parametrize("spread_ms", [0, 200])
@pytest.mark.parametrize("stall_ms", [600, 900, 1100])
def test_what_was_held_up_does_not_lengthen_a_fixed_delay(stall_ms: int, spread_ms: int) -> None:
    """A link that stood still delivers what it kept, at once or as fast as it can."""
    packets = []
    for packet in steady(rate=8000, lengths=[80], duration_s=12):
        after_ms = (packet.arrival_ns - START_NS) / MS - 2000
        if 0 <= after_ms < stall_ms + spread_ms:
            held_up_ms = max(after_ms, stall_ms + spread_ms * after_ms / (stall_ms + spread_ms))
            arrival = packet.arrival_ns + int((held_up_ms - after_ms) * MS)
            packets.append(Sent(arrival, 0, packet.timestamp, packet.samples))
        else:
            packets.append(packet)
    buffer = JitterBuffer(1, 8000, target_ms=100)

    frames = play(buffer, packets)

    assert abs(buffer.fill_ms - 100) < 25
    breaks = [frame.discontinuity for frame in frames].count(True)
    assert breaks <= 3
    assert not any(frame.concealed_mask for frame in frames[-50:])
    assert all(a.timestamp < b.timestamp for a, b in itertools.pairwise(frames))
    # Each moment of the source but those of the stall, and what came too late to be worth it.
    assert len(frames) * 20 >= 12_000 - 2 * stall_ms - 800
    # What was received is what is heard, and what was passed over was late; but for the rest of the
    # last frame before each break everything is counted.
    played = 160 * len(frames + finish(buffer))
    counters = buffer.counters(0)
    assert counters.received + counters.late == sum(packet.samples.size for packet in packets)
    assert counters.late > 0
    assert 0 <= played - counters.received - counters.concealed <= 160 * breaks


@pytest.mark.parametrize("slower_ms", [300, 600, 1200])
def test_a_link_that_becomes_slower_interrupts_a_fixed_delay_once(slower_ms: int) -> None:
    """Nothing too much is held then, whatever it looks like by the earlier packets."""
    packets = [
        Sent(p.arrival_ns + (slower_ms * MS if i >= 500 else 0), 0, p.timestamp, p.samples)
        for i, p in enumerate(steady(rate=8000, lengths=[80], duration_s=25))
    ]
    buffer = JitterBuffer(1, 8000, target_ms=100)

    frames = play(buffer, packets)

    assert [frame.discontinuity for frame in frames].count(True) == 2
    assert abs(buffer.fill_ms - 100) < 25


def test_a_source_that_begins_with_a_second_at_once_is_played_from_its_beginning() -> None:
    packets = [
        Sent(max(packet.arrival_ns, START_NS + 1000 * MS), 0, packet.timestamp, packet.samples)
        for packet in steady(rate=8000, lengths=[80], duration_s=3)
    ]
    buffer = JitterBuffer(1, 8000, target_ms=100)

    frames = play(buffer, packets) + finish(buffer)

    assert not any(frame.concealed_mask for frame in frames)
    sent = np.concatenate([packet.samples[0] for packet in packets])
    np.testing.assert_array_equal(heard(frames)[: len(sent)], sent)


@pytest.mark.parametrize("stall_ms", [150, 300])
def test_packets_that_are_held_up_again_and_again_cost_two_interruptions(stall_ms: int) -> None:
    """As a radio network does it: all stands for a moment, then comes at once, every 2 s.

    The first time shows what is needed; the next time the delay grows to that.
    """
    packets = []
    for packet in steady(rate=8000, lengths=[160], duration_s=401):
        after_ms = (packet.arrival_ns - START_NS) // MS
        held_up = max(0, stall_ms - after_ms % 2000) if after_ms > 300_000 else 0
        packets.append(Sent(packet.arrival_ns + held_up * MS, 0, packet.timestamp, packet.samples))
    buffer = JitterBuffer(1, 8000)

    frames = play(buffer, packets)

    at_s = [frame.timestamp / 8000 for frame in frames if frame.concealed_mask]
    assert 299 < min(at_s) <= max(at_s) < 303
    breaks = [frame for frame in frames[1:] if frame.discontinuity]
    assert 1 <= len(breaks) <= 2
    # And not more than that.
    assert stall_ms < buffer.fill_ms < stall_ms + 60


@pytest.mark.usefixtures("little_memory")
@given(
    timestamps=st.lists(st.integers(0, MAX_U64), min_size=1, max_size=60),
    channel_count=st.sampled_from([1, 64]),
    n=st.sampled_from([1, 160, 8000]),
)
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_timestamp_is_too_hostile(timestamps: list[int], channel_count: int, n: int) -> None:
    buffer = JitterBuffer(channel_count, 8000)
    for i, timestamp in enumerate(timestamps):
        now = START_NS + 20 * MS * i
        while not buffer.push(i % channel_count, timestamp, signal(timestamp, n), now):
            buffer.pop(buffer.next_deadline_ns)  # no room behind one that waits for its time
        buffer.pop(now)

    finish(buffer)

    pushed = np.sum([buffer.counters(c) for c in range(channel_count)], axis=0)
    received, duplicate, late, lost, concealed, dropped = pushed
    assert received + duplicate + late + dropped == n * len(timestamps)
    assert lost <= concealed


@dataclass
class Day:
    """What a simulation saw, in ms: once at its start, once settled (`settled_s` of `simulate`)."""

    off_ever: float = 0  # fill minus target, at worst
    off_settled: float = 0
    delays: list[float] = field(default_factory=list)  # from source to playing, once settled


def simulate(
    *,
    hours: float,
    drift: Callable[[float], float],
    jitter_ms: float = 0,
    target_ms: float | None = None,
    rate: int = 8000,
    frame_ms: int = 60,
    settled_s: float = 600,
) -> Day:
    """Plays a source whose clock runs `1 + drift(seconds)` times as fast as ours.

    Nothing may be concealed, dropped or invented: every sample that was pushed is played once, and
    nothing else is.
    """
    rng = random.Random(1)
    buffer = JitterBuffer(1, rate, frame_ms=frame_ms, target_ms=target_ms)
    n = rate * frame_ms // 1000
    samples = np.ones(n, np.int16)
    out = np.empty((1, n), np.float32)
    push, pop = buffer.push, buffer.pop
    packets = int(hours * 3600 * 1000 / frame_ms)
    settled = int(settled_s * 1000 / frame_ms)
    period_ns = frame_ms * MS
    time_ns = float(START_NS)
    deadline = START_NS
    frames = 0
    day = Day()
    for k in range(packets):
        time_ns += period_ns / (1 + drift(k * frame_ms / 1000))
        arrival = int(time_ns + rng.random() * jitter_ms * MS)
        while deadline <= arrival:
            if pop(deadline, out) is not None:
                frames += 1
            deadline = buffer.next_deadline_ns
        push(0, k * n, samples, arrival)
        if k % 100 == 99:
            off = abs(buffer.fill_ms - buffer.target_ms)
            day.off_ever = max(day.off_ever, off)
            if k > settled:
                day.off_settled = max(day.off_settled, off)
                # When what is played next was captured: a packet is sent when its last sample is.
                captured_ns = time_ns - (k + 1 - frames) * period_ns
                day.delays.append((deadline - captured_ns) / MS)
    frames += pop(deadline, out) is not None
    received, *others = buffer.counters(0)
    assert received == packets * n
    assert others == [0] * 5
    assert buffer.end_timestamp == frames * n, "played as many samples as passed"
    held_ms = (packets - frames) * frame_ms
    assert abs(held_ms - buffer.target_ms) <= 3 * frame_ms
    return day


@pytest.mark.parametrize("ppm", [200, -200])
@pytest.mark.parametrize(("frame_ms", "target_ms"), [(20, None), (5, 30)])
def test_a_clock_that_is_off_moves_the_delay_by_less_than_a_frame(
    ppm: float, frame_ms: int, target_ms: float | None
) -> None:
    day = simulate(
        hours=0.4,
        drift=lambda t: ppm * 1e-6,
        jitter_ms=2,
        frame_ms=frame_ms,
        target_ms=target_ms,
    )
    assert day.off_ever < frame_ms


def wandering(t: float) -> float:
    return 200e-6 * math.sin(2 * math.pi * t / 7200)


# 200 ppm come to 17 s in a day, which are 288 of the longest frames; and to 720 ms in an hour,
# which are 36 of the usual ones.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("hours", "rate", "frame_ms"), [(24, 8000, 60), (1, 48_000, 20)], ids=["day", "usual-hour"]
)
@pytest.mark.parametrize(
    ("drift", "target_ms"),
    [(lambda t: 200e-6, None), (lambda t: -200e-6, 200), (wandering, None)],
    ids=["+200ppm", "-200ppm", "wandering"],
)
def test_a_clock_that_is_off_for_a_long_time(
    drift: Callable[[float], float],
    target_ms: float | None,
    hours: float,
    rate: int,
    frame_ms: int,
) -> None:
    day = simulate(
        hours=hours, drift=drift, jitter_ms=5, target_ms=target_ms, rate=rate, frame_ms=frame_ms
    )
    assert day.off_ever < frame_ms
    assert day.off_settled < 5
    # Level from the first hour to the last, and at every moment in between.
    begin, end = np.mean(day.delays[:600]), np.mean(day.delays[-600:])
    assert abs(end - begin) < 1
    assert max(day.delays) - min(day.delays) < 5


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
