"""Sends that take too long for all to have a turn, and sends that end in the middle of a ping."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.load import LoadClient
from benchmarks.subjects import running_server
from benchmarks.workload import Workload

from support.native import compile_with
from support.peer import BINARY, PING, PONG, Frame, Peer

WORKLOAD = Workload(channels=1, sample_rate=8000, buffer_ms=500)
MAX_SECONDS = 60


@pytest.fixture
def preloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Whatever is started has the library that makes sends of relay threads awkward."""
    library = tmp_path / "awkward_sends.so"
    source = Path(__file__).with_name("awkward_sends.cpp")
    compile_with("g++", ["-shared", "-fPIC", source, "-o", library, "-ldl"])
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return monkeypatch


def test_when_there_is_no_time_for_all_everybody_loses_alike(
    preloaded: pytest.MonkeyPatch,
) -> None:
    """A round takes longer than the past is kept (2 s): each turn brings some of what is recent."""
    count, send_ms, seconds = 220, 10, 18.0  # some eight turns each: one more or less is little
    preloaded.setenv("SEND_MS", str(send_ms))
    with (
        running_server(WORKLOAD, MAX_SECONDS) as server,
        LoadClient(server.target, max_seconds=MAX_SECONDS) as load,
    ):
        load.join(count)
        load.measure(2.5)  # from the first round on everybody is behind
        heard = load.measure(seconds)
    assert (heard.lost, heard.errors) == (0, {})
    mean = heard.frames / count
    assert heard.missing > 0, "there was no time for all"
    assert mean > 0.1 * seconds * WORKLOAD.frames_per_s, "most of the time there is brings audio"
    assert heard.frames_fewest > 0.4 * mean
    assert heard.frames_most < 2 * mean


def until_silent(peer: Peer) -> None:
    """Takes in what comes, whole messages or not, until nothing comes for a second."""
    peer.sock.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        while True:
            peer.buffer += peer.sock.recv(65536)
    peer.sock.settimeout(10)


def finish_ping(peer: Peer) -> tuple[bool, list[Frame]]:
    """Whether half a ping is all that came at last, and the frames before the ping, which is
    answered now."""
    until_silent(peer)
    is_half = bytes(peer.buffer[-5:-3]) == b"\x89\x08"
    peer.send(PONG)  # not the answer: it makes the relay look at the socket again
    frames: list[Frame] = []
    while True:
        opcode, payload = peer.read_frame()
        if opcode == PING:
            peer.send(PONG, payload)
            return is_half, frames
        if opcode == BINARY:
            frames.append(Frame.parse(payload))


def test_a_ping_of_which_half_went_out_is_finished_and_the_listener_goes_on(
    preloaded: pytest.MonkeyPatch,
) -> None:
    preloaded.setenv("CUT_PINGS", "1")
    options = ("--max-lag-ms", "300", "--ping-interval-ms", "300")
    with running_server(WORKLOAD, MAX_SECONDS, options=options) as server:
        registration = json.loads(server.target.registers[0])
        peer = Peer.connect(("127.0.0.1", server.target.port), registration)
        with contextlib.closing(peer):
            halves = 0
            frames: list[Frame] = []
            while halves < 3 or not frames:  # the first ping may come before the first frame
                was_half, heard = finish_ping(peer)
                halves += was_half
                frames += heard
            # What stood behind half a ping went out later, and none of it twice.
            for a, b in pairwise(frames):
                assert b.sequence > a.sequence
                assert b.timestamp - a.timestamp == (b.sequence - a.sequence) * WORKLOAD.samples
