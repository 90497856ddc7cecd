"""Puts the frames of a room in their places: gaps, repeats and changes of the source.

No input or output; fed by the listener and by tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from roomserver.clients.connection import Message
from roomserver.clients.errors import WireError
from roomserver.clients.wire import Frame, Samples

_WRAP = 1 << 32
#: A jump that is longer is not filled with silence: it is another day, not a gap.
MAX_SILENCE_S = 600


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What ``streamStarted`` (or ``listenerRegistered``) says about a source's session."""

    stream: int
    channel_names: tuple[str, ...]
    sample_rate: int
    frame_ms: int
    buffer_ms: float | None = None
    timestamp: int | None = None

    @classmethod
    def of(cls, message: Message) -> Self | None:
        """Read it from a message; None when there is no source yet."""
        if message.get("stream") is None or message.get("sampleRate") is None:
            return None
        count = message["channelCount"]
        names = list(message.get("channelNames") or ())[:count]
        names += [str(channel) for channel in range(len(names), count)]
        return cls(
            stream=message["stream"],
            channel_names=tuple(names),
            sample_rate=message["sampleRate"],
            frame_ms=message["frameMs"],
            buffer_ms=message.get("bufferMs"),
            timestamp=message.get("timestamp"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """What a frame adds to a recording: silence first, then samples.

    Attributes:
        silence: Samples per channel that never came.
        samples: Shape (n, channels); n is 0 for a frame that was here before.
        missing_frames: Frames left out between the one before and this one.
    """

    silence: int
    samples: Samples
    missing_frames: int


@dataclass(slots=True)
class StreamTracker:
    """Follows one listener's frames over streams and reconnects.

    Attributes:
        format: Of the present stream.
        next_timestamp: First sample not yet received; what ``from`` wants after a reconnect.
        frames, concealed_frames, missing_frames, gaps, streams: Counters since the start.
    """

    format: StreamFormat | None = None
    next_timestamp: int | None = None
    frames: int = 0
    concealed_frames: int = 0
    missing_frames: int = 0
    gaps: int = 0
    streams: int = 0
    _next_sequence: int | None = field(default=None, repr=False)

    def begin(self, announced: StreamFormat) -> bool:
        """Take in the format that frames have from now on.

        Returns:
            Whether it is another stream than before. The same one is told again when a
            listener registers anew.
        """
        present = self.format
        if (
            present is not None
            and present.stream == announced.stream
            and (
                None in (present.timestamp, announced.timestamp)
                or present.timestamp == announced.timestamp
            )
        ):
            self.format = announced
            return False
        self.format = announced
        self.streams += 1
        self.next_timestamp = None
        self._next_sequence = None
        return True

    def place(self, frame: Frame) -> Placed:
        """Find the place of a frame behind those before it.

        Raises:
            WireError: It belongs to a stream that was not announced.
        """
        if self.format is None or frame.stream != self.format.stream:
            raise WireError(f"a frame of stream {frame.stream}, which was not announced")
        self.frames += 1
        self.concealed_frames += frame.concealed
        missing = 0
        if self._next_sequence is not None:
            missing = (frame.sequence - self._next_sequence) % _WRAP
            if missing >= _WRAP // 2:  # sent again after a reconnect
                missing = 0
        silence = 0
        samples = frame.samples
        if self.next_timestamp is not None:
            jump = frame.timestamp - self.next_timestamp
            if jump < 0:
                samples = samples[-jump:]
            elif jump <= MAX_SILENCE_S * self.format.sample_rate:
                silence = jump
        end = frame.timestamp + frame.sample_count
        if self.next_timestamp is None or end > self.next_timestamp:
            self.next_timestamp = end
            self._next_sequence = (frame.sequence + 1) % _WRAP
        self.missing_frames += missing
        self.gaps += missing > 0
        return Placed(silence, samples, missing)
