"""Clocks: absolute deadlines, and the server's time from pings."""

from __future__ import annotations

import time

from roomserver.clients.clock import LocalClock, MediaClock, ServerClock, ping_interval


def test_deadlines_do_not_accumulate_rounding() -> None:
    clock = MediaClock(44100, 1000.0)
    day = 44100 * 86400
    assert clock.deadline(0) == 1000.0
    assert clock.deadline(day) == 1000.0 + 86400


def test_position_is_the_first_sample_not_begun() -> None:
    clock = MediaClock(48000, 10.0)
    assert clock.position(9.0) == 0
    assert clock.position(10.0) == 0
    assert clock.position(11.0) == 48000
    assert clock.position(10.0 + 1.5 / 48000) == 2
    clock.shift(0.5)
    assert clock.position(11.0) == 24000


def test_the_exchange_with_the_shortest_round_trip_counts() -> None:
    clock = ServerClock(window=3)
    assert (clock.known, clock.offset_us, clock.round_trip_us) == (False, 0, 0)
    # The server's clock is 1000 us ahead; this exchange took 10 us there and 90 us back.
    clock.add(0, 1010, 1020, 110)
    assert clock.offset_us == 960
    clock.add(1000, 2005, 2005, 1010)
    assert (clock.known, clock.offset_us, clock.round_trip_us) == (True, 1000, 10)
    clock.add(2000, 3300, 3300, 2310)
    assert clock.offset_us == 1000
    for _ in range(3):  # the good one has gone out of the window: clocks drift
        clock.add(5000, 6050, 6050, 5060)
    assert clock.round_trip_us == 60


def test_local_clock_is_unix_time() -> None:
    clock = LocalClock()
    assert abs(clock.now_us() - time.time() * 1e6) < 1e6
    assert abs(clock.to_unix_us(time.monotonic()) - clock.now_us()) < 1e6


def test_pings_come_quickly_at_first() -> None:
    assert [ping_interval(n) for n in range(8)] == [0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0]
