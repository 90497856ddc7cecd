"""A source in a process of its own: `python -m benchmarks.source --port N ...`.

It opens a WebSocket, registers, and sends one packet a frame, with all channels, on absolute
deadlines of the media clock. What it sends is noise: nothing about the cost depends on it. It ends
at the end of its input or after `--max-seconds`. With `--again` it comes back, if need be many
times, when it has lost its connection.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.workload import ENCODING_CODE, HEADER_BYTES, Workload

OPEN_TIMEOUT_S = 15.0
AGAIN_S = 0.05
NO_MASK = bytes(4)  # a client's frames carry a mask key, and this one leaves the payload as it is


def tls_context() -> ssl.SSLContext:
    """For connections to this machine: nobody has to prove who he is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """A WebSocket, client side, for a program that mostly sends."""

    def __init__(self, port: int, path: str, *, tls: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=OPEN_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls_context().wrap_socket(self.socket)
        self._received = b""
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._received:
            self._fill()
        status, _, self._received = self._received.partition(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(status.decode("latin-1").splitlines()[0])

    def send(self, opcode: int, payload: bytes) -> None:
        """One message, whole."""
        n = len(payload)
        if n < 126:
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | n)
        elif n < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, n)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, n)
        self.socket.sendall(head + NO_MASK + payload)

    def next_text(self) -> str:
        """The next text message; pings are answered, a close raises ConnectionError."""
        while True:
            opcode, payload = self._message()
            if opcode == 1:
                return payload.decode()
            self._control(opcode, payload)

    def skim(self) -> None:
        """Takes what has come, without waiting, and answers pings."""
        while self._received or self._has_more():
            opcode, payload = self._message()
            self._control(opcode, payload)

    def _has_more(self) -> bool:
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        return bool(select.select([self.socket], [], [], 0)[0])

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            self.send(10, payload)
        elif opcode == 8:
            raise ConnectionError(f"closed by the server: {payload!r}")

    def _message(self) -> tuple[int, bytes]:
        first, second = self._take(2)
        length = second & 127
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8))
        return first & 15, self._take(length)

    def _take(self, n: int) -> bytes:
        while len(self._received) < n:
            self._fill()
        taken, self._received = self._received[:n], self._received[n:]
        return taken

    def _fill(self) -> None:
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError("closed by the server without a close frame")
        self._received += more


def stream(connection: Connection, workload: Workload, max_seconds: float) -> Iterator[float]:
    """Sends a packet a step, until the time is up; yields the seconds to wait before the next."""
    count = workload.samples * workload.channels
    noise = np.random.default_rng(1).integers(-8192, 8192, count)
    if workload.encoding == "pcm_s16le":
        payload = noise.astype("<i2").tobytes()
    else:
        payload = (noise / 32768).astype("<f4").tobytes()
    period = workload.samples / workload.sample_rate
    start, unix = time.monotonic(), time.time()
    sequence = 0
    while (due := start + sequence * period) < start + max_seconds:
        header = struct.pack(
            "<BBBBHHIIQQ",
            *(1, 1, ENCODING_CODE[workload.encoding], 0),
            *(0, workload.channels, sequence & 0xFFFFFFFF, workload.samples),
            *(sequence * workload.samples, round((unix + sequence * period) * 1e6)),
        )
        assert len(header) == HEADER_BYTES
        connection.send(2, header + payload)
        connection.skim()
        sequence += 1
        yield max(0.0, due + period - time.monotonic())


def start(arguments: Sequence[str]) -> Iterator[float]:
    """Registers as the command line says, and returns the stream."""
    parser = argparse.ArgumentParser(description="Benchmark source.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/ws")
    parser.add_argument("--again", action="store_true", help="Come back when it is lost.")
    parser.add_argument("--tls", action="store_true", help="Speak TLS.")
    parser.add_argument("--register", default="", help="Register text; none: bound by the subject.")
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--sample-rate", type=int, required=True)
    parser.add_argument("--encoding", choices=list(ENCODING_CODE), required=True)
    parser.add_argument("--frame-ms", type=int, required=True)
    parser.add_argument("--max-seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    workload = Workload(
        0, options.channels, options.sample_rate, options.encoding, options.frame_ms
    )
    connection = register(options)
    print(json.dumps({"event": "registered"}), flush=True)
    if options.again:
        return stream_again(options, connection, workload)
    return stream(connection, workload, options.max_seconds)


def register(options: argparse.Namespace) -> Connection:
    """A connection that is the room's source."""
    connection = Connection(options.port, options.path, tls=options.tls)
    if options.register:
        connection.send(1, options.register.encode())
    while (answer := json.loads(connection.next_text())).get("type") != "sourceRegistered":
        if answer.get("type") == "error":
            raise SystemExit(f"refused: {answer}")
    return connection


def stream_again(
    options: argparse.Namespace, connection: Connection | None, workload: Workload
) -> Iterator[float]:
    """The stream, and another one whenever its connection was lost, until the time is up."""
    end = time.monotonic() + options.max_seconds
    while (left := end - time.monotonic()) > 0:
        try:
            if connection is None:
                connection = register(options)
            yield from stream(connection, workload, left)
        except OSError:
            if connection is not None:
                connection.socket.close()
            connection = None
            yield AGAIN_S


def main() -> None:
    """See the module."""
    for pause in start(sys.argv[1:]):
        if select.select([sys.stdin], [], [], pause)[0]:
            return


if __name__ == "__main__":
    main()
