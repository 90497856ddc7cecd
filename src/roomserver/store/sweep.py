"""Figures of a room, made of its stays in memory: what `relay.room_statistics_view` and
`sql/analytics.sql` are for a database, with the same meaning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from roomserver.protocol.codes import Role
from roomserver.store.records import DayRecord, ParticipantRecord, StatisticsRecord

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stay, or the part of it that falls on a day. Unix us."""

    stay: ParticipantRecord
    began: int
    ended: int  # of one that goes on: now
    packets: int

    @property
    def length(self) -> int:
        return self.ended - self.began


def statistics(stays: Iterable[ParticipantRecord], now: float) -> StatisticsRecord:
    """Of a room's whole life; `now` is until when stays that go on are counted (Unix s)."""
    pieces = [_whole(stay, now) for stay in stays if stay.role is Role.LISTENER]
    seconds = sum(piece.length for piece in pieces) / 1e6
    return StatisticsRecord(
        participants=len({piece.stay.participant for piece in pieces}),
        sessions=len(pieces),
        listen_seconds=seconds,
        average_session_seconds=seconds / len(pieces) if pieces else 0.0,
        peak_listeners=_peak(pieces),
    )


def days(
    stays: Sequence[ParticipantRecord], since: date, until: date, now: float
) -> list[DayRecord]:
    """The days from `since` to before `until` (UTC) on which somebody was there, oldest first."""
    whole = [_whole(stay, now) for stay in stays]
    found = []
    for number in range((until - since).days):
        day = since + timedelta(days=number)
        pieces = [piece for each in whole if (piece := _cut(each, day)) is not None]
        if pieces:
            found.append(_day(day, pieces))
    return found


def _day(day: date, pieces: Sequence[_Piece]) -> DayRecord:
    listeners = [piece for piece in pieces if piece.stay.role is Role.LISTENER]
    weight = sum(piece.length for piece in listeners if piece.stay.latency_ms is not None)
    latency = sum(piece.length * (piece.stay.latency_ms or 0.0) for piece in listeners)
    return DayRecord(
        date=day,
        peak_listeners=_peak(listeners),
        total_listen_minutes=sum(piece.length for piece in listeners) / 60e6,
        total_listeners=len({piece.stay.participant for piece in listeners}),
        avg_latency_ms=latency / weight if weight else None,
        total_packets_sent=sum(piece.packets for piece in listeners),
        total_packets_received=sum(
            piece.packets for piece in pieces if piece.stay.role is Role.BROADCASTER
        ),
    )


def _whole(stay: ParticipantRecord, now: float) -> _Piece:
    began = round(stay.joined_at * 1e6)
    if stay.left_at is None:
        ended = max(began, round(now * 1e6))
    elif stay.duration_s is not None:
        ended = began + round(stay.duration_s * 1e6)
    else:
        ended = round(stay.left_at * 1e6)
    return _Piece(stay, began, ended, stay.frames_sent)


def _cut(whole: _Piece, day: date) -> _Piece | None:
    """What of it falls on the day; one that lasted no time belongs to where it began."""
    midnight = round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
    began, ended = max(whole.began, midnight), min(whole.ended, midnight + DAY_US)
    if whole.length == 0:
        return whole if midnight <= whole.began < midnight + DAY_US else None
    if began >= ended:
        return None
    # Packets are known for the whole: each day has its share, and all of them together have all.
    until_end = whole.packets * (ended - whole.began) // whole.length
    until_begin = whole.packets * (began - whole.began) // whole.length
    return _Piece(whole.stay, began, ended, until_end - until_begin)


def _peak(pieces: Iterable[_Piece]) -> int:
    """How many were there at once: a leave comes before a join of the same moment."""
    moves = []
    for piece in pieces:
        moves.append((piece.began, 1))
        if piece.stay.left_at is not None:
            moves.append((piece.ended, -1))
    peak = present = 0
    for _, change in sorted(moves):
        present += change
        peak = max(peak, present)
    return peak
