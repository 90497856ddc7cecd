"""WAV files as streams: a reader that never seeks, a writer that grows past 4 GiB.

Own code rather than libsndfile (soundfile): that does not read WAV from a pipe, and its Python
face offers neither a header kept up to date while recording nor the change to RF64 at 4 GiB.

Reads integer PCM of 16, 24 and 32 bit and float of 32 and 64 bit, plain or
``WAVE_FORMAT_EXTENSIBLE``, RIFF or RF64 (EBU Tech 3306). Writes 16-bit PCM and 32-bit float.
Objects belong to one thread at a time.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from roomserver.clients.errors import ClientError
from roomserver.clients.wire import MAX_CHANNELS, Encoding, Samples

_PCM: Final = 0x0001
_FLOAT: Final = 0x0003
_EXTENSIBLE: Final = 0xFFFE
#: Tail of the GUIDs that hold a format tag in their first two bytes (KSDATAFORMAT_SUBTYPE_…).
_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
_UNKNOWN_SIZE: Final = 0xFFFFFFFF
_SAMPLE_FORMATS: Final = {
    (_PCM, 16): "s16",
    (_PCM, 24): "s24",
    (_PCM, 32): "s32",
    (_FLOAT, 32): "f32",
    (_FLOAT, 64): "f64",
}
_SAMPLE_BYTES: Final = {"s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}
_MAX_HEADER_BYTES: Final = 256 << 20  # of chunks before the data: album art, not an endless pipe


class WavError(ClientError):
    """A file is not a WAV file that this program reads.

    Args:
        name: Of the file.
        offset: Byte at which the trouble is.
        message: What the trouble is.
    """

    def __init__(self, name: str, offset: int, message: str) -> None:
        super().__init__(f"{name}: at byte {offset}: {message}")
        self.name = name
        self.offset = offset


def decode_samples(data: bytes, sample_format: str, channels: int) -> Samples:
    """Turn interleaved bytes into an array of shape (samples, channels).

    Args:
        data: A whole number of sample frames, little-endian.
        sample_format: ``s16``, ``s24``, ``s32``, ``f32`` or ``f64``.
        channels: 1 or more.

    Returns:
        int16 for ``s16``, else float32 with full scale 1.0. 24 bits fit a float exactly; 32-bit
        integers and 64-bit floats are rounded to the nearest float.
    """
    if sample_format == "s16":
        return np.frombuffer(data, "<i2").reshape(-1, channels)
    if sample_format == "f32":
        return np.frombuffer(data, "<f4").reshape(-1, channels)
    if sample_format == "f64":
        return np.frombuffer(data, "<f8").astype(np.float32).reshape(-1, channels)
    if sample_format == "s24":
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        integers = padded.view("<i4").reshape(-1)
    else:
        integers = np.frombuffer(data, "<i4")
    return (integers * (1 / 2147483648)).astype(np.float32).reshape(-1, channels)


class WavReader:
    """Reads a WAV stream from its start to its end.

    Args:
        file: Binary and readable; a pipe will do. Not closed by the reader unless `close` is
            called.
        name: For messages.

    Attributes:
        sample_format: ``s16``, ``s24``, ``s32``, ``f32`` or ``f64``.
        channels: 1–64.
        sample_rate: In Hz.
        total: Samples per channel that the header announces; None for a streamed file, whose end
            is the end of the stream.

    Raises:
        WavError: The header is not one this reader understands.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self._offset = 0
        self.sample_format = ""
        self.channels = 0
        self.sample_rate = 0
        self.total: int | None = None
        self._frame_bytes = 0
        self._read_header()
        self._data_offset = self._offset
        self._left: int | None = self.total  # samples per channel until the announced end

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> WavReader:
        """Open a file.

        Raises:
            WavError: It cannot be opened or is not a WAV file that can be read.
        """
        try:
            file = Path(path).open("rb")  # noqa: SIM115 - the reader owns it from here on
        except OSError as error:
            raise WavError(os.fspath(path), 0, error.strerror or str(error)) from error
        try:
            return cls(file, os.fspath(path))
        except BaseException:
            file.close()
            raise

    @property
    def encoding(self) -> Encoding:
        """The encoding that carries the samples of `read` as they are."""
        return Encoding.S16LE if self.sample_format == "s16" else Encoding.F32LE

    def read(self, count: int) -> Samples:
        """Read the next samples.

        Args:
            count: Samples per channel wanted.

        Returns:
            Shape (n, channels), int16 or float32 (see `decode_samples`); n is less than ``count``
            only at the end, where a sample that is cut off inside is dropped.
        """
        if self._left is not None:
            count = min(count, self._left)
        data = self._take(count * self._frame_bytes)
        samples = len(data) // self._frame_bytes
        if self._left is not None:
            # A file cut short (disk full, killed recorder) ends where its bytes end.
            self._left = self._left - samples if samples == count else 0
        return decode_samples(
            data[: samples * self._frame_bytes], self.sample_format, self.channels
        )

    def rewind(self) -> bool:
        """Go back to the first sample; False when the stream cannot."""
        if not self._file.seekable():
            return False
        self._file.seek(self._data_offset)
        self._offset = self._data_offset
        self._left = self.total
        return True

    def skip(self, count: int) -> int:
        """Pass over samples without decoding them.

        Returns:
            How many there were to pass over; less than ``count`` only at the end.
        """
        if self._left is not None:
            count = min(count, self._left)
        if self._file.seekable():
            end = self._file.seek(0, os.SEEK_END)
            count = max(0, min(count, (end - self._offset) // self._frame_bytes))
            self._offset = self._file.seek(self._offset + count * self._frame_bytes)
            if self._left is not None:
                self._left -= count
            return count
        done = 0
        while done < count:
            step = self.read(min(count - done, 65536)).shape[0]
            if step == 0:
                break
            done += step
        return done

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # -- header --------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        """Read ``count`` bytes, fewer only at the end; raw pipes give them in pieces."""
        pieces = []
        while count > 0:
            piece = self._file.read(min(count, 1 << 20))
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
            self._offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _need(self, count: int, what: str) -> bytes:
        start = self._offset
        data = self._take(count)
        if len(data) < count:
            raise WavError(
                self.name, start, f"the file ends inside {what} ({len(data)} of {count} bytes)"
            )
        return data

    def _read_header(self) -> None:
        start = self._need(12, "the RIFF header")
        tag, riff_size, kind = struct.unpack("<4sI4s", start)
        if tag not in (b"RIFF", b"RF64", b"BW64"):
            raise WavError(
                self.name, 0, f"not a WAV file: it starts with {tag!r}, not RIFF or RF64"
            )
        if kind != b"WAVE":
            raise WavError(self.name, 8, f"a RIFF file of type {kind!r}, not WAVE")
        sizes: dict[bytes, int] = {}
        while True:
            offset = self._offset
            if offset > _MAX_HEADER_BYTES:
                raise WavError(self.name, offset, "no audio data this far into the file")
            head = self._take(8)
            if len(head) < 8:
                raise WavError(self.name, offset, "the file ends before its data chunk")
            chunk, size = struct.unpack("<4sI", head)
            if chunk == b"data":
                self._begin_data(offset, size, sizes, streamed=riff_size in (0, _UNKNOWN_SIZE))
                return
            if size == _UNKNOWN_SIZE:
                size = sizes.get(chunk, size)
            if offset + size > _MAX_HEADER_BYTES:
                raise WavError(self.name, offset, f"the chunk {chunk!r} claims {size} bytes")
            body = self._need(size, f"the chunk {chunk!r}")
            if size % 2:
                self._take(1)  # chunks are padded to an even length, which their size leaves out
            if chunk == b"ds64" and tag != b"RIFF":
                sizes = self._parse_ds64(offset, body)
            elif chunk == b"fmt ":
                self._parse_format(offset, body)

    def _parse_ds64(self, offset: int, body: bytes) -> dict[bytes, int]:
        if len(body) < 28:
            raise WavError(self.name, offset, f"a ds64 chunk of {len(body)} bytes, not 28 or more")
        (data_size,) = struct.unpack_from("<Q", body, 8)
        (entries,) = struct.unpack_from("<I", body, 24)
        sizes = {b"data": data_size}
        for entry in range(min(entries, (len(body) - 28) // 12)):
            chunk, size = struct.unpack_from("<4sQ", body, 28 + 12 * entry)
            sizes[chunk] = size
        return sizes

    def _parse_format(self, offset: int, body: bytes) -> None:
        if len(body) < 16:
            raise WavError(self.name, offset, f"a fmt chunk of {len(body)} bytes, not 16 or more")
        tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", body)
        if tag == _EXTENSIBLE:
            if len(body) < 40:
                raise WavError(
                    self.name, offset, f"an extensible fmt chunk of {len(body)} bytes, not 40"
                )
            (tag,) = struct.unpack_from("<H", body, 24)
            if body[26:40] != _GUID_TAIL:
                raise WavError(self.name, offset + 32, "a sample format that is not PCM or float")
        sample_format = _SAMPLE_FORMATS.get((tag, bits))
        if sample_format is None:
            raise WavError(
                self.name,
                offset + 8,
                f"format tag {tag} with {bits} bits; readable are PCM of 16, 24 and 32 bit and "
                "float of 32 and 64 bit",
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise WavError(
                self.name, offset + 10, f"{channels} channels; readable are 1 to {MAX_CHANNELS}"
            )
        if rate == 0:
            raise WavError(self.name, offset + 12, "a sample rate of 0")
        if block != channels * bits // 8:
            raise WavError(
                self.name,
                offset + 20,
                f"a block of {block} bytes for {channels} channels of {bits} bits",
            )
        self.sample_format = sample_format
        self.channels = channels
        self.sample_rate = rate
        self._frame_bytes = block

    def _begin_data(
        self, offset: int, size: int, sizes: dict[bytes, int], *, streamed: bool
    ) -> None:
        if not self.sample_format:
            raise WavError(self.name, offset, "the data chunk comes before the fmt chunk")
        if size == _UNKNOWN_SIZE and sizes.get(b"data"):
            size = sizes[b"data"]
        elif size == _UNKNOWN_SIZE or (size == 0 and streamed):
            return  # written to a pipe: whoever wrote it could not come back to fill in the size
        self.total = size // self._frame_bytes


class WavWriter:
    """Writes a WAV file that is valid all the time it grows.

    The header is brought up to date about once a second of audio, so a crash loses no more than
    what the operating system had not written. A chunk is reserved for the sizes of RF64, which the
    file becomes when it outgrows 4 GiB. To a pipe it writes the sizes of a streamed file.

    Args:
        file: A path (made or emptied), or a binary writable file, which `close` leaves open.
        channels: 1–64.
        sample_rate: In Hz.
        encoding: 16-bit PCM or 32-bit float.

    Raises:
        OSError: From creating or writing the file.
    """

    #: Bytes beyond which a RIFF chunk size cannot count.
    riff_limit: int = 0xFFFFFFFE

    def __init__(
        self,
        file: str | os.PathLike[str] | BinaryIO,
        channels: int,
        sample_rate: int,
        encoding: Encoding,
    ) -> None:
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"channels: 1 to {MAX_CHANNELS}, not {channels}")
        self.channels = channels
        self.sample_rate = sample_rate
        self.encoding = encoding
        self.samples_written = 0
        self._frame_bytes = channels * encoding.dtype.itemsize
        self._owns_file = isinstance(file, str | os.PathLike)
        self._file: BinaryIO = (
            Path(file).open("wb") if isinstance(file, str | os.PathLike) else file  # noqa: SIM115
        )
        self._start = self._file.tell() if self._file.seekable() else None
        self._header_at = 0  # samples written when the header was last brought up to date
        self._file.write(self._header())

    @property
    def data_bytes(self) -> int:
        """Bytes of audio written so far."""
        return self.samples_written * self._frame_bytes

    def write(self, samples: Samples) -> None:
        """Append samples.

        Args:
            samples: Shape (n, channels) of the encoding's dtype.

        Raises:
            ValueError: Another number of channels or another dtype.
            OSError: From writing.
        """
        if samples.ndim != 2 or samples.shape[1] != self.channels:
            raise ValueError(f"shape (n, {self.channels}) wanted, not {samples.shape}")
        if samples.dtype != self.encoding.dtype:
            raise ValueError(f"dtype {self.encoding.dtype} wanted, not {samples.dtype}")
        if samples.shape[0] == 0:
            return
        self._file.write(np.ascontiguousarray(samples).data.cast("B"))
        self.samples_written += samples.shape[0]
        if self.samples_written - self._header_at >= self.sample_rate:
            self._update_header()

    def write_silence(self, count: int) -> None:
        """Append ``count`` samples of silence per channel."""
        zeros = np.zeros((min(count, 65536), self.channels), self.encoding.dtype)
        while count > 0:
            step = min(count, 65536)
            self.write(zeros[:step])
            count -= step

    def close(self) -> None:
        """Complete the header and close the file if it was opened here. May be called again."""
        if self._file.closed:
            return
        try:
            self._update_header()
            self._file.flush()
        finally:
            if self._owns_file:
                self._file.close()

    def _update_header(self) -> None:
        if self._start is None:
            self._file.flush()
            return
        end = self._file.tell()
        self._file.seek(self._start)
        self._file.write(self._header())
        self._file.seek(end)
        self._file.flush()
        self._header_at = self.samples_written

    def _header(self) -> bytes:
        """The bytes before the samples; always of the same length for one writer."""
        is_float = self.encoding is Encoding.F32LE
        bits = self.encoding.dtype.itemsize * 8
        tag = _FLOAT if is_float else _PCM
        common = struct.pack(
            "<IIHH",
            self.sample_rate,
            self.sample_rate * self._frame_bytes,
            self._frame_bytes,
            bits,
        )
        if self.channels > 2 or is_float:
            mask = {1: 0x4, 2: 0x3}.get(self.channels, 0)  # more channels have no fixed places
            fmt = struct.pack("<HH", _EXTENSIBLE, self.channels) + common
            fmt += struct.pack("<HHIH", 22, bits, mask, tag) + _GUID_TAIL
        else:
            fmt = struct.pack("<HH", tag, self.channels) + common
        data_bytes = self.data_bytes
        body = b"fmt " + struct.pack("<I", len(fmt)) + fmt
        if is_float:
            body += struct.pack("<4sII", b"fact", 4, min(self.samples_written, _UNKNOWN_SIZE))
        riff_bytes = 4 + 36 + len(body) + 8 + data_bytes  # "WAVE", JUNK or ds64, these, data
        if self._start is None:
            riff, spare = struct.pack("<4sI", b"RIFF", _UNKNOWN_SIZE), self._junk()
            data = struct.pack("<4sI", b"data", _UNKNOWN_SIZE)
        elif riff_bytes > self.riff_limit:
            riff = struct.pack("<4sI", b"RF64", _UNKNOWN_SIZE)
            spare = struct.pack(
                "<4sIQQQI", b"ds64", 28, riff_bytes, data_bytes, self.samples_written, 0
            )
            data = struct.pack("<4sI", b"data", _UNKNOWN_SIZE)
        else:
            riff, spare = struct.pack("<4sI", b"RIFF", riff_bytes), self._junk()
            data = struct.pack("<4sI", b"data", data_bytes)
        return riff + b"WAVE" + spare + body + data

    @staticmethod
    def _junk() -> bytes:
        return struct.pack("<4sI", b"JUNK", 28) + bytes(28)
