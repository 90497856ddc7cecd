"""Audio through a relay: real sockets, no server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from relaycore import Relay, Subscription
from relaycore.events import (
    CloseReason,
    ConnectionClosed,
    RoomReport,
    SourceReport,
    StreamBuffering,
    StreamEnded,
    StreamLive,
    TextReceived,
)
from support.peer import BINARY, PING, PONG, TEXT, Events, Frame, Peer, mask, source_packet
from support.relay_room import (
    ALL,
    FRAME,
    RATE,
    Source,
    bind_listener,
    bind_source,
    frames_until_end,
    joined,
    noise,
    of_stream,
    on_air,
)

HEARD = Subscription(encoding="pcm_f32le")

# ---- audio ----


def test_what_goes_in_comes_out_bit_exact_and_is_played_to_the_end(
    relay: Relay, events: Events
) -> None:
    audio = noise(3, 0.5)
    room = relay.open_room()
    listener = bind_listener(relay, room)
    some = bind_listener(relay, room, Subscription(channels=[0, 2]))
    peer = bind_source(relay, room, channels=3)
    source = Source(peer, audio)
    source.start()
    source.join()
    relay.unbind_source(peer.connection)
    frames = frames_until_end(listener, audio.shape[1])
    assert np.array_equal(joined(frames)[: audio.shape[1]], audio.T)
    assert np.array_equal(joined(frames_until_end(some, audio.shape[1])), audio[[0, 2]].T)
    assert [f.sequence for f in frames] == list(range(len(frames)))
    assert {f.stream for f in frames} == {1}
    assert all(b.timestamp == a.timestamp + a.samples for a, b in pairwise(frames))
    assert events.wait(StreamEnded).drained


def test_packets_longer_than_the_rings_and_short_ones_keep_their_order(
    relay: Relay, events: Events
) -> None:
    lengths = (FRAME, 20_000, FRAME, FRAME, 17_000, FRAME)
    audio = noise(2, sum(lengths) / RATE)
    listener = bind_listener(relay, room := relay.open_room())
    peer = bind_source(relay, room)
    at = 0
    for n in lengths:
        peer.send_packet(audio[:, at : at + n], at)
        at += n
    events.wait(SourceReport, lambda report: report.received == (at, at))
    relay.unbind_source(peer.connection)
    assert np.array_equal(joined(frames_until_end(listener, at))[:at], audio.T)


def test_the_announcement_stands_before_the_first_frame_and_the_timeline_only_moves_on(
    relay: Relay, events: Events
) -> None:
    room = relay.open_room()
    listener = bind_listener(relay, room)
    end = 0
    for stream, channels in ((1, 2), (2, 5)):
        peer = bind_source(relay, room, channels=channels, stream=stream)
        source = Source(peer, noise(channels, 0.3, stream), start=1000 * stream)
        source.start()
        started = listener.receive()
        assert isinstance(started, dict)
        assert started["type"] == "streamStarted"
        first = listener.receive()
        assert isinstance(first, Frame)
        assert (first.stream, first.channels, first.sequence) == (stream, channels, 0)
        assert first.flags & 2
        assert first.timestamp == started["timestamp"] >= end
        assert events.wait(StreamLive, of_stream(stream)).timestamp == first.timestamp
        source.join()
        relay.unbind_source(peer.connection)
        events.wait(StreamEnded, of_stream(stream))
        frames = frames_until_end(listener, source.planes.shape[1] - first.samples)
        end = frames[-1].timestamp + frames[-1].samples


def mix_reference(audio: NDArray[np.int16], gains: NDArray[np.float64]) -> NDArray[np.float64]:
    return (audio.T / 32768.0) @ gains.T


def test_a_mix_change_lands_at_one_frame_boundary_with_a_ramp(relay: Relay, events: Events) -> None:
    audio = noise(2, 1.0) // 4
    room = relay.open_room()
    peer = bind_source(relay, room)
    source = Source(peer, audio)
    source.start()
    pans = [-1.0, 1.0]
    listener = bind_listener(
        relay, room, Subscription(mode="mix", encoding="pcm_f32le", pans=pans, faders=[1, 0.5])
    )
    start = listener.next_text("streamStarted")["timestamp"]
    for _ in range(3):
        listener.next_frame()
    relay.subscribe(
        listener.connection,
        Subscription(mode="mix", encoding="pcm_f32le", pans=pans, faders=[0.25, 1], master=0.5),
        reply='{"type":"mixChanged"}',
    )
    before: list[Frame] = []
    while isinstance(message := listener.receive(), Frame):
        before.append(message)
    assert message == {"type": "mixChanged"}
    after = [listener.next_frame() for _ in range(3)]
    source.stop()
    old, new = np.diag([1.0, 0.5]), np.diag([0.125, 0.5])

    def reference(frame: Frame, gains: NDArray[np.float64]) -> NDArray[np.float64]:
        at = frame.timestamp - start
        return mix_reference(audio[:, at : at + frame.samples], gains)

    for frame in before:
        np.testing.assert_allclose(frame.data, reference(frame, old), atol=1e-6)
    ramp = (np.arange(FRAME) / FRAME)[:, None]
    expected = reference(after[0], old) * (1 - ramp) + reference(after[0], new) * ramp
    np.testing.assert_allclose(after[0].data, expected, atol=1e-6)
    for frame in after[1:]:
        np.testing.assert_allclose(frame.data, reference(frame, new), atol=1e-6)


def test_a_change_for_a_listener_that_is_behind_lands_at_a_frame_boundary() -> None:
    with Relay(threads=1, max_lag_ms=1500) as relay:
        room = relay.open_room()
        audio = noise(32, 2.0) // 32
        source = Source(bind_source(relay, room, channels=32), audio)
        source.start()
        listener = bind_listener(relay, room, HEARD)
        begin = listener.next_text("streamStarted")["timestamp"]
        events = Events(relay)
        figures = None
        while figures is None or figures.frames_behind < 10:  # it does not read meanwhile
            relay.inspect(room)
            figures = events.wait(RoomReport).listeners[0]
        relay.subscribe(
            listener.connection,
            Subscription(channels=[3], encoding="pcm_f32le"),
            reply='{"type":"subscribed"}',
        )
        before: list[Frame] = []
        while isinstance(message := listener.receive(), Frame):
            before.append(message)
        assert message == {"type": "subscribed"}
        after = [listener.next_frame() for _ in range(20)]
        source.stop()
        assert {f.channels for f in before} == {32}
        assert {f.channels for f in after} == {1}
        frames = before + after
        assert [f.sequence for f in frames] == list(range(len(frames)))
        for frame in frames:
            at = frame.timestamp - begin
            expected = audio[:, at : at + frame.samples].T / np.float32(32768)
            assert np.array_equal(
                frame.data, expected if frame.channels == 32 else expected[:, 3:4]
            )


def test_a_switch_from_mix_to_channels_and_back_is_whole_frames(
    relay: Relay, events: Events
) -> None:
    room = relay.open_room()
    peer = bind_source(relay, room, channels=4)
    source = Source(peer, noise(4, 2.0))
    source.start()
    listener = bind_listener(relay, room, Subscription(mode="mix"))
    assert listener.next_frame().channels == 2
    relay.subscribe(listener.connection, ALL, reply='{"type":"subscribed"}')
    listener.next_text("subscribed")
    assert listener.next_frame().channels == 4
    relay.subscribe(
        listener.connection, Subscription(channels=[1, 9]), reply='{"type":"subscribed"}'
    )
    listener.next_text("subscribed")
    frame = listener.next_frame()
    assert frame.channels == 2
    assert not frame.data[:, 1].any(), "a channel that does not exist is silent"
    source.stop()


def test_an_interval_groups_frames_and_loses_none(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    peer = bind_source(relay, room)
    source = Source(peer, noise(2, 1.2))
    source.start()
    listener = bind_listener(relay, room, Subscription(interval_ms=200))
    frames = [listener.next_frame() for _ in range(40)]
    source.stop()
    assert [f.sequence for f in frames] == list(range(frames[0].sequence, frames[0].sequence + 40))
    gaps = [b.received_s - a.received_s for a, b in pairwise(frames)]
    assert sum(gap > 0.1 for gap in gaps) <= 5


def test_an_interval_in_whole_frames_is_no_longer_than_the_longest_lag() -> None:
    with Relay(threads=1, max_lag_ms=150) as relay:
        room = relay.open_room()
        source = Source(bind_source(relay, room, frame_ms=60), noise(2, 3.0))
        source.start()
        listener = bind_listener(relay, room, Subscription(interval_ms=150))
        frames = [listener.next_frame() for _ in range(25)]
        source.stop()
    gaps = [b.received_s - a.received_s for a, b in pairwise(frames)]
    begins = [at for at, gap in enumerate(gaps) if gap > 0.03]
    groups = Counter(b - a for a, b in pairwise(begins))
    assert groups.most_common(1)[0][0] == 2, "120 ms, for three frames would be 180"


def test_an_interval_is_no_longer_than_half_of_what_is_kept() -> None:
    """Of frames that are no more none would ever be sent, nor what waits behind them.

    Together they are more than a send holds.
    """
    with Relay(threads=1, max_lag_ms=10_000) as relay, on_air(relay, channels=8) as room:
        listener = bind_listener(relay, room, Subscription(interval_ms=10_000))
        frames = [listener.next_frame() for _ in range(151)]
        relay.subscribe(listener.connection, ALL, reply='{"type":"subscribed"}')
        listener.next_text("subscribed")
    gaps = [b.received_s - a.received_s for a, b in pairwise(frames)]
    assert {b.sequence - a.sequence for a, b in pairwise(frames)} == {1}
    begins = [at for at, gap in enumerate(gaps) if gap > 0.3]
    assert [b - a for a, b in pairwise(begins)] == [50, 50]


def test_a_listener_of_frames_larger_than_a_plan_catches_up() -> None:
    with Relay(threads=1, max_lag_ms=1800) as relay:
        room = relay.open_room()
        peer = bind_source(relay, room, channels=64, frame_ms=60)
        source = Source(peer, noise(64, 10.0), samples=3 * FRAME)
        source.start()
        listener = bind_listener(relay, room, Subscription(encoding="pcm_f32le"))
        events = Events(relay)

        def behind() -> int:
            relay.inspect(room)
            return events.wait(RoomReport).listeners[0].frames_behind

        while behind() < 4:  # it does not read meanwhile
            time.sleep(0.02)
        frames = [listener.next_frame()]
        while frames[-1].sequence < 60 and (len(frames) < 20 or behind() > 1):
            frames.append(listener.next_frame())
        source.stop()
        Peer.close_all()  # or the relay would wait for their goodbyes
    assert {b.sequence - a.sequence for a, b in pairwise(frames)} == {1}
    assert frames[-1].sequence < 60, "it stays behind"


def test_a_burst_and_a_resumption_bring_the_past(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    peer = bind_source(relay, room)
    source = Source(peer, noise(2, 3.0))
    source.start()
    first = bind_listener(relay, room)
    seen = [first.next_frame() for _ in range(40)]
    late = bind_listener(relay, room, burst_ms=400)
    begin = late.next_frame()
    assert seen[-1].sequence - 21 <= begin.sequence <= seen[-1].sequence - 15
    again = bind_listener(relay, room, from_timestamp=seen[5].timestamp)
    frame = again.next_frame()
    assert frame.timestamp == seen[5].timestamp
    assert np.array_equal(frame.data, seen[5].data)
    source.stop()


def test_levels_are_those_of_the_samples(relay: Relay, events: Events) -> None:
    audio = np.zeros((2, RATE), np.int16)
    audio[0] = (16384 * np.sin(np.arange(RATE) * 2 * np.pi / 48)).astype(np.int16)
    room = relay.open_room()
    peer = bind_source(relay, room)
    source = Source(peer, audio)
    source.start()
    listener = bind_listener(relay, room, Subscription(levels=True))
    levels = [listener.next_frame(kind=3) for _ in range(3)]
    source.stop()
    assert levels[1].timestamp - levels[0].timestamp == RATE // 10
    assert levels[0].samples == RATE // 10
    np.testing.assert_allclose(levels[1].data[0], [-6.02, -9.03], atol=0.05)
    assert np.isneginf(levels[1].data[1]).all()


def test_a_source_reports_what_became_of_its_samples(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    peer = bind_source(relay, room)
    source = Source(peer, noise(2, 1.5))
    source.start()
    report = events.wait(SourceReport, lambda report: report.received[0] > 0)
    source.stop()
    assert report.connection == peer.connection
    assert len(report.received) == 2
    assert report.received[0] > 0
    assert report.target_ms == 300


def test_a_lost_source_lets_its_room_play_out_and_end(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    peer = bind_source(relay, room)
    source = Source(peer, noise(2, 0.4))
    source.start()
    source.join()
    peer.close()
    closed = events.wait(ConnectionClosed)
    assert closed.reason == CloseReason.PEER_LOST
    assert not events.wait(StreamEnded).drained


def test_silence_sends_the_stream_back_to_buffering(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    listener = bind_listener(relay, room)
    peer = bind_source(relay, room)
    source = Source(peer, noise(2, 0.4))
    source.start()
    events.wait(StreamLive)
    source.join()
    events.wait(StreamBuffering)
    again = Source(peer, noise(2, 0.4), start=RATE)
    again.start()
    events.wait(StreamLive)
    again.join()
    first, second = listener.next_frame(), listener.next_frame()
    assert first.flags & 2
    while not second.flags & 2:
        first, second = second, listener.next_frame()
    assert second.sequence == first.sequence + 1
    assert second.timestamp >= first.timestamp + first.samples


# ---- lag ----


def test_a_listener_that_lags_gets_nothing_until_its_pong_and_then_goes_on_at_live() -> None:
    with Relay(threads=1, max_lag_ms=200, ping_interval_ms=200) as relay:
        events = Events(relay)
        room = relay.open_room()
        source = Source(bind_source(relay, room), noise(2, 4.0))
        source.start()
        listener = bind_listener(relay, room)
        other = bind_listener(relay, room)
        frames: list[Frame] = []
        reader = threading.Thread(
            target=lambda: frames.extend(other.next_frame() for _ in range(100))
        )
        reader.start()
        listener.next_frame()
        listener.answer_pings = False
        opcode, payload = listener.read_frame()
        sent = 0
        while opcode != PING:
            opcode, payload = listener.read_frame()
        listener.sock.settimeout(0.4)
        last: Frame | None = None
        with contextlib.suppress(TimeoutError):
            while True:
                opcode, data = listener.read_frame()
                if opcode == BINARY:
                    last = Frame.parse(data)
                    sent += 1
        assert sent <= 0.4 / 0.02, "it stops at max_lag_ms"
        assert last is not None
        listener.sock.settimeout(10)
        listener.answer_pings = True
        listener.send(PONG, payload)
        resumed = listener.next_frame()
        assert resumed.sequence > last.sequence + 10, "what it missed is given up"
        reader.join()
        assert [f.sequence for f in frames] == list(
            range(frames[0].sequence, frames[0].sequence + 100)
        )
        source.stop()
        listener.close()
        assert events.wait(ConnectionClosed).frames_dropped > 10


def test_a_listener_that_takes_nothing_is_reset() -> None:
    with Relay(threads=1, max_lag_ms=200, ping_interval_ms=200, evict_after_s=1.0) as relay:
        events = Events(relay)
        room = relay.open_room()
        source = Source(bind_source(relay, room, channels=16), noise(16, 8.0))
        source.start()
        listener = Peer.attach(relay)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        relay.bind_listener(listener.connection, room, ALL)
        closed = events.wait(ConnectionClosed)
        assert closed.reason == CloseReason.TOO_SLOW
        assert relay.counters().threads[0].evicted == 1
        source.stop()


def test_a_lagging_listener_that_talks_gets_its_sound_back() -> None:
    with Relay(threads=1, max_lag_ms=200, ping_interval_ms=200) as relay:
        room = relay.open_room()
        source = Source(bind_source(relay, room), noise(2, 5.0))
        source.start()
        listener = bind_listener(relay, room)
        opcode, payload = listener.read_frame()
        while opcode != PING:
            opcode, payload = listener.read_frame()
        listener.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                listener.read_frame()
        texts = b"".join(mask(TEXT, b'{"type":"setMix"}') for _ in range(20))
        listener.sock.sendall(texts + mask(PONG, payload))
        listener.sock.settimeout(10)
        events = Events(relay)
        for _ in range(20):
            events.wait(TextReceived)
        listener.next_frame()
        source.stop()


def test_a_burst_is_recent_and_a_resumption_begins_in_the_frame_it_names(
    relay: Relay, events: Events
) -> None:
    room = relay.open_room()
    peer = bind_source(relay, room)
    source = Source(peer, noise(2, 1.0))
    source.start()
    first = bind_listener(relay, room)
    seen = [first.next_frame() for _ in range(20)]
    inside = bind_listener(relay, room, from_timestamp=seen[5].timestamp + 1)
    assert inside.next_frame().sequence == seen[5].sequence
    source.join()
    relay.unbind_source(peer.connection)
    events.wait(StreamEnded)
    ended_us = relay.clock_us()
    late = bind_listener(relay, room, burst_ms=100)
    late.sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            assert late.next_frame().time_us > ended_us - 400_000


def test_an_answer_is_followed_by_its_frame_whatever_else_is_said(
    relay: Relay, events: Events
) -> None:
    room = relay.open_room()
    source = Source(bind_source(relay, room), noise(2, 3.0))
    source.start()
    listener = bind_listener(relay, room, Subscription(interval_ms=200))
    listener.next_frame()
    for _ in range(3):
        relay.subscribe(
            listener.connection,
            Subscription(mode="mix", interval_ms=200, levels=True),
            reply='{"type":"subscribed"}',
        )
        relay.send(listener.connection, '{"type":"between"}')
        listener.next_text("subscribed")
        assert isinstance(listener.receive(), Frame)
        listener.next_text("between")
        relay.subscribe(listener.connection, Subscription(interval_ms=200))
    source.stop()


def test_a_source_that_waits_for_space_is_read_again_when_another_takes_over() -> None:
    with Relay(threads=1) as relay:
        events = Events(relay)
        room = relay.open_room()
        first = bind_source(relay, room)
        packet = mask(BINARY, source_packet(np.zeros((2, 40_000), np.int16), 0))
        flood = threading.Thread(target=send_until_closed, args=(first, packet))
        flood.start()
        second = bind_source(relay, room, stream=2)
        relay.close_connection(first.connection, 4409, "taken over")
        closed = events.wait(ConnectionClosed, lambda e: e.connection == first.connection)
        flood.join()
        assert closed.reason == CloseReason.CLOSED
        second.send_packet(np.zeros((2, 9600), np.int16), 0)
        events.wait(StreamLive, lambda e: e.stream == 2)


def send_until_closed(peer: Peer, data: bytes) -> None:
    with contextlib.suppress(OSError):
        for _ in range(200):
            peer.sock.sendall(data)
        peer.wait_closed()
    peer.close()
