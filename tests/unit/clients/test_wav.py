"""WAV streams: what is read, what is written, and what is refused with which words."""

from __future__ import annotations

import io
import os
import struct
import threading
import wave
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomserver.clients.errors import ClientError
from roomserver.clients.source import LoopedWav, RawReader, open_source
from roomserver.clients.wav import WavError, WavReader, WavWriter
from roomserver.clients.wire import Encoding

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    length = len(body) if size is None else size
    return name + struct.pack("<I", length) + body + b"\0" * (len(body) % 2)


def fmt(
    tag: int, channels: int, bits: int, rate: int = 48000, *, extensible: bool = False
) -> bytes:
    block = channels * bits // 8
    common = struct.pack("<HIIHH", channels, rate, rate * block, block, bits)
    if not extensible:
        return chunk(b"fmt ", struct.pack("<H", tag) + common)
    tail = struct.pack("<HHIH", 22, bits, 0, tag) + GUID_TAIL
    return chunk(b"fmt ", struct.pack("<H", 0xFFFE) + common + tail)


def riff(*chunks: bytes, tag: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return tag + struct.pack("<I", len(body) if size is None else size) + body


def read_all(data: bytes, step: int = 1000) -> np.ndarray:
    reader = WavReader(io.BytesIO(data), "t.wav")
    pieces = []
    while (piece := reader.read(step)).shape[0]:
        pieces.append(piece)
    return np.concatenate(pieces) if pieces else reader.read(0)


class Pipe(io.RawIOBase):
    """A stream that cannot be sought and gives a few bytes at a time."""

    def __init__(self, data: bytes, piece: int = 7) -> None:
        self._data = io.BytesIO(data)
        self._piece = piece

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self._data.read(min(len(buffer), self._piece))
        buffer[: len(piece)] = piece
        return len(piece)


INTEGERS = np.array([[0, 1], [-1, 127], [-128, 300], [32767, -32768]])


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(
    ("tag", "bits", "encode", "expected"),
    [
        (1, 16, lambda v: v.astype("<i2").tobytes(), INTEGERS),
        (
            1,
            24,
            lambda v: (v * 256).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
            INTEGERS / 32768,
        ),
        (1, 32, lambda v: (v * 65536).astype("<i4").tobytes(), INTEGERS / 32768),
        (3, 32, lambda v: (v / 32768).astype("<f4").tobytes(), INTEGERS / 32768),
        (3, 64, lambda v: (v / 32768).astype("<f8").tobytes(), INTEGERS / 32768),
    ],
    ids=["s16", "s24", "s32", "f32", "f64"],
)
def test_every_sample_format_is_read_exactly(tag, bits, encode, expected, extensible) -> None:  # type: ignore[no-untyped-def]
    data = riff(fmt(tag, 2, bits, extensible=extensible), chunk(b"data", encode(INTEGERS)))
    samples = read_all(data)
    np.testing.assert_array_equal(samples, expected)
    assert samples.dtype == (np.int16 if bits == 16 else np.float32)


def test_24_bit_keeps_its_lowest_bit() -> None:
    data = riff(fmt(1, 1, 24), chunk(b"data", b"\x01\0\0" + b"\xff\xff\xff" + b"\xff\xff\x7f"))
    assert (read_all(data) * 2**23).ravel().tolist() == [1.0, -1.0, 2**23 - 1]


def test_chunks_of_odd_length_and_unknown_ones_are_passed_over() -> None:
    data = riff(
        chunk(b"LIST", b"abc"),
        fmt(1, 1, 16),
        chunk(b"bext", b"x" * 601),
        chunk(b"data", struct.pack("<3h", 1, 2, 3)),
        chunk(b"id3 ", b"not audio"),
    )
    assert read_all(data).ravel().tolist() == [1, 2, 3]


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_a_pipe_is_read_without_seeking(piece: int) -> None:
    values = np.arange(5000, dtype="<i2").reshape(-1, 5)
    data = riff(chunk(b"JUNK", bytes(27)), fmt(1, 5, 16), chunk(b"data", values.tobytes()))
    reader = WavReader(Pipe(data, piece), "pipe")  # type: ignore[arg-type]
    assert reader.skip(100) == 100
    np.testing.assert_array_equal(reader.read(300), values[100:400])
    assert not reader.rewind()


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0])
def test_a_streamed_file_ends_where_its_bytes_end(size: int) -> None:
    body = chunk(b"data", struct.pack("<4h", 1, 2, 3, 4), size)
    data = riff(fmt(1, 1, 16), body, size=size)
    reader = WavReader(io.BytesIO(data), "t.wav")
    assert reader.total is None
    assert reader.read(100).ravel().tolist() == [1, 2, 3, 4]
    assert reader.read(100).shape == (0, 1)


