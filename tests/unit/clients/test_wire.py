"""Binary messages from a client's side."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from roomserver.clients.errors import WireError
from roomserver.clients.wire import (
    HEADER,
    Encoding,
    Frame,
    Levels,
    pack_source_packet,
    parse_server_message,
    to_f32,
    to_s16,
)
from support.fake_room import Packet, pack_frame


def test_source_packet_bytes_are_those_of_the_protocol() -> None:
    planes = np.array([[1, -2, 3], [4, 5, -6]], np.int16)
    packet = pack_source_packet(
        planes,
        sequence=2**32 + 7,
        timestamp=2**40 + 1,
        time_us=1_700_000_000_000_000,
        first_channel=5,
    )
    assert packet == (
        bytes([1, 1, 0, 0])
        + struct.pack("<HHIIQQ", 5, 2, 7, 3, 2**40 + 1, 1_700_000_000_000_000)
        + struct.pack("<6h", 1, -2, 3, 4, 5, -6)
    )


def test_source_packet_takes_any_slice_and_byte_order() -> None:
    block = np.arange(24, dtype=np.float32).reshape(6, 4)
    packet = Packet(pack_source_packet(block.T[1:3], sequence=0, timestamp=9, first_channel=1))
    np.testing.assert_array_equal(packet.planes, block[:, 1:3].T)
    big = np.arange(4, dtype=">i2").reshape(1, 4)
    np.testing.assert_array_equal(
        Packet(pack_source_packet(big, sequence=0, timestamp=0)).planes, [[0, 1, 2, 3]]
    )


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5,)])
def test_source_packet_without_samples_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WireError):
        pack_source_packet(np.zeros(shape, np.int16), sequence=0, timestamp=0)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_frame_is_parsed(dtype: type) -> None:
    samples: Any = np.arange(12).reshape(4, 3).astype(dtype)
    frame = parse_server_message(
        pack_frame(samples, stream=3, sequence=9, timestamp=2**47, time_us=5, flags=3)
    )
    assert isinstance(frame, Frame)
    np.testing.assert_array_equal(frame.samples, samples)
    assert frame.samples.dtype == dtype
    assert (frame.stream, frame.sequence, frame.timestamp, frame.time_us) == (3, 9, 2**47, 5)
    assert (frame.sample_count, frame.channels) == (4, 3)
    assert frame.concealed
    assert frame.discontinuity
    assert frame.encoding is (Encoding.S16LE if dtype is np.int16 else Encoding.F32LE)


def test_levels_are_parsed() -> None:
    header = HEADER.pack(1, 3, 1, 0, 2, 2, 0, 4800, 77, 88)
    levels = parse_server_message(header + struct.pack("<4f", -1, -2, -3, -4))
    assert isinstance(levels, Levels)
    assert levels.peak_dbfs.tolist() == [-1, -3]
    assert levels.rms_dbfs.tolist() == [-2, -4]
    assert (levels.stream, levels.sample_count, levels.timestamp, levels.time_us) == (
        2,
        4800,
        77,
        88,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(31),
        bytes(32),
        HEADER.pack(2, 2, 0, 0, 1, 1, 0, 0, 0, 0),
        HEADER.pack(1, 1, 0, 0, 1, 1, 0, 0, 0, 0),
        HEADER.pack(1, 2, 2, 0, 1, 1, 0, 1, 0, 0) + bytes(2),
        HEADER.pack(1, 2, 0, 0, 1, 1, 0, 2, 0, 0) + bytes(3),
        HEADER.pack(1, 3, 1, 0, 1, 2, 0, 2, 0, 0) + bytes(8),
    ],
    ids=["empty", "short", "zeros", "version", "kind", "encoding", "length", "levels length"],
)
def test_what_is_not_the_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_server_message(data)


def test_conversion_to_16_bit_rounds_half_to_even_and_saturates() -> None:
    step = 1 / 32768
    values = np.array(
        [[0, 0.5 * step, 1.5 * step, -0.5 * step, 1.0, 2.0, -1.0, -9.0, np.nan, np.inf]], np.float32
    )
    assert to_s16(values).tolist() == [[0, 0, 2, 0, 32767, 32767, -32768, -32768, 0, 32767]]


def test_every_16_bit_value_survives_float() -> None:
    every = np.arange(-32768, 32768, dtype=np.int16).reshape(-1, 1)
    np.testing.assert_array_equal(to_s16(to_f32(every)), every)
