"""TLS in the server's process: the same bytes, the same rules, and certificates that change."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
from cryptography import x509

from support.api_client import Api, RoomKeys, Socket, noise
from support.certificates import write_certificate
from support.peer import Closed, Frame
from support.server import ServerProcess

RATE = 48000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("certificates")
    write_certificate(directory, "first")
    return directory


@pytest.fixture(scope="module")
def tls_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Path
) -> Iterator[ServerProcess]:
    options = (
        "--tls-cert", str(certificates / "cert.pem"), "--tls-key", str(certificates / "key.pem"),
        "--evict-after-s", "1", "--log-level", "debug",
    )  # fmt: skip
    with ServerProcess.start(tmp_path_factory.mktemp("tls"), *options) as server:
        server.add_user()
        yield server


@pytest.fixture
async def tls(tls_server: ServerProcess, certificates: Path) -> AsyncIterator[Api]:
    context = ssl.create_default_context(cafile=str(certificates / "cert.pem"))
    async with aiohttp.ClientSession() as session:
        yield Api(tls_server.url, session, context)


@pytest.fixture
async def room(tls: Api) -> RoomKeys:
    return await tls.create_room((await tls.login())["accessToken"])


def common_name(server: ServerProcess) -> str:
    """Whose certificate the server shows."""
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    pem = ssl.get_server_certificate((address.hostname, address.port), timeout=10)
    (name,) = x509.load_pem_x509_certificate(pem.encode()).subject
    return str(name.value)


async def test_audio_over_tls_is_the_same_bit_by_bit(tls: Api, room: RoomKeys) -> None:
    sent = noise(16, 2 * RATE)
    async with (
        tls.listener(room) as listener,
        tls.source(room, channels=16, bufferMs=1000) as source,
    ):
        playing = asyncio.create_task(source.play(sent, rate=RATE))
        frames: list[Frame] = []
        while True:
            message = await listener.next()
            assert not isinstance(message, Closed)
            if isinstance(message, Frame):
                frames.append(message)
                if playing.done() and source.texts("done") == []:
                    await source.say("unregisterSource")
                    source.seen.append({"type": "done"})
            elif message["type"] == "roomSuspended":
                break
    heard = np.concatenate([frame.data for frame in frames])
    np.testing.assert_array_equal(heard[: sent.shape[1]], sent.T)
    assert not heard[sent.shape[1] :].any()


async def test_many_connections_come_and_go(tls: Api, room: RoomKeys) -> None:
    async def once() -> None:
        async with tls.listener(room) as listener:
            await listener.say("ping", t=1)
            await listener.until("pong")

    await asyncio.gather(*(once() for _ in range(50)))
    answer = await tls.call("GET", "/health")
    for _ in range(100):
        if answer.body["connections"] == 0:
            break
        await asyncio.sleep(0.05)
        answer = await tls.call("GET", "/health")
    assert answer.body["connections"] == 0


async def test_the_clients_address_is_known_behind_the_bridge(
    tls: Api, room: RoomKeys, tls_server: ServerProcess
) -> None:
    async with tls.listener(room):
        pass
    event = await asyncio.to_thread(tls_server.wait_for_event, "room_joined")
    assert event["address"] == "127.0.0.1"


async def test_a_listener_over_tls_that_takes_nothing_is_ended(
    tls: Api, room: RoomKeys, tls_server: ServerProcess
) -> None:
    async with (
        tls.source(room, channels=64, sampleRate=96000) as source,
        tls.listener(room) as listener,
    ):
        transport = listener.ws._response.connection.transport  # type: ignore[union-attr]
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        playing = asyncio.create_task(source.play(noise(64, 96000 * 3), rate=96000))
        await asyncio.to_thread(
            tls_server.wait_for_event,
            "room_left",
            where=lambda event: event["reason"] == "too_slow",
            timeout=20,
        )
        playing.cancel()
        transport.abort()


async def test_plain_text_on_the_tls_port_does_no_harm(tls: Api, tls_server: ServerProcess) -> None:
    address = urlsplit(tls_server.url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not client.recv(1000).startswith(b"HTTP")
    assert (await tls.call("GET", "/health")).status == 200


async def test_certificates_change_under_load_and_no_listener_loses_a_frame(
    tmp_path: Path,
) -> None:
    listeners, rate, frame_ms = 50, 8000, 60
    chain, key = write_certificate(tmp_path, "0")
    # The test reads for all of them and may be late itself.
    options = ("--max-lag-ms", "60000", "--tls-cert", str(chain), "--tls-key", str(key))
    context = ssl.create_default_context(cafile=str(chain))
    with ServerProcess.start(tmp_path / "data", *options) as server:
        server.add_user()
        async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
            api = Api(server.url, session, context)
            room = await api.create_room((await api.login())["accessToken"])
            heard = [await stack.enter_async_context(api.listener(room)) for _ in range(listeners)]
            source = await stack.enter_async_context(
                api.source(room, channels=1, sampleRate=rate, frameMs=frame_ms, bufferMs=1000)
            )
            playing = asyncio.create_task(play_on(source, rate, rate * frame_ms // 1000))
            newcomers = asyncio.create_task(ask_for_names(server))
            hearing = [asyncio.create_task(hear_out(listener)) for listener in heard]

            async def all_heard(more: int) -> None:
                goal = [frame_count(listener) + more for listener in heard]
                async with asyncio.timeout(60):
                    while any(frame_count(x) < n for x, n in zip(heard, goal, strict=True)):
                        assert not any(task.done() for task in hearing)
                        await asyncio.sleep(0.02)

            async def shown(name: str) -> None:
                async with asyncio.timeout(60):
                    while await asyncio.to_thread(common_name, server) != name:
                        pass

            await all_heard(5)
            for name in ("1", "2", "3"):
                write_certificate(tmp_path, name)
                server.signal(signal.SIGHUP)
                await shown(name)
                await all_heard(3)
            for broken in (chain, key):
                whole, seen = broken.read_bytes(), len(server.events)
                broken.write_text("nonsense")
                server.signal(signal.SIGHUP)
                await asyncio.to_thread(
                    server.wait_for_event,
                    "certificate_not_reloaded",
                    where=lambda line, seen=seen: line in server.events[seen:],  # type: ignore[misc]
                )
                assert await asyncio.to_thread(common_name, server) == "3"
                await all_heard(3)
                broken.write_bytes(whole)

            newcomers.cancel()
            names = await newcomers
            assert names == sorted(names)  # none was refused, none was shown an older one
            assert set(names) >= {"0", "1", "2", "3"}

            # The end comes to every listener, so that a frame lost at the last is seen too.
            playing.cancel()
            await source.say("unregisterSource")
            last = {await asyncio.wait_for(task, 60) for task in hearing}
            assert len(last) == 1
            for listener in heard:
                sequences = [m.sequence for m in listener.seen if isinstance(m, Frame)]
                assert sequences == list(range(len(sequences)))


def frame_count(listener: Socket) -> int:
    """Frames heard so far."""
    return sum(isinstance(message, Frame) for message in listener.seen)


async def hear_out(listener: Socket) -> int:
    """Listens until the source has left; the number of the last frame."""
    await listener.until("roomSuspended")
    return max(m.sequence for m in listener.seen if isinstance(m, Frame))


async def play_on(source: Socket, rate: int, packet: int) -> None:
    """Broadcasts until cancelled."""
    timestamp = 0
    while True:
        samples = noise(1, 20 * packet)
        timestamp = await source.play(
            samples, rate=rate, timestamp=timestamp, packet=packet, sequence=timestamp // packet
        )


async def ask_for_names(server: ServerProcess) -> list[str]:
    """Connects again and again until cancelled; whose certificates the server showed."""
    names: list[str] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            names.append(await asyncio.to_thread(common_name, server))
    return names


async def test_the_certificate_is_taken_again_on_sighup_and_when_it_changes(
    tls: Api, room: RoomKeys, tls_server: ServerProcess, certificates: Path
) -> None:
    assert common_name(tls_server) == "first"
    async with tls.listener(room) as listener:
        pong = asyncio.create_task(listener.until("pong"))  # reads, and so answers pings
        write_certificate(certificates, "second")
        tls_server.signal(signal.SIGHUP)
        await asyncio.to_thread(tls_server.wait_for_event, "certificate_reloaded")
        assert common_name(tls_server) == "second"

        write_certificate(certificates, "third")
        seen = len(tls_server.events)
        await asyncio.to_thread(
            tls_server.wait_for_event,
            "certificate_reloaded",
            where=lambda event: event in tls_server.events[seen:],
        )
        assert common_name(tls_server) == "third"

        # What cannot be used is said, and the old one stays.
        (certificates / "cert.pem").write_text("nonsense")
        await asyncio.to_thread(tls_server.wait_for_event, "certificate_not_reloaded")
        assert common_name(tls_server) == "third"
        await listener.say("ping", t=1)  # connections of before are not disturbed
        await pong
