"""The certificate in use: only ever a pair that fits, whatever happens to the files."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from pathlib import Path

import pytest
import uvloop

from roomserver.config import ConfigError
from roomserver.edge import tls
from roomserver.edge.tls import Certificate, TlsBridge
from support.certificates import write_certificate


def presents(certificate: Certificate, expected: Path) -> bool:
    """Whether a handshake in memory, with the context in use, shows this certificate."""
    client = ssl.create_default_context(cafile=str(expected))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


def test_a_pair_that_is_torn_while_it_is_read_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = write_certificate(tmp_path, "first")
    certificate = Certificate(chain, key)
    first = tmp_path / "first.pem"
    first.write_bytes(chain.read_bytes())
    (tmp_path / "other").mkdir()
    other_chain, other_key = write_certificate(tmp_path / "other", "other")
    second_chain, second_key = other_chain.read_bytes(), other_key.read_bytes()

    # After every load of the pair by OpenSSL, somebody has written one more file.
    load = ssl.SSLContext.load_cert_chain
    pending = [(chain, second_chain), (key, second_key)]

    def load_then_write(self: ssl.SSLContext, *files: str) -> None:
        load(self, *files)
        if pending:
            file, content = pending.pop(0)
            file.write_bytes(content)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load_then_write)
    assert certificate.reload()
    assert presents(certificate, first)
    certificate.reload_if_changed()
    assert presents(certificate, other_chain)

    chain.write_bytes(first.read_bytes())  # half of a change
    certificate.reload_if_changed()
    assert not certificate.reload()
    assert presents(certificate, other_chain)


@pytest.mark.parametrize("error", [ssl.SSLError("torn"), OSError("gone"), ConfigError("wrong")])
def test_whatever_goes_wrong_the_old_certificate_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    certificate = Certificate(*write_certificate(tmp_path, "first"))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Certificate, "_load", fail)
    assert not certificate.reload()


async def test_files_are_watched_on_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "WATCH_INTERVAL_S", 0.01)
    certificate = Certificate(*write_certificate(tmp_path, "first"))
    bridge = TlsBridge(certificate, asyncio.Protocol, handshake_timeout_s=10)
    looks = 0
    again = asyncio.Event()

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise RuntimeError("unforeseen")
        if looks == 4:
            again.set()

    monkeypatch.setattr(certificate, "reload_if_changed", look)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    await bridge.start(host="127.0.0.1")
    await asyncio.wait_for(again.wait(), 5)
    bridge.stop_listening()
    assert len(errors) == 1


def test_loading_leaves_no_descriptor(tmp_path: Path) -> None:
    certificate = Certificate(*write_certificate(tmp_path, "first"))
    before = list(Path("/proc/self/fd").iterdir())
    assert certificate.reload()
    (tmp_path / "key.pem").write_text("nonsense")
    assert not certificate.reload()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


class Witness(asyncio.Protocol):
    """A handler that tells of its begin and its end."""

    def __init__(self, open_handlers: set[Witness]) -> None:
        self._open = open_handlers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)


def test_a_client_that_leaves_while_it_is_joined_leaves_no_handler(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, "here")
    context = ssl.create_default_context(cafile=str(chain))
    open_handlers: set[Witness] = set()
    made = 0

    def handler() -> Witness:
        nonlocal made
        made += 1
        return Witness(open_handlers)

    def come_and_go(address: tuple[str, int]) -> None:
        with (
            socket.create_connection(address, 10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\n")

    async def serve() -> None:
        bridge = TlsBridge(Certificate(chain, key), handler, handshake_timeout_s=10)
        (listening,) = await bridge.start(host="127.0.0.1")
        async with asyncio.timeout(60):
            while made < 20:
                await asyncio.to_thread(come_and_go, listening.getsockname())
        await bridge.close(timeout_s=10)
        for _ in range(1000):
            if not open_handlers:
                break
            await asyncio.sleep(0.01)

    # The server's loop: it is the one that forgets a handler when its join is cancelled.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    assert not open_handlers


def test_the_limit_that_is_told_is_the_one_that_was_measured() -> None:
    root = Path(__file__).parents[2]
    (kept,) = re.findall(
        r"\(\.\./(benchmarks/results/[^)]*-tls\.json)\)",
        (root / "docs" / "benchmarks.md").read_text(),
    )
    (result,) = json.loads((root / kept).read_text())["results"]
    assert result["scenario"] == "tls"
    assert str(result["title"]).endswith("3872-byte frames every 20 ms (48 kHz, 2 ch, pcm_s16le)")
    (limit,) = [row["limit"]["low"] for row in result["limits"] if row["subject"] == "tls"]
    assert limit == tls.MEASURED_LIMIT
    manual = (root / "docs" / "operations.md").read_text()
    assert f"{tls.MEASURED_LIMIT} listeners" in manual
    assert manual.count(str(tls.COMFORTABLE_CONNECTIONS)) == 2
