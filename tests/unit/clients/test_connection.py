"""A client's connection to a server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import warnings
from pathlib import Path

import pytest
import uvloop

from relaycore.handshake import upgrade_response
from roomserver.clients.connection import RoomApi
from support.certificates import write_certificate

TIMEOUT_S = 30.0


class SilentGoodbye:
    """A TLS server of one connection: it answers a close frame, and the end of TLS never."""

    def __init__(self, chain: Path, key: Path) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(chain, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT_S)
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> SilentGoodbye:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as plain:
            plain.settimeout(TIMEOUT_S)
            with self._tls.wrap_socket(plain, server_side=True) as client:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(4096)
                lines = request.decode().split("\r\n")[1:-2]
                headers = dict(line.split(": ", 1) for line in lines)
                client.sendall(upgrade_response(method="GET", version=(1, 1), headers=headers))
                for kind in (b'{"type":"config"}', b'{"type":"listenerRegistered"}'):
                    client.sendall(bytes([0x81, len(kind)]) + kind)
                client.recv(4096)  # the registration
                client.recv(4096)  # the close frame
                client.sendall(b"\x88\x02\x03\xe8")
                self.done.wait(TIMEOUT_S)


@pytest.mark.parametrize("way", ["close", "abort"])
def test_nothing_is_left_of_a_connection_whose_server_does_not_say_goodbye(
    tmp_path: Path, way: str
) -> None:
    chain, key = write_certificate(tmp_path, "hall")

    async def main(url: str) -> None:
        async with RoomApi(url, ca_file=str(chain)) as api, asyncio.timeout(TIMEOUT_S):
            registration = {"type": "registerListener"}
            connection = await api.connect(registration, answer="listenerRegistered")
            await getattr(connection, way)()

    with warnings.catch_warnings(record=True) as seen, SilentGoodbye(chain, key) as server:
        warnings.simplefilter("always")
        uvloop.run(main(server.url))
        left = [str(warning.message) for warning in seen]
    assert not left