def test_a_truncated_file_ends_at_its_last_whole_sample() -> None:
    data = riff(fmt(1, 2, 16), chunk(b"data", bytes(400)))[:-13]
    reader = WavReader(io.BytesIO(data), "t.wav")
    assert reader.total == 100
    assert reader.read(1000).shape == (96, 2)
    assert reader.read(1000).shape == (0, 2)


def test_an_empty_data_chunk_is_no_audio() -> None:
    assert read_all(riff(fmt(1, 2, 16), chunk(b"data", b""))).shape == (0, 2)


def test_rf64_sizes_come_from_ds64(tmp_path: Path) -> None:
    path = tmp_path / "big.wav"
    count = (5 << 30) // 4
    ds64 = struct.pack("<QQQI", 0, count * 4, count, 1) + struct.pack("<4sQ", b"bigc", 10)
    head = (
        riff(chunk(b"ds64", ds64), tag=b"RF64", size=0xFFFFFFFF)
        + chunk(b"bigc", bytes(10), 0xFFFFFFFF)
        + fmt(1, 2, 16)
        + b"data\xff\xff\xff\xff"
    )
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + count * 4)  # sparse: costs no disk
        file.seek(-4, os.SEEK_END)
        file.write(struct.pack("<2h", 11, -12))
    reader = WavReader.open(path)
    assert reader.total == count
    assert reader.skip(count - 1) == count - 1
    assert reader.read(10).tolist() == [[11, -12]]
    assert reader.skip(1) == 0
    assert reader.rewind()
    assert reader.read(2).tolist() == [[0, 0], [0, 0]]
    reader.close()


@pytest.mark.parametrize(
    ("data", "offset", "words"),
    [
        (b"", 0, "ends inside the RIFF header"),
        (b"OggS" + bytes(40), 0, "not a WAV file"),
        (b"RIFF\0\0\0\0AVI " + bytes(40), 8, "not WAVE"),
        (riff(), 12, "before its data chunk"),
        (riff(chunk(b"data", bytes(8))), 12, "before the fmt chunk"),
        (riff(chunk(b"fmt ", bytes(6))), 12, "6 bytes"),
        (riff(fmt(1, 2, 8)), 20, "8 bits"),
        (riff(fmt(6, 2, 16)), 20, "format tag 6"),
        (riff(fmt(1, 0, 16)), 22, "0 channels"),
        (riff(fmt(1, 65, 16)), 22, "65 channels"),
        (riff(fmt(1, 2, 16, rate=0)), 24, "rate of 0"),
        (riff(fmt(1, 2, 16))[:30], 20, "ends inside the chunk"),
        (riff(b"LIST\xff\xff\xff\xff"), 12, "claims"),
        (riff(chunk(b"ds64", bytes(5)), tag=b"RF64"), 12, "ds64 chunk of 5"),
    ],
)
def test_what_cannot_be_read_is_named_with_file_and_offset(
    data: bytes, offset: int, words: str
) -> None:
    with pytest.raises(WavError, match=words) as caught:
        WavReader(io.BytesIO(data), "take 1.wav")
    assert str(caught.value).startswith("take 1.wav: at byte ")
    assert abs(caught.value.offset - offset) <= 0, caught.value


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_samples_or_a_wav_error(tail: bytes) -> None:
    for data in (tail, riff(tail), riff(fmt(1, 2, 16), tail), riff(tail, tag=b"RF64")):
        try:
            samples = read_all(data)
        except WavError:
            continue
        assert samples.ndim == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WavError, match=r"none\.wav.*No such file"):
        WavReader.open(tmp_path / "none.wav")


# -- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 16, 64])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_what_was_written_is_read_back(tmp_path: Path, channels: int, encoding: Encoding) -> None:
    path = tmp_path / "out.wav"
    samples = (np.arange(999 * channels).reshape(-1, channels) % 20011).astype(encoding.dtype)
    writer = WavWriter(path, channels, 44100, encoding)
    writer.write(samples[:500])
    writer.write(np.asfortranarray(samples[500:]))
    writer.write_silence(70000)
    writer.close()
    writer.close()
    reader = WavReader.open(path)
    assert (reader.channels, reader.sample_rate, reader.encoding) == (channels, 44100, encoding)
    assert reader.total == 999 + 70000
    np.testing.assert_array_equal(reader.read(999), samples)
    assert not reader.read(80000).any()
    reader.close()


