"""The rules of RFC 6455 as they show on the wire of a `Relay`: what the codec's own tests
(`tests/native/test_ws_codec.cpp`) hold byte by byte, here with sockets, events and answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from relaycore import Relay
from relaycore.events import BinaryReceived, CloseReason, ConnectionClosed, TextReceived
from support.peer import BINARY, CLOSE, PING, PONG, TEXT, Events, Peer, mask

MORE = 0  # the opcode of a continuation
SPOKEN = "aé€🎧z"  # characters of one to four bytes, and one


@pytest.fixture
def small() -> Iterator[Relay]:
    with Relay(threads=1, max_text_bytes=1000, max_binary_bytes=3000) as engine:
        yield engine
        Peer.close_all()


def fragments(opcode: int, *parts: bytes) -> list[bytes]:
    """The frames of one message."""
    last = len(parts) - 1
    return [mask(opcode if i == 0 else MORE, p, fin=i == last) for i, p in enumerate(parts)]


# ---- framing, fragmentation, control frames ----


def test_a_ping_between_fragments_is_answered_before_the_message_is_whole(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    first, second, third = fragments(TEXT, b"one ", b"two ", b"three")
    for n, piece in enumerate((first, second)):
        peer.sock.sendall(piece + mask(PING, b"%d" % n))
        assert peer.read_frame() == (PONG, b"%d" % n)
    peer.sock.sendall(third)
    assert events.wait(TextReceived).data == "one two three"


def test_a_message_that_comes_byte_by_byte_is_one(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay, deliver_binary=True)
    wire = (
        b"".join(fragments(TEXT, b"al", b"", b"l")) + mask(PING, b"p") + mask(BINARY, b"\xff" * 200)
    )
    for i in range(len(wire)):
        peer.sock.sendall(wire[i : i + 1])
    assert events.wait(TextReceived).data == "all"
    assert events.wait(BinaryReceived).data == b"\xff" * 200
    assert peer.read_frame() == (PONG, b"p")


def test_pings_of_every_length_come_back_and_pongs_that_nobody_asked_for_do_not(
    relay: Relay,
) -> None:
    peer = Peer.attach(relay)
    for n in range(126):
        peer.send(PONG, b"x" * n)
        peer.send(PING, b"y" * n)
    for n in range(126):
        assert peer.read_frame() == (PONG, b"y" * n)


@pytest.mark.parametrize(
    "wire",
    [
        b"".join(fragments(TEXT, b"a", b"b")[:1]) + mask(TEXT, b"c"),
        mask(MORE, b"a"),
        mask(PING, b"a", fin=False),
        mask(CLOSE, b"\x03\xe8", fin=False),
        b"\x89\xfe\x00\x7e",
        b"\x83\x80\x00\x00\x00\x00",
        b"\x8b\x80\x00\x00\x00\x00",
        b"\xc1\x80\x00\x00\x00\x00",
        b"\x81\xfe\x00\x7d\x00\x00\x00\x00",
        b"\x81\xff" + b"\xff" * 8 + b"\x00" * 4,
        b"\x81\x00",
    ],
    ids=[
        "message inside a message",
        "continuation of nothing",
        "ping in fragments",
        "close in fragments",
        "long ping",
        "reserved opcode",
        "reserved control opcode",
        "reserved bit",
        "length not in its shortest form",
        "length with the top bit",
        "no mask",
    ],
)
def test_a_breach_of_framing_closes_with_1002(relay: Relay, events: Events, wire: bytes) -> None:
    peer = Peer.attach(relay)
    peer.sock.sendall(wire)
    assert peer.wait_closed().code == 1002
    assert peer.sock.recv(1) == b""
    peer.close()
    assert events.wait(ConnectionClosed).reason == CloseReason.PROTOCOL_ERROR


# ---- UTF-8 ----


def test_characters_may_be_split_between_fragments_anywhere(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay)
    data = SPOKEN.encode()
    for a in range(len(data) + 1):
        for b in range(a, len(data) + 1):
            peer.sock.sendall(b"".join(fragments(TEXT, data[:a], data[a:b], data[b:])))
            assert events.wait(TextReceived).data == SPOKEN


@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28", b"\x80"],
    ids=["no lead", "overlong", "surrogate", "beyond Unicode", "cut short", "lone tail"],
)
def test_bad_utf8_closes_with_1007_before_the_message_is_whole(relay: Relay, bad: bytes) -> None:
    for wire in (
        mask(TEXT, b"good " + bad + b" and much more" * 10)[: 6 + 2 + 5 + len(bad)],
        mask(TEXT, SPOKEN.encode() + bad, fin=False),
    ):
        peer = Peer.attach(relay)
        peer.sock.sendall(wire)
        assert peer.wait_closed().code == 1007


def test_half_a_character_at_the_end_closes_with_1007(relay: Relay) -> None:
    data = SPOKEN.encode()
    for n in (2, 4, 5, 7, 8, 9):  # within é, € and 🎧
        peer = Peer.attach(relay)
        peer.send(TEXT, data[:n])
        assert peer.wait_closed().code == 1007


# ---- limits ----


@pytest.mark.parametrize(("opcode", "most"), [(TEXT, 1000), (BINARY, 3000)], ids=["text", "binary"])
def test_the_longest_message_is_taken_and_a_byte_more_closes_with_1009(
    small: Relay, opcode: int, most: int
) -> None:
    events = Events(small)
    peer = Peer.attach(small, deliver_binary=True)
    peer.send(opcode, b"x" * most)
    peer.sock.sendall(b"".join(fragments(opcode, b"x" * (most - 1), b"x")))
    for _ in range(2):
        if opcode == TEXT:
            assert events.wait(TextReceived).data == "x" * most
        else:
            assert events.wait(BinaryReceived).data == b"x" * most
    for wire in (
        mask(opcode, b"x" * (most + 1))[:100],  # by the header alone
        b"".join(fragments(opcode, b"x" * most, b"x", b"")[:2]),
    ):
        peer = Peer.attach(small, deliver_binary=True)
        peer.sock.sendall(wire)
        assert peer.wait_closed().code == 1009
        peer.close()
        assert events.wait(ConnectionClosed).reason == CloseReason.TOO_BIG


# ---- close handshake ----


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"", 1000),
        (struct.pack(">H", 1000), 1000),
        (struct.pack(">H", 1001) + b"r" * 123, 1001),
        (struct.pack(">H", 3000) + "é".encode(), 3000),
        (struct.pack(">H", 4999), 4999),
        (b"\x03", 1002),
        *((struct.pack(">H", code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
        (struct.pack(">H", 1000) + b"\xff", 1007),
    ],
)
def test_a_close_is_answered_with_its_code_or_with_what_is_wrong_with_it(
    relay: Relay, events: Events, said: bytes, answered: int
) -> None:
    peer = Peer.attach(relay)
    peer.send(CLOSE, said)
    opcode, payload = peer.read_frame()
    assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", answered))
    assert peer.sock.recv(1) == b"", "the server ends the connection, not the client"
    peer.close()
    closed = events.wait(ConnectionClosed)
    if answered in (1002, 1007):
        assert (closed.reason, closed.code) == (CloseReason.PROTOCOL_ERROR, answered)
    else:
        assert (closed.reason, closed.code) == (
            CloseReason.PEER_CLOSED,
            answered if said else 1005,
        )
        assert closed.detail == said[2:].decode()


def test_nothing_is_heard_after_a_close(relay: Relay, events: Events) -> None:
    peer = Peer.attach(relay)
    peer.sock.sendall(mask(CLOSE, b"\x03\xe8") + mask(TEXT, b"late") + mask(PING, b"late"))
    assert peer.read_frame() == (CLOSE, b"\x03\xe8")
    assert peer.sock.recv(1) == b""
    events.wait(ConnectionClosed)
    assert not [event for event in events.seen if isinstance(event, TextReceived)]


def test_both_sides_may_close_at_once(relay: Relay, events: Events) -> None:
    for _ in range(50):
        peer = Peer.attach(relay)
        relay.close_connection(peer.connection, 4001)
        peer.send(CLOSE, struct.pack(">H", 3001))
        opcode, payload = peer.read_frame()
        assert opcode == CLOSE
        assert struct.unpack(">H", payload[:2])[0] in (3001, 4001)
        assert peer.sock.recv(1) == b"", "one close frame from each is enough"
        peer.close()
        assert events.wait(ConnectionClosed).connection == peer.connection
    assert not [event for event in events.seen if isinstance(event, ConnectionClosed)]


def test_a_close_that_is_not_answered_ends_the_connection_all_the_same(
    relay: Relay, events: Events
) -> None:
    peer = Peer.attach(relay)
    relay.close_connection(peer.connection, 4001)
    assert peer.read_frame()[0] == CLOSE
    closed = events.wait(ConnectionClosed)  # while the peer's side stays open
    assert (closed.reason, closed.code) == (CloseReason.CLOSED, 4001)
