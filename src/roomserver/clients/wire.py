"""Binary messages of the relay protocol, seen from a client.

Source packets are packed, frames and levels are parsed. Integers are little-endian, the header is
32 bytes (``docs/protocol.md``, section 2). Pure functions; any thread may call them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from roomserver.clients.errors import WireError

#: int16 or float32 samples.
Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]

VERSION: Final = 1
KIND_SOURCE_PACKET: Final = 1
KIND_FRAME: Final = 2
KIND_LEVELS: Final = 3
FLAG_CONCEALED: Final = 1
FLAG_DISCONTINUITY: Final = 2
HEADER: Final = struct.Struct("<BBBBHHIIQQ")
SAMPLE_RATES: Final = (8000, 16000, 24000, 32000, 44100, 48000, 88200, 96000)
FRAME_LENGTHS_MS: Final = (5, 10, 20, 40, 60)
MAX_CHANNELS: Final = 64


class Encoding(StrEnum):
    """How samples travel; the value is the name used in JSON."""

    S16LE = "pcm_s16le"
    F32LE = "pcm_f32le"

    @property
    def wire_code(self) -> int:
        """The number in byte 2 of a binary header."""
        return 0 if self is Encoding.S16LE else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of one sample, little-endian."""
        return np.dtype("<i2") if self is Encoding.S16LE else np.dtype("<f4")

    @classmethod
    def of(cls, samples: Samples) -> Encoding:
        """The encoding that carries an array's values as they are."""
        return cls.S16LE if samples.dtype == np.int16 else cls.F32LE


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame of a room: every subscribed channel over the same samples.

    ``samples`` has the shape (samples, channels) and is a read-only view of the message.
    ``timestamp`` counts samples on the room's timeline, ``time_us`` is the tick's deadline on the
    server's clock.
    """

    encoding: Encoding
    concealed: bool
    discontinuity: bool
    stream: int
    sequence: int
    timestamp: int
    time_us: int
    samples: Samples

    @property
    def sample_count(self) -> int:
        """Samples per channel."""
        return int(self.samples.shape[0])

    @property
    def channels(self) -> int:
        """Channels in the payload."""
        return int(self.samples.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Levels of all channels of a room over ``sample_count`` samples, in dBFS (float32)."""

    stream: int
    sample_count: int
    timestamp: int
    time_us: int
    peak_dbfs: NDArray[np.float32]
    rms_dbfs: NDArray[np.float32]


def to_s16(samples: Samples) -> NDArray[np.int16]:
    """Convert to 16 bit: full scale 2**15, round half to even, saturate, NaN becomes 0."""
    if samples.dtype == np.int16:
        return samples.astype(np.int16, copy=False)
    scaled = np.rint(np.nan_to_num(samples.astype(np.float64) * 32768.0, nan=0.0))
    return np.clip(scaled, -32768.0, 32767.0).astype(np.int16)


def to_f32(samples: Samples) -> NDArray[np.float32]:
    """Convert to float32 with full scale 1.0 (exact for 16-bit input)."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) * np.float32(1 / 32768)
    return samples.astype(np.float32, copy=False)


def convert(samples: Samples, encoding: Encoding) -> Samples:
    """Convert to the sample type of an encoding."""
    return to_s16(samples) if encoding is Encoding.S16LE else to_f32(samples)


def pack_source_packet(
    planes: Samples,
    *,
    sequence: int,
    timestamp: int,
    time_us: int = 0,
    first_channel: int = 0,
) -> bytes:
    """Make a source packet.

    Args:
        planes: Shape (channels, samples), int16 or float32; the dtype says the encoding.
        sequence: Number of the packet; taken modulo 2**32.
        timestamp: First sample on the source's clock, 0 … 2**64-1.
        time_us: Unix microseconds of the first sample by the source's clock, 0 = unknown.
        first_channel: Index of the first plane.

    Raises:
        WireError: ``planes`` is not two-dimensional, or has no channel or no sample.
    """
    if planes.ndim != 2 or planes.shape[0] < 1 or planes.shape[1] < 1:
        raise WireError(f"a packet needs channels and samples, not the shape {planes.shape}")
    encoding = Encoding.of(planes)
    header = HEADER.pack(
        VERSION,
        KIND_SOURCE_PACKET,
        encoding.wire_code,
        0,
        first_channel,
        planes.shape[0],
        sequence & 0xFFFFFFFF,
        planes.shape[1],
        timestamp,
        time_us,
    )
    return header + planes.astype(encoding.dtype, copy=False).tobytes()


def parse_server_message(data: bytes) -> Frame | Levels:
    """Parse a binary message of the server.

    Raises:
        WireError: It is not a frame or a levels message of this version, or its length does not
            agree with its header.
    """
    if len(data) < HEADER.size:
        raise WireError(f"a binary message of {len(data)} bytes has no room for its header")
    (version, kind, code, flags, stream, channels, sequence, count, timestamp, time_us) = (
        HEADER.unpack_from(data)
    )
    if version != VERSION:
        raise WireError(f"binary message of version {version}, this client speaks {VERSION}")
    if kind == KIND_FRAME:
        if code > 1:
            raise WireError(f"frame in the unknown encoding {code}")
        encoding = Encoding.F32LE if code else Encoding.S16LE
        expected = channels * count * encoding.dtype.itemsize
        _check_payload("frame", data, expected)
        samples = np.frombuffer(data, encoding.dtype, offset=HEADER.size)
        return Frame(
            encoding,
            bool(flags & FLAG_CONCEALED),
            bool(flags & FLAG_DISCONTINUITY),
            stream,
            sequence,
            timestamp,
            time_us,
            samples.reshape(count, channels),
        )
    if kind == KIND_LEVELS:
        _check_payload("levels message", data, channels * 8)
        pairs = np.frombuffer(data, "<f4", offset=HEADER.size).reshape(channels, 2)
        return Levels(stream, count, timestamp, time_us, pairs[:, 0], pairs[:, 1])
    raise WireError(f"binary message of the unknown kind {kind}")


def _check_payload(what: str, data: bytes, expected: int) -> None:
    if len(data) - HEADER.size != expected:
        raise WireError(
            f"{what} of {len(data) - HEADER.size} payload bytes, its header says {expected}"
        )