def test_the_standard_library_reads_it_too(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    writer = WavWriter(path, 2, 48000, Encoding.S16LE)
    writer.write(np.array([[1, 2], [3, 4]], np.int16))
    writer.close()
    with wave.open(str(path)) as other:
        assert (other.getnchannels(), other.getframerate(), other.getnframes()) == (2, 48000, 2)
        assert other.readframes(2) == struct.pack("<4h", 1, 2, 3, 4)
    assert path.stat().st_size == 8 + struct.unpack("<I", path.read_bytes()[4:8])[0]


def test_a_file_that_outgrows_riff_becomes_rf64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WavWriter, "riff_limit", 50_000)
    path = tmp_path / "out.wav"
    samples = np.arange(40_000, dtype=np.int16).reshape(-1, 2)
    writer = WavWriter(path, 2, 8000, Encoding.S16LE)
    writer.write(samples[:8000])
    assert path.read_bytes()[:4] == b"RIFF"
    writer.write(samples[8000:])
    assert path.read_bytes()[:4] == b"RF64"
    writer.close()
    data = path.read_bytes()
    assert data[12:16] == b"ds64"
    assert struct.unpack_from("<QQQ", data, 20) == (len(data) - 8, 80_000, 20_000)
    reader = WavReader.open(path)
    assert reader.total == 20_000
    np.testing.assert_array_equal(reader.read(30_000), samples)
    reader.close()


def test_the_limit_of_riff_is_that_of_32_bits() -> None:
    assert WavWriter.riff_limit == 2**32 - 2


def test_a_recording_that_was_killed_keeps_what_its_header_promises(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    writer = WavWriter(path, 1, 8000, Encoding.S16LE)
    for _ in range(5):
        writer.write(np.ones((4000, 1), np.int16))
    reader = WavReader.open(path)  # as another process would find it now
    assert reader.total == 16_000
    assert reader.read(20_000).sum() == 16_000
    reader.close()
    writer.close()


def test_to_a_pipe_a_streamed_file_is_written() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as source:
        received: list[np.ndarray] = []

        def read() -> None:
            reader = WavReader(source, "pipe")
            assert reader.total is None
            received.append(reader.read(10_000))

        thread = threading.Thread(target=read)
        thread.start()
        with os.fdopen(write_end, "wb") as sink:
            writer = WavWriter(sink, 2, 8000, Encoding.F32LE)
            writer.write(np.full((9000, 2), 0.25, np.float32))
            writer.close()
            assert not sink.closed
        thread.join(10)
    assert received[0].shape == (9000, 2)


def test_the_writer_takes_only_its_own_format(tmp_path: Path) -> None:
    writer = WavWriter(tmp_path / "out.wav", 2, 8000, Encoding.S16LE)
    with pytest.raises(ValueError, match="shape"):
        writer.write(np.zeros((4, 3), np.int16))
    with pytest.raises(ValueError, match="dtype"):
        writer.write(np.zeros((4, 2), np.float32))
    writer.close()
    with pytest.raises(ValueError, match="channels"):
        WavWriter(tmp_path / "out.wav", 65, 8000, Encoding.S16LE)


# -- sources ---------------------------------------------------------------------------------


def write_wav(path: Path, samples: np.ndarray, rate: int = 48000) -> Path:
    writer = WavWriter(path, samples.shape[1], rate, Encoding.of(samples))
    writer.write(samples)
    writer.close()
    return path


def test_a_loop_has_no_seam_and_skips_around_the_end(tmp_path: Path) -> None:
    samples = np.arange(70, dtype=np.int16).reshape(-1, 1)
    source = LoopedWav(WavReader.open(write_wav(tmp_path / "in.wav", samples)))
    assert (source.read(200).ravel() == np.arange(200) % 70).all()
    assert source.skip(1000) == 1000
    assert (source.read(100).ravel() == np.arange(1200, 1300) % 70).all()
    source.close()


def test_an_empty_file_or_a_pipe_cannot_be_looped(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "in.wav", np.zeros((0, 2), np.int16))
    with pytest.raises(ClientError, match="no audio"):
        open_source(str(path), loop=True)
    data = riff(fmt(1, 1, 16), chunk(b"data", bytes(8)))
    with pytest.raises(ClientError, match="cannot be looped"):
        LoopedWav(WavReader(Pipe(data), "pipe"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "dtype"), [("s16le", "<i2"), ("f32le", "<f4")])
def test_raw_pcm_is_read_from_a_pipe(name: str, dtype: str) -> None:
    values = np.arange(30).astype(dtype).reshape(-1, 3)
    stream: BinaryIO = Pipe(values.tobytes() + b"\x01")  # type: ignore[assignment]
    reader = RawReader(stream, name, 3, 48000, "stdin")
    assert reader.skip(2) == 2
    np.testing.assert_array_equal(reader.read(100), values[2:])
    assert reader.read(5).shape == (0, 3)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = str(write_wav(tmp_path / "in.wav", np.zeros((10, 1), np.int16), rate=22050))
    with pytest.raises(ClientError, match="22050 Hz"):
        open_source(path)
    with pytest.raises(ClientError, match="WAV file says its own"):
        open_source(path, channels=2)
    with pytest.raises(ClientError, match="together"):
        open_source(path, raw_format="s16le", channels=2)
    with pytest.raises(ClientError, match="s16le or f32le"):
        open_source(path, raw_format="s24le", channels=2, sample_rate=48000)
    with pytest.raises(ClientError, match="only a WAV"):
        open_source(path, raw_format="s16le", channels=2, sample_rate=48000, loop=True)
