"""The demonstration, as someone who cloned the project meets it: two commands, sixteen sounds."""

from __future__ import annotations

import shlex
import signal
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roomserver.clients.synth import LOOP_S, synthesize
from roomserver.clients.wav import WavReader
from roomserver.clients.wire import to_s16
from support.server import command, environment

RATE = 48000
FRAME = RATE // 50
SURF = 6  # noise: a few samples of it say where in the loop we are


def position_in_loop(heard: NDArray[np.int16], loop: NDArray[np.int16]) -> int:
    """Where in the loop the recording begins."""
    twice = np.concatenate([loop, loop[:64]])
    candidates = np.flatnonzero(twice[:-64] == heard[0])
    for at in range(1, 64):
        candidates = candidates[twice[candidates + at] == heard[at]]
    assert candidates.shape == (1,), "the channel is not the sound it should be"
    return int(candidates[0])


def record(directory: Path, *options: str, seconds: int) -> str:
    """Runs the demonstration and, against it, the command it prints; what that said at the end."""
    demo = subprocess.Popen(
        command("demo", "--port", "0", *options),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=directory,
    )
    assert demo.stderr is not None
    try:
        printed = []
        for line in demo.stderr:
            printed.append(line)
            if "-o demo.wav" in line:
                break
        listen = shlex.split(printed[-1])
        assert "listen" in listen, printed
        listen[listen.index("--seconds") + 1] = str(seconds)
        # Standard error goes on being read only at the end: the demo's log lines are few.
        heard = subprocess.run(
            listen, cwd=directory, env=environment(), capture_output=True, text=True, timeout=60
        )
        assert heard.returncode == 0, heard.stderr
        demo.send_signal(signal.SIGINT)
        rest = demo.communicate(timeout=30)[1]
        assert demo.returncode == 0, rest
        assert "Traceback" not in rest
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.communicate()
    return heard.stderr


def recording(directory: Path, seconds: int) -> NDArray[np.int16]:
    reader = WavReader.open(directory / "demo.wav")
    assert (reader.channels, reader.sample_rate, reader.total) == (16, RATE, seconds * RATE)
    samples = reader.read(seconds * RATE).astype(np.int16)
    reader.close()
    return samples


def test_the_printed_command_records_sixteen_channels_each_the_one_it_should_be(
    tmp_path: Path,
) -> None:
    said = record(tmp_path, "--buffer-ms", "1000", seconds=3)
    samples = recording(tmp_path, 3)
    assert "0 missing in 0 gaps, 0 with concealed" in said, said
    loop = to_s16(synthesize(SURF, 0, LOOP_S * RATE, RATE))
    start = position_in_loop(samples[:, SURF], loop)
    for channel in range(16):
        expected = to_s16(synthesize(channel, start, 3 * RATE, RATE))
        np.testing.assert_array_equal(samples[:, channel], expected, f"channel {channel}")


def test_with_an_adaptive_buffer_each_channel_is_the_one_it_should_be(tmp_path: Path) -> None:
    said = record(tmp_path, seconds=3)
    samples = recording(tmp_path, 3)
    # A busy machine conceals some of it, and a recording does not say where. So each frame is found
    # by its noise: those that are whole have every channel in its place, and they are not few.
    loop = to_s16(synthesize(SURF, 0, LOOP_S * RATE, RATE))
    whole = 0
    for at in range(0, 3 * RATE, FRAME):
        frame = samples[at : at + FRAME]
        try:
            start = position_in_loop(frame[:, SURF], loop)
        except AssertionError:
            continue
        expected = np.stack([to_s16(synthesize(c, start, FRAME, RATE)) for c in range(16)], axis=1)
        whole += np.array_equal(frame, expected)
    assert whole >= RATE // FRAME, f"{whole} whole frames; {said}"
