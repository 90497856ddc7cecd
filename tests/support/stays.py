"""Random histories of a room, and what a day of one was, found by looking at every moment of it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

from msgspec import structs

from roomserver.protocol.codes import Role
from roomserver.store.records import ParticipantRecord

DAY_US = 86_400_000_000
# Few moments, so that much happens at the same one; some are midnight, or next to it.
STEPS_US = (1, 1_000_003, 60_000_000, 3_600_000_000, DAY_US // 2)


@dataclass(frozen=True)
class Day:
    """The figures of a room on one day."""

    peak: int
    seconds: Fraction
    listeners: int
    latency_ms: float | None
    sent: int
    received: int


def microseconds(unix_s: float) -> int:
    """Whole microseconds, as the database has them."""
    return round(unix_s * 1e6)


def midnight(day: date) -> int:
    """When a day begins, in Unix us."""
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def random_history(
    source: random.Random, room: str, first: date, now_us: int
) -> list[ParticipantRecord]:
    """Up to 14 stays of a few participants on three days; some come back, some are still there."""
    people = [str(UUID(int=source.getrandbits(128))) for _ in range(source.randint(1, 5))]
    step = source.choice(STEPS_US)
    start = midnight(first)

    def moment() -> int:
        around = source.choice((start, start + DAY_US, start + DAY_US, start + 2 * DAY_US, now_us))
        return max(start, around + step * source.randint(-6, 6))

    stays: list[ParticipantRecord] = []
    for _ in range(source.randint(0, 14)):
        joined = moment()
        person = source.choice(people)
        if stays and source.random() < 0.3:  # a reconnect, at the moment of the end or elsewhere
            before = source.choice(stays)
            joined = microseconds(before.left_at or before.joined_at)
            person = before.participant
        stay = ParticipantRecord(
            room=room,
            participant=person,
            connection=str(UUID(int=source.getrandbits(128))),
            role=source.choice((Role.LISTENER, Role.LISTENER, Role.LISTENER, Role.BROADCASTER)),
            user=None,
            nickname=None,
            address="192.0.2.1",
            joined_at=joined / 1e6,
            frames_sent=source.choice((0, 1, 2, 7, 1000, source.randrange(10**12))),
            latency_ms=source.choice((None, 0.0, 12.5, 400.0)),
        )
        if source.random() < 0.8:
            stay = _ended(stay, source, max(joined, moment()) - joined)
        stays.append(stay)
    return stays


def _ended(stay: ParticipantRecord, source: random.Random, lasted_us: int) -> ParticipantRecord:
    wall = stay.joined_at + lasted_us / 1e6
    match source.randrange(4):
        case 0:  # only the end is known
            return structs.replace(stay, left_at=wall)
        case 1:  # the wall clock was set back meanwhile, or forth
            wall += source.choice((-7200.0, -1.0, 3600.0))
    return structs.replace(stay, left_at=wall, duration_s=lasted_us / 1e6)


@dataclass(frozen=True)
class _Span:
    stay: ParticipantRecord
    begin: int
    end: int  # of one that goes on: now

    @property
    def open(self) -> bool:
        return self.stay.left_at is None

    def lasts_at(self, moment: int) -> bool:
        return self.begin <= moment < self.end

    def touches(self, begin: int, end: int) -> bool:
        if self.begin == self.end:
            return begin <= self.begin < end
        return self.begin < end and begin < self.end


def _span(stay: ParticipantRecord, now_us: int) -> _Span:
    begin = microseconds(stay.joined_at)
    if stay.left_at is None:
        return _Span(stay, begin, max(begin, now_us))
    if stay.duration_s is not None:
        return _Span(stay, begin, begin + microseconds(stay.duration_s))
    return _Span(stay, begin, microseconds(stay.left_at))


def figures(stays: Iterable[ParticipantRecord], begin: int, end: int, now_us: int) -> Day | None:
    """What was from `begin` to before `end` (Unix us); None when nobody was there."""
    spans = [_span(stay, now_us) for stay in stays]
    here = [span for span in spans if span.touches(begin, end)]
    if not here:
        return None
    listeners = [span for span in here if span.stay.role is Role.LISTENER]
    moments = {begin, end}
    for span in listeners:
        moments |= {moment for moment in (span.begin, span.end) if begin <= moment <= end}
    ordered = sorted(moments)
    peak = max(
        sum(span.lasts_at(at) or (span.open and span.begin <= at) for span in listeners)
        for at in ordered
        if at < end
    )
    seconds = latency = Fraction(0)
    measured = Fraction(0)
    for at, following in pairwise(ordered):
        length = Fraction(following - at, 1_000_000)
        for span in listeners:
            if span.lasts_at(at):
                seconds += length
                if span.stay.latency_ms is not None:
                    measured += length
                    latency += length * Fraction(span.stay.latency_ms)
    return Day(
        peak=peak,
        seconds=seconds,
        listeners=len({span.stay.participant for span in listeners}),
        latency_ms=float(latency / measured) if measured else None,
        sent=sum(_share(span, begin, end) for span in listeners),
        received=sum(_share(span, begin, end) for span in here if span not in listeners),
    )


def _share(span: _Span, begin: int, end: int) -> int:
    """Of a stay's packets those of this time, if they came evenly."""
    packets, length = span.stay.frames_sent, span.end - span.begin
    if length == 0:
        return packets

    def until(moment: int) -> int:
        return packets * (min(max(moment, span.begin), span.end) - span.begin) // length

    return until(end) - until(begin)


def days(
    stays: Sequence[ParticipantRecord], first: date, count: int, now_us: int
) -> dict[date, Day]:
    """The days on which somebody was there."""
    found = {}
    for number in range(count):
        day = first + timedelta(days=number)
        figure = figures(stays, midnight(day), midnight(day) + DAY_US, now_us)
        if figure is not None:
            found[day] = figure
    return found
