"""JitterBuffer against a slow, obvious model, packet by packet and tick by tick."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.jitter_rig import (
    MAX_U64,
    MS,
    START_NS,
    ComparedRun,
    Sent,
    disturb,
    moved,
    steady,
)

PATIENT_MS = 150
HOSTILE = [0, 1, 2**32 - 500, 2**63 - 77, 2**63, 2**64 - 1000]


@pytest.mark.timeout(300)
@given(
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([8000, 8000, 8000, 11025]),
    frame_ms=st.sampled_from([5, 10, 20, 40, 60]),
    channels=st.integers(1, 2),
    lengths=st.lists(st.sampled_from([1, 7, 40, 127, 160, 441, 800]), min_size=1, max_size=4),
    target_ms=st.sampled_from([None, 10, 60, 120, 400]),
    timestamp=st.sampled_from(HOSTILE) | st.integers(0, MAX_U64),
    delay_ms=st.sampled_from([0, 5, 40, 80, 150, 300]),
    reorder_ms=st.sampled_from([math.inf, math.inf, 40, 0]),
    loss=st.sampled_from([0, 0.01, 0.1, 0.3]),
    twice=st.sampled_from([0, 0.01, 0.2]),
    stall_ms=st.sampled_from([0, 0, 5, 50, 400]),
    trouble=st.sampled_from(["none", "none", "jump", "hole", "hostile", "overlap", "split"]),
    to_the_end=st.booleans(),
)
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_schedule_agrees_with_the_model(
    seed: int,
    rate: int,
    frame_ms: int,
    channels: int,
    lengths: list[int],
    target_ms: float | None,
    timestamp: int,
    delay_ms: float,
    reorder_ms: float,
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
    packets = disturb(
        packets, rng, delay_ms=delay_ms, reorder_ms=reorder_ms, loss=loss, twice=twice
    )
    run = ComparedRun(channels=channels, rate=rate, frame_ms=frame_ms, target_ms=target_ms)
    run.run(packets, rng, stall_ms=stall_ms)
    if to_the_end:
        run.finish()


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


def bad_network(rng: random.Random, target_ms: float | None, duration_s: float) -> None:
    """Delays to 80 ms, reordering to 40 ms, 1 % twice, 1 % lost: a frame every tick, in order.

    Counters and audio are compared with the model at every tick.
    """
    channels, rate, length = 2, 8000, 40
    first = rng.randrange(2**64)
    sent = steady(
        rate=rate, lengths=[length], duration_s=duration_s, channels=channels, timestamp=first
    )
    came = disturb(sent, rng, delay_ms=80, reorder_ms=40, loss=0.01, twice=0.01)
    run = ComparedRun(channels=channels, rate=rate, frame_ms=20, target_ms=target_ms)

    run.run(came, rng)

    run.finish()
    frames = run.frames
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(b.timestamp == a.timestamp + 160 for a, b in itertools.pairwise(frames))
    if target_ms is None or target_ms >= 80:  # with less, all may be late until it begins anew
        assert [frame.discontinuity for frame in frames] == [True] + [False] * (len(frames) - 1)
    numbers = [(packet.timestamp - first) % 2**64 // length for packet in came]
    span = max(numbers) + 1 - min(numbers)
    # Playing may begin before the first packet came, and go on while the last is on its way.
    assert abs(len(frames) * 160 // length - span) <= 20
    for channel in range(channels):
        counters = run.buffer.counters(channel)
        assert len(came) * length == counters.received + counters.duplicate + counters.late
        assert counters.dropped == 0
        assert counters.lost <= counters.concealed
        if target_ms == PATIENT_MS:  # enough for every delay: only what was lost is missing
            different = len(set(numbers))
            assert len(frames) == -(-span * length // 160)
            assert counters.received == different * length
            assert counters.duplicate == (len(came) - different) * length
            assert counters.late == 0
            assert counters.concealed == counters.lost == (span - different) * length


@pytest.mark.timeout(300)
@given(seed=st.integers(0, 2**32), target_ms=st.sampled_from([None, 30, 80, PATIENT_MS]))
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_bad_network(seed: int, target_ms: float | None) -> None:
    bad_network(random.Random(seed), target_ms, duration_s=0.4)


@pytest.mark.timeout(300)
@given(
    seed=st.integers(0, 2**32),
    frame_ms=st.sampled_from([5, 20, 60]),
    lengths=st.sampled_from([[160], [40, 160], [800]]),
    target_ms=st.sampled_from([None, 60, 400, 1000, 1000]),
    delay_ms=st.sampled_from([0, 40, 300]),
    burst_ms=st.sampled_from([0, 300, 1400]),
    stall_ms=st.sampled_from([50, 400, 900, 1500]),
    late_ms=st.sampled_from([0, 400, 900]),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_long_standstills(
    seed: int,
    frame_ms: int,
    lengths: list[int],
    target_ms: float | None,
    delay_ms: float,
    burst_ms: int,
    stall_ms: float,
    late_ms: float,
) -> None:
    """Of the one who plays, to the very end, and of the link."""
    rng = random.Random(seed)
    packets = steady(rate=8000, lengths=lengths, duration_s=1.8, channels=2)
    begin = START_NS + rng.randrange(1000) * MS
    end = begin + burst_ms * MS
    packets = [
        Sent(end if begin <= p.arrival_ns < end else p.arrival_ns, 0, p.timestamp, p.samples)
        for p in packets
    ]
    packets = disturb(packets, rng, delay_ms=delay_ms, loss=0.02, twice=0.02)
    run = ComparedRun(channels=2, rate=8000, frame_ms=frame_ms, target_ms=target_ms)
    run.run(packets, rng, stall_ms=stall_ms)
    run.finish(lambda: rng.uniform(0, late_ms) if rng.random() < 0.2 else 0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("target_ms", [None, PATIENT_MS])
def test_a_bad_network_for_a_while(seed: int, target_ms: float | None) -> None:
    bad_network(random.Random(seed), target_ms, duration_s=4)
