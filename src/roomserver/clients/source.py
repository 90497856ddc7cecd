"""Where a broadcast's samples come from: a WAV file, raw PCM on a pipe, a loop of either."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

import numpy as np

from roomserver.clients.errors import ClientError
from roomserver.clients.wav import WavReader, decode_samples
from roomserver.clients.wire import MAX_CHANNELS, SAMPLE_RATES, Encoding, Samples

RAW_FORMATS: Final = {"s16le": "s16", "f32le": "f32"}


def join(pieces: Sequence[Samples]) -> Samples:
    """Put pieces of one dtype and channel count one behind the other."""
    if len(pieces) == 1:
        return pieces[0]
    return cast(Samples, np.concatenate(pieces))


class SampleSource(Protocol):
    """A stream of samples with a fixed format; used by one thread at a time."""

    name: str
    channels: int
    sample_rate: int

    @property
    def encoding(self) -> Encoding:
        """The encoding that carries the samples of `read` as they are."""
        ...

    def read(self, count: int) -> Samples:
        """Up to ``count`` samples, shape (n, channels); fewer only at the end, may block."""
        ...

    def skip(self, count: int) -> int:
        """Pass over up to ``count`` samples; returns how many there were."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class RawReader:
    """Interleaved PCM without a header, as ``arecord -t raw`` or ``ffmpeg -f s16le`` write it.

    Args:
        file: Binary and readable; a pipe will do.
        sample_format: ``s16le`` or ``f32le``.
        channels: 1–64.
        sample_rate: One of the protocol's rates.
        name: For messages.

    Raises:
        ClientError: A format, channel count or rate that cannot be broadcast.
    """

    def __init__(
        self, file: BinaryIO, sample_format: str, channels: int, sample_rate: int, name: str
    ) -> None:
        if sample_format not in RAW_FORMATS:
            raise ClientError(f"raw format {sample_format!r}: it must be s16le or f32le")
        if not 1 <= channels <= MAX_CHANNELS:
            raise ClientError(f"{channels} channels: a room takes 1 to {MAX_CHANNELS}")
        self.name = name
        self.channels = channels
        self.sample_rate = sample_rate
        self._file = file
        self._format = RAW_FORMATS[sample_format]
        self._frame_bytes = channels * (2 if self._format == "s16" else 4)

    @property
    def encoding(self) -> Encoding:
        """The encoding that carries the samples of `read` as they are."""
        return Encoding.S16LE if self._format == "s16" else Encoding.F32LE

    def read(self, count: int) -> Samples:
        """Up to ``count`` samples; fewer only at the end of the stream."""
        wanted = count * self._frame_bytes
        data = b""
        while len(data) < wanted:
            piece = self._file.read(wanted - len(data))
            if not piece:
                break
            data += piece
        whole = len(data) // self._frame_bytes * self._frame_bytes
        return decode_samples(data[:whole], self._format, self.channels)

    def skip(self, count: int) -> int:
        """Read and forget."""
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


class LoopedWav:
    """A WAV file that begins again at its end, without a gap.

    Raises:
        ClientError: The stream cannot be rewound, or holds no sample.
    """

    def __init__(self, reader: WavReader) -> None:
        self._reader = reader
        self.name = reader.name
        self.channels = reader.channels
        self.sample_rate = reader.sample_rate
        if not reader.rewind():
            raise ClientError(f"{reader.name}: a pipe cannot be looped")
        self._length = reader.skip(sys.maxsize)
        if self._length == 0:
            raise ClientError(f"{reader.name}: there is no audio in it to loop")
        reader.rewind()

    @property
    def encoding(self) -> Encoding:
        """The encoding that carries the samples of `read` as they are."""
        return self._reader.encoding

    def read(self, count: int) -> Samples:
        """Exactly ``count`` samples."""
        pieces: list[Samples] = []
        while count > 0:
            piece = self._reader.read(count)
            if piece.shape[0] == 0:
                self._reader.rewind()
                piece = self._reader.read(count)
                if piece.shape[0] == 0:
                    raise ClientError(f"{self.name}: the file was emptied while it was played")
            pieces.append(piece)
            count -= piece.shape[0]
        return join(pieces)

    def skip(self, count: int) -> int:
        """Pass over ``count`` samples, around the end as often as needed."""
        left = count % self._length
        while left > 0:
            done = self._reader.skip(left)
            left -= done
            if left:
                self._reader.rewind()
        return count

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def open_source(
    path: str,
    *,
    raw_format: str | None = None,
    channels: int | None = None,
    sample_rate: int | None = None,
    loop: bool = False,
) -> SampleSource:
    """Open what a broadcast is to send.

    Args:
        path: A file, or ``-`` for standard input.
        raw_format: ``s16le`` or ``f32le`` for PCM without a header; None for WAV.
        channels: Needed for raw PCM, else not allowed.
        sample_rate: Likewise.
        loop: Begin again at the end (WAV files only).

    Raises:
        ClientError: The options contradict each other, or the format cannot be broadcast.
        WavError: The file is not a WAV file that can be read.
    """
    # Standard input unbuffered: a thread may be blocked in a read of it when the program ends,
    # and Python cannot shut down while a thread holds the lock of a buffered reader.
    name = "standard input" if path == "-" else path
    if raw_format is not None:
        if channels is None or sample_rate is None:
            raise ClientError("raw PCM needs --format, --channels and --rate together")
        if loop:
            raise ClientError("only a WAV file can be looped")
        _check_rate(name, sample_rate)
        file = _open(path)
        try:
            return RawReader(file, raw_format, channels, sample_rate, name)
        except BaseException:
            file.close()
            raise
    if channels is not None or sample_rate is not None:
        raise ClientError("--channels and --rate describe raw PCM; a WAV file says its own")
    reader = WavReader(_open(path), name) if path == "-" else WavReader.open(path)
    try:
        _check_rate(name, reader.sample_rate)
        return LoopedWav(reader) if loop else reader
    except BaseException:
        reader.close()
        raise


def _open(path: str) -> BinaryIO:
    try:
        if path == "-":
            return open(0, "rb", buffering=0, closefd=False)
        return Path(path).open("rb", buffering=0)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error


def _check_rate(name: str, sample_rate: int) -> None:
    if sample_rate not in SAMPLE_RATES:
        rates = ", ".join(map(str, SAMPLE_RATES))
        raise ClientError(f"{name}: {sample_rate} Hz; a room takes {rates}")
