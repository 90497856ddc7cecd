"""Figures made of stays in memory equal what a brute-force look at random histories finds."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest

from roomserver.protocol.codes import Role
from roomserver.store import sweep
from support.stays import DAY_US, days, figures, midnight, random_history

FIRST = date(2026, 3, 1)


@pytest.mark.parametrize("seed", range(4))
def test_days_and_statistics_equal_the_oracle(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(250):
        now_us = midnight(FIRST) + source.choice((DAY_US // 3, DAY_US, 2 * DAY_US + 1))
        stays = random_history(source, "room", FIRST, now_us)
        until = FIRST + timedelta(days=5)
        found = {day.date: day for day in sweep.days(stays, FIRST, until, now_us / 1e6)}
        wanted = days(stays, FIRST, 5, now_us)
        assert found.keys() == wanted.keys()
        for day, figure in wanted.items():
            here = found[day]
            assert here.peak_listeners == figure.peak, stays
            assert here.total_listeners == figure.listeners
            assert here.total_listen_minutes * 60 == pytest.approx(float(figure.seconds), abs=1e-6)
            latency = figure.latency_ms
            assert here.avg_latency_ms == (None if latency is None else pytest.approx(latency))
            assert here.total_packets_sent == figure.sent
            assert here.total_packets_received == figure.received

        listeners = [stay for stay in stays if stay.role is Role.LISTENER]
        always = figures(listeners, 0, 2**60, now_us)
        whole = sweep.statistics(stays, now_us / 1e6)
        assert whole.sessions == len(listeners)
        if always is None:
            assert (whole.participants, whole.listen_seconds, whole.peak_listeners) == (0, 0, 0)
        else:
            assert (whole.participants, whole.peak_listeners) == (always.listeners, always.peak)
            assert whole.listen_seconds == pytest.approx(float(always.seconds), abs=1e-6)
            average = float(always.seconds) / len(listeners)
            assert whole.average_session_seconds == pytest.approx(average, abs=1e-6)
