"""Frames in their places: gaps, repeats after a reconnect, a source that returns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from roomserver.clients.errors import WireError
from roomserver.clients.tracker import MAX_SILENCE_S, StreamFormat, StreamTracker
from roomserver.clients.wire import Frame, parse_server_message
from support.fake_room import pack_frame

FORMAT = StreamFormat(1, ("a",), 1000, 20, 100.0, timestamp=5000)


def frame(
    sequence: int, timestamp: int, *, count: int = 20, stream: int = 1, flags: int = 0
) -> Frame:
    samples = np.arange(timestamp, timestamp + count).astype(np.int16).reshape(-1, 1)
    parsed = parse_server_message(
        pack_frame(samples, stream=stream, sequence=sequence, timestamp=timestamp, flags=flags)
    )
    assert isinstance(parsed, Frame)
    return parsed


def started(first: int = 0) -> StreamTracker:
    tracker = StreamTracker()
    assert tracker.begin(FORMAT)
    tracker.place(frame(first, 5000))
    return tracker


def test_adjoining_frames_add_nothing_but_themselves() -> None:
    tracker = started()
    placed = tracker.place(frame(1, 5020, flags=1))
    assert (placed.silence, placed.missing_frames, placed.samples.shape) == (0, 0, (20, 1))
    assert (tracker.frames, tracker.gaps, tracker.concealed_frames) == (2, 0, 1)
    assert tracker.next_timestamp == 5040


def test_missing_frames_become_silence_of_their_length() -> None:
    tracker = started(2**32 - 2)
    placed = tracker.place(frame(2, 5080))  # the number wrapped on the way
    assert (placed.silence, placed.missing_frames) == (60, 3)
    assert (tracker.gaps, tracker.missing_frames) == (1, 3)


def test_a_timeline_that_jumped_is_no_gap_but_keeps_time() -> None:
    tracker = started()
    placed = tracker.place(frame(1, 6020, flags=2))
    assert (placed.silence, placed.missing_frames, tracker.gaps) == (1000, 0, 0)
    far = 6040 + MAX_SILENCE_S * 1000 + 1
    assert tracker.place(frame(2, far, flags=2)).silence == 0


def test_what_is_sent_again_after_a_reconnect_is_left_out() -> None:
    tracker = started()
    tracker.place(frame(1, 5020))
    assert not tracker.begin(dataclasses.replace(FORMAT, buffer_ms=200.0))
    assert tracker.place(frame(0, 5000)).samples.shape[0] == 0
    overlap = tracker.place(frame(1, 5030))
    assert overlap.samples.ravel().tolist() == list(range(5040, 5050))
    assert overlap.silence == 0
    assert tracker.missing_frames == 0


def test_a_source_that_returns_begins_a_new_stream() -> None:
    tracker = started()
    assert tracker.begin(dataclasses.replace(FORMAT, stream=2, sample_rate=44100, timestamp=9000))
    placed = tracker.place(frame(0, 9000, stream=2))
    assert (placed.silence, placed.missing_frames, tracker.streams) == (0, 0, 2)


def test_a_server_that_restarted_may_use_a_number_again() -> None:
    tracker = started()
    assert tracker.begin(dataclasses.replace(FORMAT, timestamp=2**45))
    assert tracker.place(frame(0, 2**45 + 40)).silence == 0


def test_a_frame_of_an_unannounced_stream_is_an_error() -> None:
    with pytest.raises(WireError, match="stream 2"):
        started().place(frame(1, 5020, stream=2))
    with pytest.raises(WireError):
        StreamTracker().place(frame(0, 0))


def test_the_format_is_read_from_either_message() -> None:
    message = {
        "type": "streamStarted",
        "stream": 3,
        "channelCount": 3,
        "channelNames": ["kick"],
        "sampleRate": 48000,
        "frameMs": 20,
        "bufferMs": None,
        "timestamp": 7,
    }
    assert StreamFormat.of(message) == StreamFormat(3, ("kick", "1", "2"), 48000, 20, None, 7)
    assert StreamFormat.of({"type": "listenerRegistered", "state": "waiting"}) is None
