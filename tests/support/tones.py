"""Sources for tests of what is heard: a tone of its own on every channel."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roomserver.clients.wav import WavWriter
from roomserver.clients.wire import Encoding

AMPLITUDE = 0.25


class ToneSource:
    """Sines of amplitude 0.25 that go on until the test ends."""

    name = "tones"

    def __init__(self, frequencies: list[float], sample_rate: int = 48_000) -> None:
        self.frequencies = frequencies
        self.channels = len(frequencies)
        self.sample_rate = sample_rate
        self._position = 0

    @property
    def encoding(self) -> Encoding:
        """Of the samples."""
        return Encoding.F32LE

    def read(self, count: int) -> NDArray[np.float32]:
        """The next samples."""
        time = np.arange(self._position, self._position + count) / self.sample_rate
        self._position += count
        phases = 2 * np.pi * np.outer(time, self.frequencies)
        tones: NDArray[np.float32] = (AMPLITUDE * np.sin(phases)).astype(np.float32)
        return tones

    def skip(self, count: int) -> int:
        """Passes over samples."""
        self._position += count
        return count

    def close(self) -> None:
        """There is nothing to let go of."""


def wav_of_tones(
    frequencies: Sequence[float],
    *,
    amplitude: float = AMPLITUDE,
    encoding: Encoding = Encoding.F32LE,
) -> bytes:
    """A second of a sine on each channel, as a WAV file."""
    source = ToneSource(list(frequencies))
    samples = source.read(source.sample_rate) * np.float32(amplitude / AMPLITUDE)
    if encoding is Encoding.S16LE:
        samples = (samples * 32767).astype(np.int16)
    file = io.BytesIO()
    writer = WavWriter(file, source.channels, source.sample_rate, encoding)
    writer.write(samples)
    writer.close()
    return file.getvalue()
