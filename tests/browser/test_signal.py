"""The client's signal path in the browser, against NumPy and the relay's own kernels."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from playwright.async_api import Browser

from relaycore import mix as native_mix
from roomserver.clients.wire import HEADER, pack_source_packet
from support.browser import ClientPage, client_page, decoded, encoded
from support.server import ServerProcess

RATE = 48_000


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(browser: Browser, server: ServerProcess) -> AsyncIterator[ClientPage]:
    async with client_page(browser, server.url) as page:
        yield page


def tone(hertz: float, count: int, rate: float = RATE, amplitude: float = 0.5) -> Any:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(count) / rate)).astype(np.float32)


def distortion_db(signal: NDArray[np.float32], hertz: float, rate: float) -> float:
    """Energy of all that is not the tone, against the tone."""
    samples = signal.astype(np.float64)
    phase = 2 * np.pi * hertz * np.arange(samples.size) / rate
    basis = np.stack([np.sin(phase), np.cos(phase)], 1)
    fit = basis @ np.linalg.lstsq(basis, samples, rcond=None)[0]
    return float(10 * np.log10(np.mean((samples - fit) ** 2) / np.mean(fit**2) + 1e-20))


async def test_packets_are_those_of_the_python_client_byte_for_byte(page: ClientPage) -> None:
    exact = np.array([0, 0.5, 1.5, -0.5, -1.5, 32767, -32768, 40000, -40000, 2.5]) / 32768
    random = np.random.default_rng(1).uniform(-1.1, 1.1, (2, 480))
    planes = np.concatenate([np.stack([exact, -exact]), random], 1).astype(np.float32)
    fields = {"sequence": 2**32 - 1, "timestamp": 2**52 + 12345, "timeUs": 1_764_115_200_123_456}
    for encoding in ("pcm_s16le", "pcm_f32le"):
        text = await page.call(
            "signal.js",
            "pack",
            encoded(planes),
            fields
            | {"encoding": encoding, "channelCount": 2, "sampleCount": 490, "firstChannel": 3},
        )
        samples: Any = planes
        if encoding == "pcm_s16le":
            scaled = np.rint(planes.astype(np.float64) * 32768)
            samples = np.clip(scaled, -32768, 32767).astype(np.int16)
        assert base64.b64decode(text) == pack_source_packet(
            samples,
            sequence=fields["sequence"],
            timestamp=fields["timestamp"],
            time_us=fields["timeUs"],
            first_channel=3,
        )


async def test_frames_are_understood_and_anything_else_is_refused(page: ClientPage) -> None:
    samples = struct.pack("<4h", 1, -2, 3, -32768)
    header = (1, 2, 0, 3, 7, 2, 9, 2, 2**45 + 5, 1_764_115_200_123_456)
    frame = HEADER.pack(*header) + samples
    told = await page.call("signal.js", "parse", base64.b64encode(frame).decode())
    assert told == {
        "kind": "frame",
        "concealed": True,
        "discontinuity": True,
        "stream": 7,
        "channelCount": 2,
        "sequence": 9,
        "sampleCount": 2,
        "timestamp": 2**45 + 5,
        "timeUs": 1_764_115_200_123_456,
        "samples": [1, -2, 3, -32768],
        "values": None,
    }
    version, kind, encoding = (
        bytes([9]) + frame[1:],
        frame[:1] + bytes([1]) + frame[2:],
        frame[:2] + bytes([2]) + frame[3:],
    )
    for bad in (b"", frame[:31], frame[:-1], frame + b"\0", version, kind, encoding):
        code = await page.call("signal.js", "parse", base64.b64encode(bad).decode())
        assert code == "malformed"


def gains(mix: dict[str, Any], channels: list[int]) -> NDArray[np.float64]:
    """Left and right of each channel, as docs/protocol.md has it."""

    def of(name: str, channel: int, default: Any) -> Any:
        given = mix.get(name, [])
        return given[channel] if channel < len(given) else default

    soloed = any(of("solos", channel, False) for channel in channels)
    rows = []
    for channel in channels:
        silent = of("mutes", channel, False) or (soloed and not of("solos", channel, False))
        gain = 0 if silent else of("faders", channel, 1.0) * mix.get("master", 1.0)
        angle = (of("pans", channel, 0.0) + 1) * np.pi / 4
        rows.append([np.cos(angle) * gain, np.sin(angle) * gain])
    return np.array(rows)


async def test_the_mix_and_its_ramps_are_the_servers(page: ClientPage) -> None:
    random = np.random.default_rng(2)
    channels = [0, 3, 31, 32, 63]
    mask = [
        int(np.int32(np.uint32(1 | 1 << 3 | 1 << 31))),
        int(np.int32(np.uint32(1 | 1 << 31))),
    ]
    full = {"faders": [], "pans": [], "mutes": [], "solos": [], "master": 1.0}
    second = full | {
        "faders": random.uniform(0, 4, 64).tolist(),
        "pans": random.uniform(-1, 1, 64).tolist(),
        "mutes": [channel == 3 for channel in range(64)],
        "master": 0.7,
    }
    third = second | {"solos": [channel in (1, 32) for channel in range(64)]}
    mixes = [full, second, None, third]
    frames = random.uniform(-1, 1, (4, 960, 5)).astype(np.float32)
    left, right, levels = await page.call(
        "signal.js", "mix", [encoded(frame) for frame in frames], 5, mask, mixes
    )
    now = gains(full, channels)
    expected = []
    for frame, mix in zip(frames, mixes, strict=True):
        to = now if mix is None else gains(mix, channels)
        planes = np.ascontiguousarray(frame.T)
        expected.append(native_mix(planes, now.T, to_gains=to.T))
        now = to
    heard = np.stack([decoded(left), decoded(right)])
    np.testing.assert_allclose(heard, np.concatenate(expected, 1), atol=5e-6)
    pairs = decoded(levels).reshape(64, 2)
    all_samples = frames.reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(pairs[channels, 0], np.abs(all_samples).max(0), rtol=1e-6)
    np.testing.assert_allclose(pairs[channels, 1], np.sqrt(np.mean(all_samples**2, 0)), rtol=1e-6)
    assert np.isnan(np.delete(pairs, channels, 0)).all()


@pytest.mark.parametrize(
    ("source", "context", "hertz"),
    [
        (48_000, 48_000, 1000),
        (48_000 * 1.001, 48_000, 15_000),
        (44_100, 48_000, 997),
        (44_100, 48_000, 17_000),
        (96_000, 44_100, 16_000),
        (8_000, 48_000, 3_000),
    ],
)
async def test_resampling_keeps_a_tone_pure(
    page: ClientPage, source: float, context: float, hertz: float
) -> None:
    step = source / context
    signal = tone(hertz, int(16384 * step) + 400, source)
    output = decoded(await page.call("signal.js", "resample", encoded(signal), step, 16384))
    assert distortion_db(output, hertz, context) < -80
    assert 20 * np.log10(np.sqrt(2 * np.mean(output**2)) / 0.5) == pytest.approx(0, abs=0.05)


async def test_resampling_down_lets_no_alias_through(page: ClientPage) -> None:
    signal = tone(30_000, 40_000, 96_000)
    output = decoded(
        await page.call("signal.js", "resample", encoded(signal), 96_000 / 44_100, 16384)
    )
    assert 10 * np.log10(np.mean(output.astype(np.float64) ** 2) / 0.125 + 1e-20) < -80


@pytest.mark.parametrize("hertz", [110, 440, 3000])
@pytest.mark.parametrize("gap_ms", [5, 20, 200])
async def test_a_gap_is_filled_without_a_click(
    page: ClientPage, hertz: float, gap_ms: float
) -> None:
    signal = tone(hertz, 24_000)
    at, gap = 9_600, round(gap_ms * RATE / 1000)
    text = await page.call("signal.js", "conceal", encoded(signal), RATE, at, gap)
    filled = decoded(text).astype(np.float64)
    # A sine obeys x[n+1] = 2 cos(w) x[n] - x[n-1]. A click would be a residue of its own height;
    # fading and blending leave what their slopes are.
    factor = 2 * np.cos(2 * np.pi * hertz / RATE)
    residue = np.abs(filled[2:] - factor * filled[1:-1] + filled[:-2])
    assert residue.max() < 0.01
    middle = filled[at : at + gap]
    if gap_ms <= 20:
        assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, abs=0.1)  # it goes on
    else:
        assert not middle[round(0.08 * RATE) : -1].any()  # and then is silent
    resumed = at + gap + round(0.006 * RATE)
    np.testing.assert_array_equal(filled[resumed:], signal[resumed:].astype(np.float64))


async def test_the_shared_ring_hands_over_every_frame_in_order(page: ClientPage) -> None:
    random = np.random.default_rng(3)
    messages, expected = [], []
    for sequence in range(300):
        count = int(random.integers(1, 200))
        samples = random.integers(-32768, 32768, count, dtype=np.int16)
        header = HEADER.pack(1, 2, 0, 0, 1, 1, sequence, count, sequence * 960, 0)
        messages.append(base64.b64encode(header + samples.tobytes()).decode())
        expected.append([sequence, *samples.tolist()])
    told = await page.call("signal.js", "ring", messages, 1024)
    assert told["taken"] == expected
    assert told["refused"] > 50  # it was full that often, and wrapped
