"""What is sent to how many: the parameters that every subject of a comparison shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 32
SAMPLE_BYTES: Final = {"pcm_s16le": 2, "pcm_f32le": 4}
ENCODING_CODE: Final = {"pcm_s16le": 0, "pcm_f32le": 1}
SOURCE_PATH: Final = "/source"
"""Where the bare relay takes its source; listeners come to any other path."""
BUFFER_MS: Final = 150
"""Jitter target unless told, ms: a source process that waits for a core starves no tick."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One stream and its listeners.

    Attributes:
        listeners: Connections that hear the stream.
        channels: Of the stream; every listener gets all of them, interleaved.
        sample_rate: Hz.
        encoding: `pcm_s16le` or `pcm_f32le`, of source and listeners.
        frame_ms: Length of a frame.
        buffer_ms: Jitter target of the source.
        interval_ms: Least distance between two sends to a listener; 0: each frame goes by itself.
    """

    listeners: int = 1000
    channels: int = 2
    sample_rate: int = 48_000
    encoding: str = "pcm_s16le"
    frame_ms: int = 20
    buffer_ms: int = BUFFER_MS
    interval_ms: int = 0

    @property
    def samples(self) -> int:
        """Samples per channel in a packet of the source, and (rounded) in a frame."""
        return self.sample_rate * self.frame_ms // 1000

    @property
    def message_bytes(self) -> int:
        """Bytes of a binary message with its 32-byte header, without WebSocket framing."""
        return HEADER_BYTES + self.samples * self.channels * SAMPLE_BYTES[self.encoding]

    @property
    def frames_per_s(self) -> float:
        """Frames due each second for one listener."""
        return 1000 / self.frame_ms

    @property
    def format(self) -> str:
        """The stream's format, for people."""
        return f"{self.sample_rate / 1000:g} kHz, {self.channels} ch, {self.encoding}"

    def __str__(self) -> str:
        grouped = f" in groups of {self.interval_ms} ms" if self.interval_ms else ""
        return (
            f"{self.listeners} listeners, {self.message_bytes}-byte frames every "
            f"{self.frame_ms} ms{grouped} ({self.format})"
        )
