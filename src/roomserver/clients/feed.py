"""Reads a source ahead of its broadcast, in a thread of its own.

A slow disk or an empty pipe then delays nothing else, and a live capture is drained even while
there is no connection to send it on.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Final

import numpy as np

from roomserver.clients.errors import ClientError
from roomserver.clients.source import SampleSource, join
from roomserver.clients.wire import Encoding, Samples, convert

_AHEAD_S: Final = 1.0
_FILE_BLOCK_S: Final = 0.1
_LIVE_BLOCK_S: Final = 0.01

#: Position of the first sample and the samples, None at the end, or what went wrong.
_Block = tuple[int, Samples | None] | Exception


class Feed:
    """Samples of a source, numbered, in the encoding to be sent.

    Args:
        source: Used by the feed's thread alone from `start` on.
        encoding: What to convert to.
        live: The source is a capture that cannot wait: what is not taken within a second is
            dropped, oldest first, so that `take` finds a gap in the numbers.
    """

    def __init__(self, source: SampleSource, encoding: Encoding, *, live: bool = False) -> None:
        self._source = source
        self._encoding = encoding
        self._live = live
        block_s = _LIVE_BLOCK_S if live else _FILE_BLOCK_S
        self._block_samples = max(1, round(source.sample_rate * block_s))
        self._queue: queue.Queue[_Block] = queue.Queue(max(2, round(_AHEAD_S / block_s)))
        self._ready = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)
        self._closing = False
        self._lock = threading.Lock()
        self._wanted = 0  # samples before this one need not be read; shared under the lock
        self._rest: Samples = np.zeros((0, source.channels), encoding.dtype)
        self._rest_at = 0
        self._ended = False
        self.position = 0
        self.starved = False

    def start(self) -> None:
        """Begin reading; called in the event loop that will `take`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def take(self, count: int) -> Samples:
        """Take the next samples.

        Afterwards `position` is the number of the first of them, and `starved` says whether the
        source kept us waiting.

        Returns:
            Shape (n, channels). n is less than ``count`` at the end or before a gap, 0 only at
            the end.

        Raises:
            ClientError: The source could not be read.
        """
        self.starved = False
        if self._rest.shape[0] == 0:
            await self._refill()
        self.position = self._rest_at
        pieces: list[Samples] = []
        have = 0
        while have < count:
            if self._rest.shape[0] == 0 and not await self._refill():
                break
            if self._rest_at != self.position + have:
                break
            piece = self._rest[: count - have]
            self._advance(piece.shape[0])
            pieces.append(piece)
            have += piece.shape[0]
        return join(pieces) if pieces else self._rest[:0]

    def seek(self, position: int) -> None:
        """Go on at a later sample; what lies before it is passed over. A live feed ignores it."""
        if self._live:
            return
        with self._lock:
            self._wanted = max(self._wanted, position)
        self._advance(min(max(0, position - self._rest_at), self._rest.shape[0]))

    def close(self) -> None:
        """Stop reading. A read that is blocked in a pipe is left to end with the process."""
        self._closing = True
        if self._loop is None:
            self._source.close()
            return
        self._drain()
        self._thread.join(timeout=0.5)

    def _advance(self, count: int) -> None:
        self._rest = self._rest[count:]
        self._rest_at += count

    async def _refill(self) -> bool:
        """Make the next block that is wanted the rest; False at the end."""
        while not self._ended:
            try:
                block = self._queue.get_nowait()
            except queue.Empty:
                self._ready.clear()
                if self._queue.empty():
                    self.starved = True
                    await self._ready.wait()
                continue
            if isinstance(block, ClientError):
                raise block
            if isinstance(block, Exception):
                raise ClientError(f"{self._source.name}: {block}") from block
            first, samples = block
            if samples is None:
                self._ended = True
                break
            cut = max(0, self._wanted - first)
            if cut < samples.shape[0]:
                self._rest, self._rest_at = samples[cut:], first + cut
                return True
        return False

    def _drain(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            return

    # -- the thread ----------------------------------------------------------------------------

    def _read(self) -> None:
        position = 0
        try:
            while not self._closing:
                with self._lock:
                    wanted = self._wanted
                if wanted > position:
                    skipped = self._source.skip(wanted - position)
                    position += skipped
                    if position < wanted:
                        break
                samples = self._source.read(self._block_samples)
                if samples.shape[0] == 0:
                    break
                self._put((position, convert(samples, self._encoding)))
                position += samples.shape[0]
            self._put((position, None))
        except Exception as error:
            self._put(error)
        finally:
            self._source.close()

    def _put(self, block: _Block) -> None:
        while not self._closing:
            try:
                # A full queue is the normal state of a file: wait, but notice the end.
                self._queue.put(block, timeout=0.0 if self._live else 0.2)
                break
            except queue.Full:
                if self._live:
                    try:
                        self._queue.get_nowait()
                    except queue.Empty:
                        continue
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._ready.set)
            except RuntimeError:
                return  # the loop was closed in this very moment
