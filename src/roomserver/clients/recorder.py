"""Writes what a listener hears to WAV files, in a thread, so that no disk delays the network."""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from roomserver.clients.errors import ClientError
from roomserver.clients.wav import WavWriter
from roomserver.clients.wire import Encoding, Samples

_MAX_BACKLOG_BYTES: Final = 256 << 20


class Recorder:
    """A recording in one or more parts: a new one whenever the format changes.

    Methods are called from one thread and never wait for the disk, except `close`.

    Args:
        path: ``out.wav``, further parts ``out-2.wav``, …; ``-`` for standard output, which can
            take one part only.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._format: tuple[int, int, Encoding] | None = None
        self._queue: queue.SimpleQueue[tuple[int, Samples] | WavWriter | None] = queue.SimpleQueue()
        self._backlog = 0
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="recorder")
        self.parts: list[str] = []

    def begin(self, channels: int, sample_rate: int, encoding: Encoding) -> bool:
        """Make sure that the part being written has this format; True if a new part began.

        Raises:
            ClientError: The file cannot be made, or standard output has another format already.
        """
        wanted = (channels, sample_rate, encoding)
        if wanted == self._format:
            return False
        if self._path == "-":
            if self._format is not None:
                raise ClientError("the format changed, which a stream to a pipe cannot follow")
            writer = WavWriter(sys.stdout.buffer, *wanted)
            self.parts.append("standard output")
        else:
            path = self._part_path(len(self.parts) + 1)
            try:
                writer = WavWriter(path, *wanted)
            except OSError as error:
                raise ClientError(f"{path}: {error.strerror}") from error
            self.parts.append(str(path))
        self._format = wanted
        self._queue.put(writer)
        if len(self.parts) == 1:
            self._thread.start()
        return True

    def write(self, silence: int, samples: Samples) -> None:
        """Append silence and samples to the part.

        Raises:
            ClientError: Writing failed, or the disk is far behind.
        """
        if self._failure is not None:
            raise ClientError(f"{self.parts[-1]}: {self._failure}") from self._failure
        with self._lock:
            self._backlog += samples.nbytes
            backlog = self._backlog
        if backlog > _MAX_BACKLOG_BYTES:
            raise ClientError(f"{self.parts[-1]}: the disk is too slow for this recording")
        self._queue.put((silence, samples))

    def close(self) -> None:
        """Write what is left and complete the file; may be called again.

        Raises:
            ClientError: Writing failed.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._failure is not None:
            raise ClientError(f"{self.parts[-1]}: {self._failure}") from self._failure

    def _part_path(self, number: int) -> Path:
        path = Path(self._path)
        return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")

    def _write(self) -> None:
        writer: WavWriter | None = None
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, WavWriter):
                    if writer is not None:
                        writer.close()
                    writer = item
                elif writer is not None and self._failure is None:
                    silence, samples = item
                    writer.write_silence(silence)
                    writer.write(samples)
                    with self._lock:
                        self._backlog -= samples.nbytes
            if writer is not None:
                writer.close()
        except (OSError, ValueError) as error:
            self._failure = error
            if writer is not None:
                with suppress(OSError):  # the same trouble again; the file is closed even so
                    writer.close()
