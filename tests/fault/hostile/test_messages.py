"""WebSocket frames and packets that are malformed, oversized, truncated or slow.

Many at a time while a source plays and a listener hears every frame: each is closed with the right
code, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import json
import struct
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest

from support.api_client import Api, source_wish
from support.hostile import (
    PING_TEXT,
    RATE,
    Bystanders,
    Hostile,
    Memory,
    all_of,
    closing,
    packet,
    raw,
    upgrade,
    wait_until_read,
)
from support.peer import BINARY, CLOSE, PING, PONG, TEXT, mask, source_packet
from support.server import ServerProcess

from .conftest import SlowSource

MAX_TEXT = 65_536
MAX_QUEUED = 1 << 20

pytestmark = pytest.mark.timeout(300)


# ---- WebSocket frames ----


FRAMES: dict[str, tuple[bytes, int]] = {
    **{f"reserved bit {bit:#x}": (raw(0x81 | bit, b"\0"), 1002) for bit in (0x10, 0x20, 0x40)},
    **{f"opcode {n:#x}": (raw(0x80 | n, b"\0"), 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "unmasked": (raw(0x81, b"\2", b"{}", masked=False), 1002),
    "unmasked close": (raw(0x88, b"\2", b"\x03\xe8", masked=False), 1002),
    "2**63 bytes": (raw(0x81, b"\x7f" + struct.pack(">Q", 2**63)), 1002),
    "2**64-1 bytes": (raw(0x81, b"\x7f" + struct.pack(">Q", 2**64 - 1)), 1002),
    "2**62 bytes": (raw(0x81, b"\x7f" + struct.pack(">Q", 2**62)), 1009),
    "one byte too many": (raw(0x81, b"\x7f" + struct.pack(">Q", MAX_TEXT + 1)), 1009),
    "a length in more bytes than it needs": (raw(0x81, b"\x7e\0\5", b"hello"), 1002),
    "a length in eight": (raw(0x81, b"\x7f" + struct.pack(">Q", 300)), 1002),
    "fragmented ping": (mask(PING, b"x", fin=False), 1002),
    "fragmented close": (mask(CLOSE, b"", fin=False), 1002),
    "long ping": (mask(PING, b"x" * 126), 1002),
    "long close": (closing(1000, b"x" * 124), 1002),
    "continuation of nothing": (mask(0, b"x"), 1002),
    "message in a message": (mask(TEXT, b"x", fin=False) + mask(TEXT, b"y"), 1002),
    "bad UTF-8": (mask(TEXT, b"\xc0\xaf"), 1007),
    "a surrogate": (mask(TEXT, b"\xed\xa0\x80"), 1007),
    "beyond Unicode": (mask(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "half a character": (mask(TEXT, b"{}\xe2\x82"), 1007),
    "bad UTF-8 in pieces": (mask(TEXT, b"\xe2", fin=False) + mask(0, b"\x28\xa1"), 1007),
    "half a close code": (mask(CLOSE, b"\x03"), 1002),
    **{f"close {code}": (closing(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999)},
    **{f"close {code}": (closing(code), 1002) for code in (5000, 65535)},
    "bad UTF-8 in a close": (closing(1000, b"\xff"), 1007),
    "a close like any": (closing(1000, "auf Wiederhören".encode()), 1000),
    "a close without code": (mask(CLOSE, b""), 1000),
    "too much in pieces": (
        mask(TEXT, b"x", fin=False) + mask(0, b"x" * 1023, fin=False) * 64 + mask(0, b"x" * 64),
        1009,
    ),
    "no message": (mask(TEXT, b"[]"), 4400),
    "nothing at all": (mask(TEXT, b""), 4400),
    "a deep one": (mask(TEXT, b"[" * 60_000), 4400),
    "deep inside": (mask(TEXT, b'{"type":"ping","t":1,"x":' + b"[" * 60_000 + b"}"), 4400),
}
ONLY_BEFORE: dict[str, tuple[bytes, int]] = {
    "binary": (mask(BINARY, source_packet(np.zeros((1, 10), np.int16), 0)), 4400),
    "2**62 bytes of binary": (raw(0x82, b"\x7f" + struct.pack(">Q", 2**62)), 4400),
    "a registration that says nothing": (mask(TEXT, b'{"type":"registerListener"}'), 4400),
}
ONLY_LISTENER: dict[str, tuple[bytes, int]] = {
    "binary": (mask(BINARY, source_packet(np.zeros((1, 10), np.int16), 0)), 1003),
    "2**62 bytes of binary": (raw(0x82, b"\x7f" + struct.pack(">Q", 2**62)), 1003),
    "the beginning of binary": (mask(BINARY, b"x", fin=False), 1003),
}


@pytest.mark.parametrize("role", ["unregistered", "listener"])
async def test_bad_frames_are_closed_with_their_code(
    server: ServerProcess, listening: dict[str, Any], role: str
) -> None:
    cases = FRAMES | (ONLY_LISTENER if role == "listener" else ONLY_BEFORE)

    async def code(frames: bytes) -> int:
        register = listening if role == "listener" else None
        async with Hostile.upgraded(server, register) as hostile:
            hostile.send(frames)
            return await hostile.closed()

    codes = await all_of({name: code(frames) for name, (frames, _) in cases.items()})
    assert codes == {name: expected for name, (_, expected) in cases.items()}


async def test_frames_that_are_strange_but_right_are_understood(
    server: ServerProcess, listening: dict[str, Any]
) -> None:
    longest = PING_TEXT[:-1] + b',"x":"' + b"x" * (MAX_TEXT - len(PING_TEXT) - 8) + b'"}'
    euro = '{"type":"ping","t":1,"x":"€"}'.encode()
    cases = {
        "empty pieces": mask(TEXT, b"", fin=False) + mask(0, b"", fin=False) * 20_000,
        "a byte each": mask(TEXT, b"", fin=False)
        + b"".join(mask(0, bytes([byte]), fin=False) for byte in euro),
        "the longest": mask(TEXT, longest, fin=False),
        "pings inside": mask(TEXT, PING_TEXT[:5], fin=False)
        + mask(PING, b"x" * 125) * 5
        + mask(PONG, b"of nothing")
        + mask(0, PING_TEXT[5:], fin=False),
    }
    assert len(longest) == MAX_TEXT - 1
    last = {name: PING_TEXT if name == "empty pieces" else b" " for name in cases}

    async def answer(name: str) -> str:
        async with Hostile.upgraded(server, listening) as hostile:
            hostile.send(cases[name] + mask(0, last[name]))
            return str((await hostile.text("pong", "error"))["type"])

    answers = await all_of({name: answer(name) for name in cases})
    assert answers == dict.fromkeys(cases, "pong")


async def test_slow_frames_are_waited_for_from_a_listener_and_not_before(
    server: ServerProcess, listening: dict[str, Any]
) -> None:
    async def registered() -> str:
        async with Hostile.upgraded(server, listening) as hostile:
            await hostile.trickle(mask(TEXT, PING_TEXT), 0.25)
            return str((await hostile.text("pong"))["type"])

    async def unregistered(frame: bytes) -> int:
        async with Hostile.upgraded(server) as hostile:
            sending = asyncio.create_task(hostile.trickle(frame, 1.0))
            code = await hostile.closed()
            sending.cancel()
            return code

    pong, *codes = await asyncio.gather(
        registered(),
        unregistered(mask(TEXT, PING_TEXT * 10)),
        unregistered(raw(0x81, b"\x7f" + struct.pack(">Q", MAX_TEXT))),
        unregistered(b""),
        unregistered(mask(PING, b"") * 100),
    )
    assert pong == "pong"
    assert codes == [4408] * 4


async def test_a_message_cut_off_in_the_middle_is_over(
    server: ServerProcess, listening: dict[str, Any]
) -> None:
    """Truncated: the client ends its side, and waits for what the server says to that."""
    frame = mask(TEXT, PING_TEXT)

    async def code(cut: int) -> int:
        async with Hostile.upgraded(server, listening) as hostile:
            hostile.send(frame[:cut])
            hostile.writer.write_eof()
            return await hostile.closed()

    assert set(await asyncio.gather(*map(code, range(len(frame))))) == {1006}


async def test_whoever_asks_without_end_and_reads_no_answer_is_reset(
    server: ServerProcess, listening: dict[str, Any]
) -> None:
    """Pings of either kind: what waits for a client is bounded."""
    before = Memory.of(server)

    async def flood(question: bytes) -> None:
        async with Hostile.upgraded(server, listening) as hostile:
            hostile.writer.transport.pause_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(60):
                while True:
                    hostile.send(question * 500)
                    await hostile.writer.drain()

    questions = [mask(TEXT, PING_TEXT), mask(PING, b"x" * 125)] * 4
    ends = await asyncio.gather(*map(flood, questions), return_exceptions=True)
    assert all(isinstance(end, ConnectionError) for end in ends), ends
    # Answers that wait, and the questions before them: 16 texts and what was read behind those.
    assert Memory.of(server).since(before) < len(questions) * 2 * MAX_QUEUED + (8 << 20)


# ---- packets ----


PACKETS: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 4400),
    "half a header": (packet()[:31], 4400),
    "version 0": (packet(version=0), 4400),
    "version 2": (packet(version=2), 4400),
    "a frame": (packet(kind=2), 4400),
    "flags": (packet(flags=1), 4400),
    "another encoding": (packet(bytes(80), encoding=1), 4400),
    "a reserved encoding": (packet(encoding=2), 4400),
    "no channels": (packet(b"", channels=0), 4400),
    "a channel too many": (packet(bytes(60), channels=3), 4400),
    "channels beyond the last": (packet(first=1), 4400),
    "65535 channels": (packet(channels=65535), 4400),
    "first channel 65535": (packet(first=65535), 4400),
    "no samples": (packet(b"", samples=0), 4400),
    "a byte too few": (packet(bytes(39)), 4400),
    "a byte too many": (packet(bytes(41)), 4400),
    "less than it says": (packet(samples=RATE), 4400),
    "more than a second": (packet(samples=RATE + 1), 1009),
    "2**32-1 samples": (packet(samples=2**32 - 1), 1009),
    "longer than a second": (bytes(32 + 4 * RATE + 1), 1009),
}
GOOD_PACKETS = {
    "the last timestamp": packet(timestamp=2**64 - 1),
    "2**63": packet(timestamp=2**63),
    "a time beyond all": packet(time_us=2**64 - 1),
    "a whole second": packet(bytes(4 * RATE), samples=RATE),
    "the last sequence": packet(sequence=2**32 - 1),
}


async def test_bad_packets_are_closed_with_their_code(server: ServerProcess, api: Api) -> None:
    access = (await api.login())["accessToken"]

    async def answer(sent: bytes, every_s: float = 0) -> int:
        room = await api.create_room(access)
        register = {"type": "registerSource", **source_wish(room)}
        async with Hostile.upgraded(server, register) as hostile:
            if every_s:
                await hostile.trickle(mask(BINARY, sent), every_s)
            else:
                hostile.send(mask(BINARY, sent))
            hostile.send(mask(TEXT, PING_TEXT))
            opcode, payload = await hostile.frame()
            while opcode == TEXT and json.loads(payload)["type"] != "pong":
                opcode, payload = await hostile.frame()
            return int.from_bytes(payload[:2], "big") if opcode == CLOSE else 0

    cases = PACKETS | {name: (sent, 0) for name, sent in GOOD_PACKETS.items()}
    answers = await all_of(
        {name: answer(sent) for name, (sent, _) in cases.items()}
        | {"slow": answer(packet(), 0.03), "slow and bad": answer(packet(flags=1), 0.03)}
    )
    expected = {name: code for name, (_, code) in cases.items()}
    assert answers == expected | {"slow": 0, "slow and bad": 4400}


def test_a_packet_may_take_a_second_for_each_byte(
    slow_packets: Future[dict[str, SlowSource]],
) -> None:
    """A source that sends is not silent; its packet counts, or is refused, when it is whole."""
    sources = slow_packets.result(timeout=240)
    whole_s = len(mask(BINARY, packet(bytes(2), channels=1, samples=1))) - 1
    assert {name: (s.closed, s.received) for name, s in sources.items()} == {
        "good": (0, 1),
        "bad": (4400, 0),
    }
    assert all(s.seconds > whole_s for s in sources.values()), sources


# ---- memory ----


async def test_200_clients_at_their_limits_cost_no_more_than_these(
    server: ServerProcess, api: Api, listening: dict[str, Any], everyone: Bystanders
) -> None:
    """Each holds what it may, one byte short of a whole message; then again, and again."""
    listeners, sources, heads = 150, 10, 40
    text = PING_TEXT[:-1] + b',"x":"' + b"x" * (MAX_TEXT - len(PING_TEXT) - 7) + b'"}'
    assert len(text) == MAX_TEXT
    text_frame = mask(TEXT, text)
    binary_frame = mask(BINARY, packet(bytes(4 * RATE), samples=RATE))
    head = upgrade(X="a" * 8000, Y="b" * 8000)[:-2]
    access = (await api.login())["accessToken"]
    rooms = [await api.create_room(access) for _ in range(sources)]
    # What they may hold: their messages, a head as bytes, as text and in pieces; and 4 MiB for all
    # that an allocator keeps for later.
    held = listeners * len(text) + sources * len(binary_frame) + heads * 4 * len(head)
    slack = 4 << 20

    async def attack() -> tuple[Memory, Memory, Memory]:
        """Memory before, at the word of headers, and at the limit."""
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            talkers = [await enter(Hostile.upgraded(server, listening)) for _ in range(listeners)]
            players = [
                await enter(
                    Hostile.upgraded(server, {"type": "registerSource", **source_wish(room)})
                )
                for room in rooms
            ]
            before = Memory.of(server)
            for client, frame in [(c, text_frame) for c in talkers] + [
                (c, binary_frame) for c in players
            ]:
                client.send(frame[:20])
            await wait_until_read(server)
            promised = Memory.of(server)
            askers = [await enter(Hostile.open(server)) for _ in range(heads)]
            for asker in askers:
                asker.send(head)
            for talker in talkers:
                talker.send(text_frame[20:-1])
            for player in players:
                player.send(binary_frame[20:-1])
            for client in [*talkers, *players]:
                await client.writer.drain()
            await wait_until_read(server)
            full = Memory.of(server)
            for talker in talkers:
                talker.send(text_frame[-1:])
            for talker in talkers:
                await talker.text("pong")
        everyone.check()
        return before, promised, full

    rounds = [await attack() for _ in range(3)]
    print(
        [(before, promised.since(before), full.since(before)) for before, promised, full in rounds]
    )
    for before, promised, full in rounds:
        assert promised.since(before) < slack, "memory was taken on the word of a header"
        assert full.since(before) < held + slack
    first = rounds[0][-1]
    assert rounds[-1][-1].since(first) < slack, "it grows with every round"
    assert Memory.of(server).since(first) < slack
