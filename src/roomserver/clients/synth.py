"""Sixteen sounds that an ear tells apart, for the demonstration and for tests.

Every sound is a loop of `LOOP_S` seconds without a seam, computed once per rate and cut from
there: `synthesize` gives the same samples however the stream is divided into blocks, and costs a
copy. Channels beyond the sixteenth repeat the sounds a minor third higher per sixteen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from roomserver.clients.wire import Encoding

LOOP_S: Final = 8
# -18 dBFS, as desks line up: sixteen of them added up do not clip.
_PEAK: Final = 0.125
_Signal: TypeAlias = NDArray[np.float64]
_SEMITONE: Final = 2 ** (1 / 12)


def synthesize(channel: int, start: int, count: int, rate: int) -> NDArray[np.float32]:
    """Samples of one channel.

    Args:
        channel: 0–63.
        start: Number of the first sample, from 0.
        count: How many.
        rate: In Hz.

    Returns:
        float32, within ±0.125.
    """
    loop = _loop(channel, rate)
    first = start % loop.shape[0]
    if first + count <= loop.shape[0]:
        return loop[first : first + count].copy()
    samples: NDArray[np.float32] = np.take(loop, np.arange(first, first + count), mode="wrap")
    return samples


def channel_name(channel: int) -> str:
    """What a channel sounds like."""
    name = _SOUNDS[channel % len(_SOUNDS)][0]
    octave = channel // len(_SOUNDS)
    return f"{name} {octave + 1}" if octave else name


@lru_cache(maxsize=256)
def _loop(channel: int, rate: int) -> NDArray[np.float32]:
    transpose = _SEMITONE ** (3 * (channel // len(_SOUNDS)))
    signal = _SOUNDS[channel % len(_SOUNDS)][1](_Stage(rate, transpose, seed=channel))
    loop: NDArray[np.float32] = (signal * (_PEAK / np.abs(signal).max())).astype(np.float32)
    loop.flags.writeable = False
    return loop


class _Stage:
    """A loop being made: its time axis, and generators that close without a seam."""

    def __init__(self, rate: int, transpose: float, seed: int) -> None:
        self.rate = rate
        self.transpose = transpose
        self.length = LOOP_S * rate
        self.time: _Signal = np.arange(self.length) / rate
        self.random = np.random.Generator(np.random.PCG64(seed))

    def pitch(self, frequency: float) -> float:
        """The transposed frequency, below half the rate, with whole periods in the loop."""
        wanted = min(frequency * self.transpose, 0.45 * self.rate)
        return max(1, round(wanted * LOOP_S)) / LOOP_S

    def sine(self, frequency: float) -> _Signal:
        """A sine through the whole loop."""
        signal: _Signal = np.sin(2 * np.pi * self.pitch(frequency) * self.time)
        return signal

    def noise(self, low: float, high: float, slope: float = 0.0) -> _Signal:
        """Noise between two frequencies, its amplitude falling with frequency to ``slope``."""
        frequencies = np.fft.rfftfreq(self.length, 1 / self.rate)
        ceiling = min(high * self.transpose, 0.5 * self.rate)
        floor = min(low * self.transpose, 0.5 * ceiling)
        band = (frequencies >= floor) & (frequencies <= ceiling)
        phases = self.random.uniform(0, 2 * np.pi, frequencies.shape[0])
        weights = np.maximum(frequencies, 1.0) ** -slope
        spectrum = np.where(band, weights * np.exp(1j * phases), 0)
        signal: _Signal = np.fft.irfft(spectrum, self.length)
        signal /= np.abs(signal).max()
        return signal

    def place(self, events: list[tuple[float, _Signal]]) -> _Signal:
        """Add sounds at their seconds; what runs over the end continues at the start."""
        signal = np.zeros(self.length)
        for second, sound in events:
            first = round(second * self.rate) % self.length
            head = sound[: self.length - first]
            signal[first : first + head.shape[0]] += head
            tail = sound[head.shape[0] :]
            signal[: tail.shape[0]] += tail
        return signal

    def note(
        self, frequency: float, seconds: float, decay: float, partials: tuple[float, ...] = (1.0,)
    ) -> _Signal:
        """A note with harmonics of these amplitudes that dies away with time constant ``decay``."""
        time = np.arange(round(seconds * self.rate)) / self.rate
        signal = np.zeros(time.shape[0])
        base = min(frequency * self.transpose, 0.4 * self.rate)
        for number, amplitude in enumerate(partials, 1):
            if number * base < 0.45 * self.rate:
                signal += amplitude * np.sin(2 * np.pi * number * base * time)
        return signal * np.exp(-time / decay) * _edges(time, seconds)

    def voice(self, fundamental: float, vowels: str, seconds_each: float) -> _Signal:
        """A voice that says vowels: glottal pulses through the resonances of each."""
        vibrato = 0.02 * np.sin(2 * np.pi * 5 * self.time) / (2 * np.pi * 5)
        cycles = self.pitch(fundamental) * (self.time + vibrato)
        pulses = np.zeros(self.length)
        pulses[np.flatnonzero(np.diff(np.floor(cycles), prepend=-1.0) > 0)] = 1.0
        source = np.fft.rfft(pulses)
        frequencies = np.fft.rfftfreq(self.length, 1 / self.rate)
        signal = np.zeros(self.length)
        slots = round(LOOP_S / seconds_each)
        for index, vowel in enumerate(dict.fromkeys(vowels)):
            response = np.zeros(frequencies.shape[0], np.complex128)
            for formant, (centre, gain) in enumerate(_FORMANTS[vowel]):
                width = 60 + 30 * formant
                response += gain / (1 + 1j * (frequencies - centre * self.transpose**0.5) / width)
            response[frequencies < 60] = 0
            spoken = np.fft.irfft(source * response, self.length)
            gate = np.zeros(self.length)
            for slot in range(slots):
                if vowels[slot % len(vowels)] == vowel:
                    begin = round(slot * seconds_each * self.rate)
                    syllable = np.arange(round(0.85 * seconds_each * self.rate)) / self.rate
                    gate[begin : begin + syllable.shape[0]] += _edges(
                        syllable, 0.85 * seconds_each, 0.04
                    )
            signal += spoken / np.abs(spoken).max() * gate * (1 - 0.05 * index)
        return signal


_FORMANTS: Final = {  # centre in Hz and gain, from measurements of spoken vowels
    "a": ((730, 1.0), (1090, 0.5), (2440, 0.1)),
    "e": ((530, 1.0), (1840, 0.4), (2480, 0.2)),
    "i": ((270, 1.0), (2290, 0.3), (3010, 0.2)),
    "o": ((570, 1.0), (840, 0.6), (2410, 0.05)),
    "u": ((300, 1.0), (870, 0.3), (2240, 0.03)),
}
_MORSE: Final = {"R": ".-.", "E": ".", "L": ".-..", "A": ".-", "Y": "-.--"}
_DIGITS: Final = {
    "1": (697, 1209), "2": (697, 1336), "3": (697, 1477), "4": (770, 1209), "5": (770, 1336),
    "6": (770, 1477), "7": (852, 1209), "8": (852, 1336), "9": (852, 1477), "0": (941, 1336),
}  # fmt: skip


def _edges(time: _Signal, seconds: float, ramp: float = 0.003) -> _Signal:
    """An envelope that opens and closes without a click."""
    return np.clip(np.minimum(time, seconds - time) / ramp, 0.0, 1.0)


def _voice_low(stage: _Stage) -> _Signal:
    return stage.voice(110, "aeiou", 0.4)


def _voice_high(stage: _Stage) -> _Signal:
    return stage.voice(277, "uaoi", 0.8)


def _scale(stage: _Stage) -> _Signal:
    steps = (0, 2, 4, 5, 7, 9, 11, 12, 12, 11, 9, 7, 5, 4, 2, 0)
    notes = [
        (0.5 * n, stage.note(261.63 * _SEMITONE**step, 0.48, 4.0)) for n, step in enumerate(steps)
    ]
    return stage.place(notes)


def _pulsing_tone(stage: _Stage) -> _Signal:
    return stage.sine(440) * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * stage.time))


def _clicks(stage: _Stage) -> _Signal:
    events = [
        (0.25 * n, stage.note(2000 if n % 4 else 3000, 0.02, 0.004)) for n in range(4 * LOOP_S)
    ]
    return stage.place(events)


def _noise_bursts(stage: _Stage) -> _Signal:
    hiss = stage.noise(1000, 16000)
    phase = stage.time % 0.5
    return hiss * _edges(phase, 0.2, 0.005)


def _surf(stage: _Stage) -> _Signal:
    swell = 0.55 - 0.45 * np.cos(2 * np.pi * stage.time / 4)
    return stage.noise(40, 4000, slope=0.7) * swell


def _arpeggio(stage: _Stage) -> _Signal:
    chords = ((0, 4, 7, 12), (-3, 0, 4, 9), (-7, -3, 0, 5), (-5, -1, 2, 7))
    events = []
    for beat in range(8 * LOOP_S):
        step = chords[beat // 16 % 4][beat % 4]
        pluck = stage.note(329.63 * _SEMITONE**step, 0.5, 0.15, (1, 0.6, 0.35, 0.2, 0.1))
        events.append((0.125 * beat, pluck))
    return stage.place(events)


def _drums(stage: _Stage) -> _Signal:
    time = np.arange(round(0.25 * stage.rate)) / stage.rate
    fall = 50 * time + 4 * (1 - np.exp(-time / 0.03))
    kick = np.sin(2 * np.pi * fall * stage.transpose) * np.exp(-time / 0.09) * _edges(time, 0.25)
    snare_noise = stage.noise(800, 9000)[: time.shape[0]]
    snare = 0.7 * snare_noise * np.exp(-time / 0.05) * _edges(time, 0.25, 0.001)
    hat = 0.3 * stage.noise(6000, 18000)[: time.shape[0]] * np.exp(-time / 0.015)
    events = []
    for beat in range(2 * LOOP_S):
        events.append((0.5 * beat, snare if beat % 2 else kick))
        events.append((0.5 * beat, hat))
        events.append((0.5 * beat + 0.25, hat))
    return stage.place(events)


def _sweep(stage: _Stage) -> _Signal:
    low, high = 150.0, min(4000.0 * stage.transpose, 0.4 * stage.rate)
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * stage.time / 4)  # up and down twice a loop
    frequency = low * (high / low) ** wave
    cycles = np.cumsum(frequency) / stage.rate
    cycles *= round(cycles[-1]) / cycles[-1]  # whole cycles, so that the loop closes
    return np.sin(2 * np.pi * cycles)


def _morse(stage: _Stage) -> _Signal:
    unit = LOOP_S / 100
    events = []
    second = 0.0
    for letter in "RELAYRELAY":
        for sign in _MORSE[letter]:
            seconds = unit * (3 if sign == "-" else 1)
            events.append((second, stage.note(700, seconds, 60.0)))
            second += seconds + unit
        second += 2 * unit
    return stage.place(events)


def _bells(stage: _Stage) -> _Signal:
    time = np.arange(4 * stage.rate) / stage.rate
    events = []
    for number, base in enumerate((523.25, 659.26, 587.33, 392.0)):
        bell = np.zeros(time.shape[0])
        for ratio, gain, decay in ((0.5, 0.5, 2), (1, 1, 1.2), (2.4, 0.5, 0.6), (4.1, 0.3, 0.3)):
            partial = base * ratio * stage.transpose
            if partial < 0.45 * stage.rate:
                bell += gain * np.sin(2 * np.pi * partial * time) * np.exp(-time / decay)
        events.append((2.0 * number, bell * _edges(time, 4.0)))
    return stage.place(events)


def _bass(stage: _Stage) -> _Signal:
    steps = (0, 0, 7, 12, -3, -3, 4, 9, -7, -7, 0, 5, -5, -5, 2, 7)
    events = [
        (0.5 * n, stage.note(65.41 * _SEMITONE**step, 0.45, 0.4, (1, 0.7, 0.4, 0.25, 0.15)))
        for n, step in enumerate(steps)
    ]
    return stage.place(events)


def _siren(stage: _Stage) -> _Signal:
    partials = (1.0, 0.0, 1 / 3, 0.0, 1 / 5)
    events = [
        (0.5 * n, stage.note(960 if n % 2 else 770, 0.5, 60.0, partials)) for n in range(2 * LOOP_S)
    ]
    return stage.place(events)


def _birds(stage: _Stage) -> _Signal:
    time = np.arange(round(0.12 * stage.rate)) / stage.rate
    top = min(3000.0 * stage.transpose, 0.25 * stage.rate)
    chirp = np.sin(2 * np.pi * (top * time + 0.5 * top / 0.24 * time**2)) * _edges(time, 0.12, 0.02)
    seconds = sorted(stage.random.uniform(0, LOOP_S, 28))
    return stage.place([(second, chirp) for second in seconds])


def _telephone(stage: _Stage) -> _Signal:
    events = [
        (0.5 * number, stage.note(frequency, 0.3, 60.0))
        for number, digit in enumerate("3141592653589793")
        for frequency in _DIGITS[digit]
    ]
    return stage.place(events)


_SOUNDS: Final[tuple[tuple[str, Callable[[_Stage], _Signal]], ...]] = (
    ("low voice", _voice_low),
    ("high voice", _voice_high),
    ("scale", _scale),
    ("pulsing A", _pulsing_tone),
    ("metronome", _clicks),
    ("noise bursts", _noise_bursts),
    ("surf", _surf),
    ("arpeggio", _arpeggio),
    ("drums", _drums),
    ("sweep", _sweep),
    ("Morse RELAY", _morse),
    ("bells", _bells),
    ("bass line", _bass),
    ("siren", _siren),
    ("birds", _birds),
    ("telephone", _telephone),
)


class SynthSource:
    """The sounds as a source that never ends (see `roomserver.clients.source.SampleSource`).

    Args:
        channels: 1–64.
        sample_rate: In Hz.
    """

    name = "synthesizer"

    def __init__(self, channels: int, sample_rate: int) -> None:
        self.channels = channels
        self.sample_rate = sample_rate
        self._position = 0

    @property
    def encoding(self) -> Encoding:
        """16 bit: half the bytes, and exact to compare."""
        return Encoding.S16LE

    def read(self, count: int) -> NDArray[np.float32]:
        """The next samples, shape (count, channels)."""
        block = np.empty((self.channels, count), np.float32)
        for channel in range(self.channels):
            block[channel] = synthesize(channel, self._position, count, self.sample_rate)
        self._position += count
        return block.T

    def skip(self, count: int) -> int:
        """Pass over samples."""
        self._position += count
        return count

    def close(self) -> None:
        """Nothing is held."""
