"""Shows that an installed wheel works: run outside the source tree, with NumPy and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import relaycore

FRAME = struct.Struct("<BBBBHHIIQQ")
RATE, SAMPLES = 48_000, 960


def check_files() -> None:
    """The installed package is whole, and it is the installed one that runs."""
    package = Path(relaycore.__file__).parent
    assert package.parent.name == "site-packages", f"not the installed package: {package}"
    assert relaycore.__version__ == importlib.metadata.version("relaycore")
    for name in ("py.typed", "_core.pyi", "capi.pxd", "include/relaycore/spsc_ring.h"):
        assert (package / name).is_file(), f"{name} is not in the wheel"
    for name in (
        "cli.py",
        "web/pages/listen.html",
        "web/client/relay-client.js",
        "web/vendor/lit-html/LICENSE.txt",
    ):
        assert (package.parent / "roomserver" / name).is_file(), f"{name} is not in the wheel"
    metadata = importlib.metadata.metadata("relaycore")
    assert metadata["License-Expression"] == "Apache-2.0 AND BSD-3-Clause AND MIT"
    licences = metadata.get_all("License-File") or []
    kept = [str(path) for path in importlib.metadata.files("relaycore") or []]
    assert len(licences) == 4, licences
    for name in licences:
        assert any(path.endswith(f".dist-info/licenses/{name}") for path in kept), f"no {name}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        gil_enabled = getattr(sys, "_is_gil_enabled")()  # noqa: B009 - not in 3.11's types
        assert not gil_enabled, "importing relaycore turned the GIL on"


def check_command() -> None:
    """Without the extra `server` the command says what to install."""
    done = subprocess.run(
        [sys.executable, "-m", "roomserver"], text=True, capture_output=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "pip install 'relaycore[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def check_kernels() -> None:
    """Every instruction set of this machine gives what NumPy gives."""
    planes = np.random.default_rng(1).uniform(-0.9, 0.9, (5, 441)).astype(np.float32)
    wanted = np.rint(planes.T * 32768).astype(np.int16)
    print("  instruction sets:", *relaycore.simd_available())
    for name in relaycore.simd_available():
        with relaycore.force_simd(name):
            assert np.array_equal(relaycore.interleave(planes, dtype="int16"), wanted), name
            mixed = relaycore.mix(planes, np.full((2, 5), 0.2))
            assert np.allclose(mixed, planes.mean(axis=0), atol=1e-6), name


def check_ring() -> None:
    """What goes in comes out, also across the wrap of the ring."""
    ring = relaycore.RingBuffer(1024)
    ramp = np.arange(100_000, dtype=np.float32)
    for start in range(0, len(ramp), 700):
        assert ring.write(ramp[start : start + 700]) == len(ramp[start : start + 700])
        assert np.array_equal(ring.read(1024), ramp[start : start + 700])


def check_jitter_buffer() -> None:
    """Packets that change places and come twice are played in order, to the bit."""
    buffer = relaycore.JitterBuffer(1, RATE, target_ms=60)
    tone = np.sin(np.arange(RATE, dtype=np.float32))
    starts = list(range(0, RATE, SAMPLES))
    starts[0::2], starts[1::2] = starts[1::2], starts[0::2]
    played = []
    for n, start in enumerate(starts):
        now_ns = n * 20_000_000
        for _ in range(2):
            buffer.push(0, start, tone[start : start + SAMPLES], arrival_ns=now_ns)
        while (frame := buffer.pop(now_ns=now_ns)) is not None:
            assert frame.concealed_mask == 0
            played.append(frame.samples[0])
    heard = np.concatenate(played)
    assert len(heard) > RATE // 2
    assert np.array_equal(heard, tone[: len(heard)])


def packet(n: int) -> bytes:
    """The n-th packet of a tone, as a WebSocket message from a client (mask key 0)."""
    time_s = np.arange(n * SAMPLES, (n + 1) * SAMPLES) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * time_s)).astype("<f4").tobytes()
    message = FRAME.pack(1, 1, 1, 0, 0, 1, n, SAMPLES, n * SAMPLES, 0) + tone
    return struct.pack(">BBHI", 0x82, 0x80 | 126, len(message), 0) + message


def messages(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each message from the relay."""
    stream = sock.makefile("rb")
    while head := stream.read(2):
        length = head[1]
        if length == 126:
            [length] = struct.unpack(">H", stream.read(2))
        yield head[0] & 0x0F, stream.read(length)


def check_relay() -> None:
    """A tone that a source sends arrives at a listener, to the bit."""
    source, relayed_source = socket.socketpair()
    listener, relayed_listener = socket.socketpair()
    listener.settimeout(10)
    sent = b"".join(packet(n)[8 + FRAME.size :] for n in range(50))
    # The listener reads only when all has been sent; that is not what this is about.
    patient = relaycore.Relay(threads=1, realtime=False, max_lag_ms=10_000)
    with patient as relay, source, listener:
        room = relay.open_room()
        relay.bind_listener(
            relay.attach(relayed_listener),
            room,
            relaycore.Subscription(encoding="pcm_f32le"),
            reply='{"type":"listenerRegistered"}',
        )
        sender = relay.attach(relayed_source)
        relay.bind_source(
            sender,
            room,
            stream=1,
            channels=1,
            sample_rate=RATE,
            encoding="pcm_f32le",
            announce='{"type":"streamStarted","timestamp":',
        )
        start = time.monotonic()
        for n in range(50):  # at the pace of the tone itself
            source.sendall(packet(n))
            time.sleep(max(0.0, start + (n + 1) * SAMPLES / RATE - time.monotonic()))
        relay.unbind_source(sender)

        heard = b""
        texts = []
        for opcode, payload in messages(listener):
            if opcode == 1:
                texts.append(json.loads(payload)["type"])
            elif opcode == 2:
                assert payload[3] & 1 == 0, "a frame was concealed"
                heard += payload[FRAME.size :]
            if len(heard) >= len(sent):
                break
    assert texts == ["listenerRegistered", "streamStarted"]
    assert heard == sent


def main() -> None:
    """Run every check, saying which."""
    checks = [check_files, check_command, check_kernels, check_ring, check_jitter_buffer]
    if sys.platform == "linux":
        checks.append(check_relay)
    for check in checks:
        print(f"{check.__name__} ...", flush=True)
        check()
    print(f"relaycore {relaycore.__version__} works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
