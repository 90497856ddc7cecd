"""Relays a 440 Hz tone made with NumPy to every WebSocket client.  usage: relay_tone.py PORT"""

import socket
import struct
import sys
import threading
import time

import numpy as np

from relaycore import Relay, Subscription, read_upgrade

RATE, SAMPLES = 48_000, 960
relay, server = Relay(), socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(f"ws://127.0.0.1:{server.getsockname()[1]}", flush=True)
room, (source, relayed) = relay.open_room(), socket.socketpair()
sender, announce = relay.attach(relayed), '{"type":"streamStarted","timestamp":'
relay.bind_source(
    sender, room, stream=1, channels=1, sample_rate=RATE, encoding="pcm_f32le", announce=announce
)


def accept() -> None:
    while True:
        client, _ = server.accept()
        listener = relay.attach(client, read_upgrade(client).response)
        relay.bind_listener(listener, room, Subscription(encoding="pcm_f32le"))


threading.Thread(target=accept, daemon=True).start()
n, start = 0, time.monotonic()
while True:  # every 20 ms what a broadcaster sends: a WebSocket message, a packet in it
    tone = np.sin(2 * np.pi * 440 / RATE * np.arange(n, n + SAMPLES)).astype("<f4").tobytes()
    packet = struct.pack("<BBBBHHIIQQ", 1, 1, 1, 0, 0, 1, n // SAMPLES, SAMPLES, n, 0) + tone
    source.sendall(struct.pack(">BBHI", 0x82, 0x80 | 126, len(packet), 0) + packet)
    n += SAMPLES
    relay.poll()  # what happened to whom; nobody here wants to know
    time.sleep(max(0.0, start + n / RATE - time.monotonic()))
