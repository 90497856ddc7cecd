"""The relay through its public interface: real sockets, no server."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from relaycore import Relay, RelayClosedError, Subscription
from relaycore.events import (
    BinaryReceived,
    CloseReason,
    ConnectionClosed,
    RoomReport,
    SourceReport,
    StreamBuffering,
    StreamEnded,
    StreamLive,
    TextReceived,
)
from support.peer import BINARY, CLOSE, PING, PONG, TEXT, Closed, Events, Frame, Peer, mask

RATE = 48_000
FRAME = 960
ANNOUNCE = '{"type":"streamStarted","timestamp":'
ALL = Subscription()
HEARD = Subscription(encoding="pcm_f32le")


@pytest.fixture(params=[1, 3], ids=["1-thread", "3-threads"])
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    with Relay(threads=request.param) as engine:
        yield engine
        Peer.close_all()  # or the relay would wait for their goodbyes


@pytest.fixture(autouse=True)
def _peers_are_closed() -> Iterator[None]:
    yield
    Peer.close_all()


@pytest.fixture
def events(relay: Relay) -> Events:
    return Events(relay)


class Source(threading.Thread):
    """Sends int16 planes in real time, a packet per frame, until it is told to stop or done."""

    def __init__(
        self, peer: Peer, planes: NDArray[np.int16], *, start: int = 0, samples: int = FRAME
    ) -> None:
        super().__init__(daemon=True)
        self.peer, self.planes, self.first, self.samples = peer, planes, start, samples
        self.stopped = threading.Event()

    def run(self) -> None:
        begin = time.monotonic()
        total = self.planes.shape[1]
        for at in range(0, total, self.samples):
            if self.stopped.wait(max(0.0, begin + at / RATE - time.monotonic())):
                return
            self.peer.send_packet(self.planes[:, at : at + self.samples], self.first + at)

    def stop(self) -> None:
        self.stopped.set()
        self.join()


def noise(channels: int, seconds: float, seed: int = 1) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    return rng.integers(-20000, 20000, (channels, round(seconds * RATE)), np.int16)


def bind_source(
    relay: Relay,
    room: int,
    *,
    channels: int = 2,
    stream: int = 1,
    buffer_ms: float = 100,
) -> Peer:
    peer = Peer.attach(relay)
    relay.bind_source(
        peer.connection,
        room,
        stream=stream,
        channels=channels,
        buffer_ms=buffer_ms,
        sample_rate=RATE,
        encoding="pcm_s16le",
        announce=ANNOUNCE,
        reply='{"type":"sourceRegistered"}',
    )
    assert peer.next_text()["type"] == "sourceRegistered"
    return peer


def bind_listener(
    relay: Relay, room: int, subscription: Subscription = ALL, **options: Any
) -> Peer:
    peer = Peer.attach(relay)
    relay.bind_listener(
        peer.connection, room, subscription, reply='{"type":"listenerRegistered"}', **options
    )
    assert peer.next_text()["type"] == "listenerRegistered"
    return peer


def of_stream(number: int) -> Callable[[StreamLive | StreamEnded], bool]:
    return lambda event: event.stream == number


def frames_until_end(peer: Peer, events: Events, samples: int) -> list[Frame]:
    """Frames until `samples` of audio have come."""
    frames: list[Frame] = []
    while sum(f.samples for f in frames) < samples:
        frames.append(peer.next_frame())
    return frames


def joined(frames: list[Frame]) -> NDArray[Any]:
    return np.concatenate([f.data for f in frames])


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
    frames = frames_until_end(listener, events, audio.shape[1])
    assert np.array_equal(joined(frames)[: audio.shape[1]], audio.T)
    assert np.array_equal(joined(frames_until_end(some, events, audio.shape[1])), audio[[0, 2]].T)
    assert [f.sequence for f in frames] == list(range(len(frames)))
    assert {f.stream for f in frames} == {1}
    assert all(b.timestamp == a.timestamp + a.samples for a, b in pairwise(frames))
    assert events.wait(StreamEnded).drained


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
        frames = frames_until_end(listener, events, source.planes.shape[1] - first.samples)
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
    report = events.wait(SourceReport)
    source.stop()
    assert report.connection == peer.connection
    assert len(report.received) == 2
    assert report.received[0] > 0
    assert report.target_ms >= 100


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


# ---- texts ----


def test_texts_go_both_ways_in_order(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay, response=b"")
    for i in range(100):
        peer.send_json(type="count", i=i)
    for i in range(100):
        text = events.wait(TextReceived)
        assert text.data == f'{{"type": "count", "i": {i}}}'
        relay.send(peer.connection, f'{{"type":"echo","i":{i}}}')
    assert [peer.next_text()["i"] for _ in range(100)] == list(range(100))


def test_a_stamped_text_tells_when_it_was_written(relay: Relay) -> None:
    peer = Peer.attach(relay)
    before = relay.clock_us()
    relay.send(peer.connection, '{"type":"pong","sent":', stamp=True)
    assert before <= peer.next_text()["sent"] <= relay.clock_us()


def test_a_frame_does_not_wait_for_the_one_before_it_to_be_acknowledged(relay: Relay) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        ours, _ = listener.accept()
        with ours.dup() as watched:
            relay.attach(ours)
            assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_binary_is_delivered_to_who_asks_for_it(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay, deliver_binary=True)
    peer.send(BINARY, b"\x00" * 100_000)
    assert len(events.wait(BinaryReceived).data) == 100_000
    relay.send(peer.connection, b"\x07bytes")
    assert peer.receive() == b"\x07bytes"


def test_a_connection_with_sixteen_unprocessed_texts_is_not_read_from(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    for i in range(40):
        peer.send_json(i=i)
    seen: list[Any] = []
    while len(seen) < 16:
        seen += relay.poll(limit=1)  # each poll counts the one before as processed
    while len(seen) < 40:
        seen += relay.poll()
    assert len(seen) == 40


# ---- ends ----


def test_a_close_handshake_begun_by_the_peer_is_answered(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay)
    peer.send(CLOSE, struct.pack(">H", 3001) + b"bye")
    assert peer.wait_closed().code == 3001
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code, closed.detail) == (CloseReason.PEER_CLOSED, 3001, "bye")
    assert peer.sock.recv(1) == b""


def test_a_connection_is_closed_by_its_owner_after_a_last_text(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    relay.close_connection(peer.connection, 4403, "kicked", text='{"type":"error"}')
    assert peer.next_text() == {"type": "error"}
    assert peer.receive() == Closed(4403, "kicked")
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code) == (CloseReason.CLOSED, 4403)


def test_closing_a_room_ends_its_listeners_and_its_source(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    listeners = [bind_listener(relay, room) for _ in range(5)]
    source = bind_source(relay, room)
    relay.close_room(room, text='{"type":"roomClosed"}')
    for peer in [*listeners, source]:
        assert peer.next_text() == {"type": "roomClosed"}
        assert peer.wait_closed().code == 4410
    for _ in range(6):
        assert events.wait(ConnectionClosed).reason == CloseReason.ROOM_CLOSED


@pytest.mark.parametrize(
    ("what", "code", "reason"),
    [
        (mask(BINARY, b"early"), 4400, CloseReason.PROTOCOL_ERROR),
        (mask(TEXT, b"\xff"), 1007, CloseReason.PROTOCOL_ERROR),
        (mask(TEXT, b"x" * 70_000), 1009, CloseReason.TOO_BIG),
        (b"\x81\x01x", 1002, CloseReason.PROTOCOL_ERROR),
        (b"\xf1\x80\x00\x00\x00\x00", 1002, CloseReason.PROTOCOL_ERROR),
    ],
    ids=["binary before registration", "bad UTF-8", "too big", "unmasked", "reserved bits"],
)
def test_bad_input_is_refused_with_its_code(
    relay: Relay, events: Events, what: bytes, code: int, reason: CloseReason
) -> None:
    peer = Peer.attach(relay)
    peer.sock.sendall(what)
    assert peer.wait_closed().code == code
    assert peer.sock.recv(1) == b"", "the connection is shut"
    peer.close()
    closed = events.wait(ConnectionClosed)
    assert (closed.reason, closed.code) == (reason, code)


def test_binary_from_a_listener_and_malformed_packets_are_refused(relay: Relay) -> None:
    room = relay.open_room()
    listener = bind_listener(relay, room)
    listener.send(BINARY, b"x")
    assert listener.wait_closed().code == 1003
    source = bind_source(relay, room)
    source.send(BINARY, b"not a packet")
    assert source.wait_closed().code == 4400


def test_who_does_not_register_in_time_is_closed() -> None:
    with Relay(threads=1, register_timeout_s=0.1) as relay:
        peer = Peer.attach(relay)
        assert peer.wait_closed().code == 4408
        assert Events(relay).wait(ConnectionClosed).reason == CloseReason.NOT_REGISTERED


def test_a_silent_source_is_pinged_and_then_closed() -> None:
    with Relay(threads=1, source_timeout_s=2.0, silence_timeout_s=0.2) as relay:
        events = Events(relay)
        peer = bind_source(relay, relay.open_room())
        peer.answer_pings = False
        assert peer.read_frame()[0] == PING
        assert peer.wait_closed().code == 4408
        assert events.wait(ConnectionClosed).reason == CloseReason.SOURCE_SILENT


def test_a_source_that_floods_is_closed() -> None:
    with Relay(threads=1, max_packets_per_s=50) as relay:
        peer = bind_source(relay, relay.open_room())
        with contextlib.suppress(OSError):
            for i in range(60):
                peer.send_packet(np.zeros((2, 1), np.int16), i)
        assert peer.wait_closed().code == 4429


def test_pings_of_the_peer_are_answered_in_place(relay: Relay) -> None:
    peer = Peer.attach(relay)
    peer.send(PING, b"abc")
    assert peer.read_frame() == (PONG, b"abc")


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


# ---- figures ----


def test_inspect_and_counters_tell_what_was_sent(relay: Relay, events: Events) -> None:
    room = relay.open_room()
    source = Source(bind_source(relay, room), noise(2, 2.0))
    source.start()
    peers = [bind_listener(relay, room) for _ in range(4)]
    for peer in peers:
        for _ in range(10):
            peer.next_frame()
    relay.inspect(room)
    listeners: list[Any] = []
    while len(listeners) < 4:
        listeners += events.wait(RoomReport).listeners
    assert {row.connection for row in listeners} == {p.connection for p in peers}
    assert all(row.frames_sent >= 10 for row in listeners)
    counters = relay.counters()
    assert counters.rooms[room].listeners == 4
    assert counters.rooms[room].frames_sent >= 40
    assert sum(t.listeners for t in counters.threads) == 4
    source.stop()


# ---- life and misuse ----


def count(folder: str) -> int:
    return len(list(Path(folder).iterdir()))


def test_starting_and_stopping_leaves_nothing_behind() -> None:
    def everything() -> tuple[int, int]:
        gc.collect()
        return count("/proc/self/fd"), count("/proc/self/task")

    def once() -> None:
        with Relay(threads=2) as relay:
            room = relay.open_room()
            source = bind_source(relay, room)
            listener = bind_listener(relay, room)
            source.send_packet(np.zeros((2, 4800), np.int16), 0)
            source.send_packet(np.zeros((2, 4800), np.int16), 4800)
            listener.next_frame()
            closing = threading.Thread(target=relay.close)
            closing.start()
            assert listener.wait_closed().code == 1001
            assert source.wait_closed().code == 1001
            closing.join()
            listener.close()
            source.close()

    once()
    before = everything()
    for _ in range(10):
        once()
    assert everything() == before


def test_closing_says_goodbye_and_the_last_events_can_be_polled(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    relay.send(peer.connection, "{}")
    assert peer.next_text() == {}
    closing = threading.Thread(target=relay.close)
    closing.start()
    assert peer.wait_closed().code == 1001
    closing.join()
    assert events.wait(ConnectionClosed).reason == CloseReason.SHUTDOWN
    with pytest.raises(RelayClosedError):
        relay.open_room()
    with pytest.raises(RelayClosedError):
        relay.send(peer.connection, "x")
    relay.close()


def test_a_relay_that_is_forgotten_ends_by_itself() -> None:
    before = count("/proc/self/task")
    relay = Relay(threads=2)
    assert count("/proc/self/task") == before + 2
    del relay
    gc.collect()
    assert count("/proc/self/task") == before


def test_misuse_raises_and_harms_nobody(relay: Relay, tmp_path: Path) -> None:
    room = relay.open_room()
    with pytest.raises(OSError, match="Bad file descriptor"):
        relay.attach(9999)
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="non-socket"):
        relay.attach(file.fileno())
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right, pytest.raises(ValueError, match="invalid argument"):
        relay.attach(left)
    with socket.socket() as unconnected, pytest.raises(OSError, match="not connected"):
        relay.attach(unconnected)
    with pytest.raises(ValueError, match="channels must be from 1 to 64"):
        relay.bind_source(
            1,
            room,
            stream=1,
            channels=65,
            sample_rate=RATE,
            encoding="pcm_s16le",
            announce=ANNOUNCE,
        )
    with pytest.raises(ValueError, match="faders"):
        Subscription(faders=[5.0])
    with pytest.raises(ValueError, match="channels"):
        Subscription(channels=[64])
    with pytest.raises(TypeError):
        relay.bind_listener(1, room, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1005"):
        relay.close_connection(1, 1005)
    for gone in (0, 1, 77 << 8, 2**63, 255):
        relay.send(gone, "nobody")
        relay.bind_listener(gone, room, ALL)
        relay.close_connection(gone, 1000)
        relay.close_room(gone)
        relay.unbind_source(gone)
        relay.send_room(gone, "nobody")
        relay.inspect(gone)
    peer = bind_listener(relay, room)
    relay.send(peer.connection, '{"type":"alive"}')
    assert peer.next_text() == {"type": "alive"}


def test_any_thread_may_send(relay: Relay) -> None:
    peer = Peer.attach(relay)

    def talk() -> None:
        for _ in range(200):
            relay.send(peer.connection, '{"type":"x"}')

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(800):
        assert peer.next_text() == {"type": "x"}
    for thread in threads:
        thread.join()
