"""The sample kernels against NumPy that gives the same numbers, and against copying their output.

All of them are called from Python with arrays that exist already, so the fixed cost of a call is in
every time. NumPy gets scratch arrays made beforehand; "copy" moves as many bytes as the kernel
writes. `relaycore.simd()` says which instruction set runs; the last benchmarks go through the
others.

What a listener of a mix gets is measured as "mix to a frame": stereo in 16 bits, interleaved, with
gains that stand still or move. "NumPy" is the quickest program found that gives the same: gains by
linearity, so that a ramp is two products of matrices and not one for each sample, in arrays that
are there already. "mix to stereo" is the sum alone. There "matmul" is the matrix library that NumPy
brings (OpenBLAS), which works at the speed of the machine as the kernel does, and fuses
multiplication and addition as the kernel may not, whose sums are the same bits on every machine.
"einsum" is NumPy itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import relaycore
from benchmarks.conftest import Compare, on_pages

SAMPLES = 960  # 20 ms at 48 kHz
CHANNELS = (1, 2, 3, 8, 16, 17, 64)
SIZES = [*((channels, SAMPLES) for channels in CHANNELS), (16, 441), (64, 441)]
sizes = pytest.mark.parametrize(("channels", "samples"), SIZES)


def noise(channels: int, samples: int) -> NDArray[np.float32]:
    random = np.random.default_rng(channels)
    return random.uniform(-0.9, 0.9, (channels, samples)).astype(np.float32)


def copying(array: NDArray[np.generic]) -> Callable[[], None]:
    """Copies as many bytes as `array` has."""
    zeros = np.zeros(array.nbytes, np.uint8)
    source, target = (on_pages(zeros).data for _ in range(2))

    def copy() -> None:
        target[:] = source

    return copy


def numpy_int16(
    planes: NDArray[np.float32], out: NDArray[np.int16]
) -> Callable[[], NDArray[np.int16]]:
    """Converts and transposes: the fastest order of operations found for it."""
    scratch = np.empty_like(planes)
    turned = scratch.T if planes.ndim == 2 else scratch

    def convert() -> NDArray[np.int16]:
        np.multiply(planes, np.float32(32768), out=scratch)
        np.rint(scratch, out=scratch)
        np.clip(scratch, -32768, 32767, out=scratch)
        np.copyto(out, turned, casting="unsafe")
        return out

    return convert


@sizes
def test_interleave_to_int16(compare: Compare, channels: int, samples: int) -> None:
    planes = noise(channels, samples)
    out = np.empty((samples, channels), np.int16)
    compare(
        f"interleave to int16, {channels} x {samples}",
        lambda: relaycore.interleave(planes, out=out),
        {"NumPy": numpy_int16(planes, out.copy()), "copy": copying(out)},
    )


@sizes
def test_interleave_float32(compare: Compare, channels: int, samples: int) -> None:
    planes = noise(channels, samples)
    out, other = (np.empty((samples, channels), np.float32) for _ in range(2))
    compare(
        f"interleave float32, {channels} x {samples}",
        lambda: relaycore.interleave(planes, out=out),
        {"NumPy": lambda: np.copyto(other, planes.T), "copy": copying(out)},
    )


@sizes
def test_deinterleave_int16_to_float32(compare: Compare, channels: int, samples: int) -> None:
    frames = relaycore.interleave(noise(channels, samples), dtype=np.int16)
    out, other = (np.empty((channels, samples), np.float32) for _ in range(2))
    compare(
        f"deinterleave int16 to float32, {channels} x {samples}",
        lambda: relaycore.deinterleave(frames, out=out),
        {
            "NumPy": lambda: np.multiply(frames.T, np.float32(1 / 32768), out=other),
            "copy": copying(out),
        },
    )


@sizes
def test_mix_to_stereo(compare: Compare, channels: int, samples: int) -> None:
    planes = noise(channels, samples)
    gains = np.random.default_rng(0).uniform(0.1, 1, (2, channels)).astype(np.float32)
    out, other = (np.empty((2, samples), np.float32) for _ in range(2))
    compare(
        f"mix to stereo, {channels} x {samples}",
        lambda: relaycore.mix(planes, gains, out=out),
        {
            "matmul": lambda: np.matmul(gains, planes, out=other),
            "einsum": lambda: np.einsum("oc,cn->on", gains, planes, out=other),
            "copy": copying(out),
        },
    )


@sizes
def test_mix_to_stereo_with_ramps(compare: Compare, channels: int, samples: int) -> None:
    planes = noise(channels, samples)
    random = np.random.default_rng(0)
    start, end = (random.uniform(0.1, 1, (2, channels)).astype(np.float32) for _ in range(2))
    change = end - start
    along = (np.arange(samples) / samples).astype(np.float32)
    out, other, moving = (np.empty((2, samples), np.float32) for _ in range(3))

    def in_numpy() -> None:
        np.matmul(change, planes, out=moving)
        np.multiply(moving, along, out=moving)
        np.matmul(start, planes, out=other)
        np.add(other, moving, out=other)

    compare(
        f"mix to stereo with ramps, {channels} x {samples}",
        lambda: relaycore.mix(planes, start, to_gains=end, out=out),
        {"matmul": in_numpy, "copy": copying(out)},
    )


@pytest.mark.parametrize("moving", [False, True], ids=["steady", "moving"])
@pytest.mark.parametrize("channels", [16, 64])
def test_mix_to_a_frame(compare: Compare, channels: int, *, moving: bool) -> None:
    planes = noise(channels, SAMPLES)
    random = np.random.default_rng(0)
    start, end = (
        random.uniform(0.1, 1, (2, channels)).astype(np.float32) / channels for _ in range(2)
    )
    change = end - start
    along = (np.arange(SAMPLES) / SAMPLES).astype(np.float32)
    stereo, other, moved = (np.empty((2, SAMPLES), np.float32) for _ in range(3))
    frame, same = (np.empty((SAMPLES, 2), np.int16) for _ in range(2))
    to_frame = numpy_int16(other, same)

    def ours() -> None:
        relaycore.mix(planes, start, to_gains=end if moving else None, out=stereo)
        relaycore.interleave(stereo, out=frame)

    def in_numpy() -> None:
        np.matmul(start, planes, out=other)
        if moving:
            np.matmul(change, planes, out=moved)
            np.multiply(moved, along, out=moved)
            np.add(other, moved, out=other)
        to_frame()

    ours()
    in_numpy()
    assert np.abs(frame.astype(int) - same).max() <= 1  # NumPy's sums are rounded in another order
    compare(
        f"mix to a frame, {'moving' if moving else 'steady'} gains, {channels} x {SAMPLES}",
        ours,
        {"NumPy": in_numpy, "copy": copying(frame)},
    )


@pytest.mark.parametrize("samples", [441, 960, 48_000])
def test_convert_to_int16(compare: Compare, samples: int) -> None:
    signal = noise(1, samples)[0]
    out = np.empty(samples, np.int16)
    compare(
        f"convert to int16, {samples}",
        lambda: relaycore.to_int16(signal, out=out),
        {"NumPy": numpy_int16(signal, out.copy()), "copy": copying(out)},
    )


@pytest.mark.parametrize("samples", [441, 960, 48_000])
def test_convert_to_float32(compare: Compare, samples: int) -> None:
    signal = relaycore.to_int16(noise(1, samples)[0])
    out, other = (np.empty(samples, np.float32) for _ in range(2))
    compare(
        f"convert to float32, {samples}",
        lambda: relaycore.to_float32(signal, out=out),
        {
            "NumPy": lambda: np.multiply(signal, np.float32(1 / 32768), out=other),
            "copy": copying(out),
        },
    )


@sizes
def test_levels(compare: Compare, channels: int, samples: int) -> None:
    planes = noise(channels, samples)
    magnitudes = np.empty_like(planes)

    def in_numpy() -> None:
        np.abs(planes, out=magnitudes).max(axis=1)
        np.sqrt(np.einsum("cn,cn->c", planes, planes, dtype=np.float64) / samples)

    compare(
        f"levels, {channels} x {samples}",
        lambda: relaycore.levels(planes),
        {"NumPy": in_numpy, "copy": copying(planes)},
    )


@pytest.mark.parametrize("channels", [2, 16, 64])
@pytest.mark.parametrize("variant", relaycore.simd_available())
def test_instruction_sets(compare: Compare, variant: str, channels: int) -> None:
    planes = noise(channels, SAMPLES)
    out = np.empty((SAMPLES, channels), np.int16)
    with relaycore.force_simd(variant):
        compare(
            f"interleave to int16, {channels} x {SAMPLES}, {variant}",
            lambda: relaycore.interleave(planes, out=out),
            {"NumPy": numpy_int16(planes, out.copy()), "copy": copying(out)},
        )
