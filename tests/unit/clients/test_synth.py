"""The demonstration's sounds: exact however they are cut, and different to the ear."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from roomserver.clients.synth import LOOP_S, SynthSource, channel_name, synthesize

RATE = 48000
LOOP = LOOP_S * RATE


@pytest.fixture(scope="module")
def sounds() -> NDArray[np.float32]:
    return np.stack([synthesize(channel, 0, LOOP, RATE) for channel in range(16)])


@pytest.mark.parametrize("channel", range(16))
def test_samples_do_not_depend_on_how_the_stream_is_cut(
    channel: int, sounds: NDArray[np.float32]
) -> None:
    start = 3 * LOOP - 1000
    pieces = [synthesize(channel, start + at, 127, RATE) for at in range(0, 127 * 20, 127)]
    expected = np.take(sounds[channel], np.arange(-1000, 127 * 20 - 1000), mode="wrap")
    np.testing.assert_array_equal(np.concatenate(pieces), expected)
    assert synthesize(channel, 2**53, 0, RATE).shape == (0,)


def test_the_loop_closes_without_a_click(sounds: NDArray[np.float32]) -> None:
    steps = np.abs(np.diff(sounds, axis=1)).max(axis=1)
    seam = np.abs(sounds[:, 0] - sounds[:, -1])
    assert (seam <= steps).all()
    assert (seam < 0.0125).all()


def test_levels_are_comfortable(sounds: NDArray[np.float32]) -> None:
    assert np.abs(sounds).max(axis=1) == pytest.approx(np.full(16, 0.125), abs=1e-6)
    assert (np.abs(sounds.mean(axis=1)) < 0.0025).all()
    assert (sounds.std(axis=1) > 0.005).all()


def test_no_channel_is_silent_for_a_second(sounds: NDArray[np.float32]) -> None:
    halves = np.abs(sounds).reshape(16, 2 * LOOP_S, -1).max(axis=2)
    seconds = np.maximum(halves, np.roll(halves, 1, axis=1))
    assert (seconds > 0.0025).all()


def test_channels_are_told_apart_by_spectrum_and_rhythm(sounds: NDArray[np.float32]) -> None:
    """Each channel's fingerprint, from half of the loop, is nearest to its own other half."""

    def fingerprint(sound: NDArray[np.float32]) -> NDArray[np.float64]:
        blocks = sound.reshape(-1, 2400).astype(np.float64)
        spectrum = np.abs(np.fft.rfft(blocks * np.hanning(2400), axis=1)).mean(axis=0)
        bands = [band.sum() for band in np.array_split(spectrum[: 2**10], 128)]
        rhythm = np.abs(np.fft.rfft(np.sqrt((blocks**2).mean(axis=1))))[1:40]
        parts = (np.array(bands), rhythm)
        return np.concatenate([part / np.linalg.norm(part) for part in parts])

    first = np.stack([fingerprint(sound[: LOOP // 2]) for sound in sounds])
    second = np.stack([fingerprint(sound[LOOP // 2 :]) for sound in sounds])
    likeness = first @ second.T
    assert likeness.argmax(axis=1).tolist() == list(range(16))


def test_tones_have_the_pitch_they_say(sounds: NDArray[np.float32]) -> None:
    strongest = np.abs(np.fft.rfft(sounds[3])).argmax() / LOOP_S
    assert strongest == 440.0
    morse = np.abs(np.fft.rfft(sounds[10])).argmax() / LOOP_S
    assert abs(morse - 700) < 1


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_and_further_channels_work(rate: int) -> None:
    block = np.stack([synthesize(channel, 0, rate, rate) for channel in (0, 9, 17, 63)])
    assert np.isfinite(block).all()
    assert (np.abs(block) <= 0.125 + 1e-6).all()
    assert not np.array_equal(synthesize(1, 0, rate, rate), block[2])


def test_names_are_unique() -> None:
    names = [channel_name(channel) for channel in range(64)]
    assert len(set(names)) == 64
    assert max(map(len, names)) <= 64


def test_the_source_reads_all_channels() -> None:
    source = SynthSource(3, 8000)
    source.read(100)
    assert source.skip(50) == 50
    block = source.read(10)
    expected = [synthesize(channel, 150, 10, 8000) for channel in range(3)]
    np.testing.assert_array_equal(block.T, expected)
