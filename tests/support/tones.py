"""Sources for tests of what is heard: a tone of its own on every channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
