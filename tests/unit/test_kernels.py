"""The sample kernels: every instruction set against NumPy, and against the scalar loops.

What goes in and comes out stands right before a page that can't be touched, so a kernel that
reads or writes one byte too many crashes the test.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

import relaycore

VARIANTS = relaycore.simd_available()
kernels: Any = relaycore  # for calls with types that mypy would refuse
FLOATS = NDArray[np.float32]
INTS = NDArray[np.int16]

# What a conversion can get wrong: halves, both ends of the range, what overflows an int32 on the
# way, zeros of both signs, and what is no number.
HALVES = (0.5, -0.5, 1.5, 2.5, -2.5, 32766.5, 32767.5, -32768.5)
ENDS = (32767, 32768, -32768, -32769, 65535, 65536, -65536, 2.0**31, -(2.0**31), 1e30, -1e30)
NO_NUMBERS = (np.nan, np.inf, -np.inf)
SPECIALS = np.array((0.0, -0.0, *HALVES, *ENDS, *NO_NUMBERS), np.float32) / np.float32(32768)

each_variant = pytest.mark.parametrize("variant", VARIANTS)
quick = settings(max_examples=60, deadline=None, derandomize=True)

# Sizes around every block that a kernel may have, and not only those.
SAMPLES = st.one_of(st.integers(0, 40), st.sampled_from([63, 64, 65, 127, 128, 129, 240, 257, 960]))
CHANNELS = st.one_of(st.integers(0, 17), st.integers(0, 64))
SEEDS = st.integers(0, 2**32 - 1)


class Guarded:
    """Memory that ends where a page begins that nobody may read or write."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self._usable = -(-size // page) * page
        self._memory = mmap.mmap(-1, self._usable + page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(address + self._usable), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, shape: Sequence[int], dtype: DTypeLike, before_end: int = 0) -> NDArray[Any]:
        """An array that ends `before_end` bytes before the forbidden page."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        offset = self._usable - size - before_end
        return np.ndarray(shape, dtype, buffer=self._memory, offset=offset)


MEMORY = [Guarded(64 * 1024 * 4 + 4096) for _ in range(4)]


def guarded(place: int, array: NDArray[Any], before_end: int = 0) -> NDArray[Any]:
    """A copy of `array` in guarded memory."""
    copy = MEMORY[place].array(array.shape, array.dtype, before_end)
    copy[...] = array
    return copy


def floats(channels: int, samples: int, seed: int) -> FLOATS:
    """Planes of noise with loud and special values here and there."""
    random = np.random.default_rng(seed)
    planes = random.normal(0, 0.4, (channels, samples)).astype(np.float32)
    odd = random.random(planes.shape) < random.choice([0, 0.01, 0.3])
    planes[odd] = random.choice(SPECIALS, int(odd.sum()))
    return planes


def ints(channels: int, samples: int, seed: int) -> INTS:
    random = np.random.default_rng(seed)
    return random.integers(-32768, 32768, (channels, samples)).astype(np.int16)


def gain_matrix(outputs: int, channels: int, random: np.random.Generator) -> FLOATS:
    gains = random.uniform(-2, 4, (outputs, channels)).astype(np.float32)
    gains[random.random(gains.shape) < 0.3] = 0
    return gains


def as_int16(samples: FLOATS) -> INTS:
    """The rule of the protocol, in NumPy."""
    scaled = np.rint(np.where(np.isnan(samples), 0, samples).astype(np.float64) * 32768)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def assert_same(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    """The same bits, but that one NaN is as good as another."""
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if got.dtype == np.float32:
        number = ~np.isnan(wanted)
        assert np.array_equal(number, ~np.isnan(got))
        got, wanted = got[number].view(np.int32), wanted[number].view(np.int32)
    np.testing.assert_array_equal(got, wanted)


# --- conversion ------------------------------------------------------------------------------


@each_variant
def test_every_int16_survives_the_way_to_float_and_back(variant: str) -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    with relaycore.force_simd(variant):
        as_float = relaycore.to_float32(every)
        assert_same(as_float, every.astype(np.float32) / np.float32(32768))
        assert_same(relaycore.to_int16(as_float), every)
        assert_same(relaycore.interleave(as_float.reshape(64, -1), dtype=np.int16).T.ravel(), every)


@each_variant
def test_every_half_rounds_to_the_even_neighbour(variant: str) -> None:
    halves = ((np.arange(-32768, 32767) + 0.5) / 32768).astype(np.float32)
    wanted = as_int16(halves)
    assert np.all(wanted % 2 == 0)
    with relaycore.force_simd(variant):
        assert_same(relaycore.to_int16(halves), wanted)


@each_variant
@pytest.mark.parametrize("at", [0, 7, 37])
def test_special_values_convert_wherever_they_stand(variant: str, at: int) -> None:
    for special in SPECIALS:
        samples = np.full(50, 0.25, np.float32)
        samples[at] = special
        with relaycore.force_simd(variant):
            assert_same(relaycore.to_int16(samples), as_int16(samples))
            stereo = relaycore.interleave([samples, samples[::-1].copy()], dtype=np.int16)
        assert_same(stereo[:, 0], as_int16(samples))
        assert_same(stereo[:, 1], as_int16(samples)[::-1])


@each_variant
@quick
@given(samples=SAMPLES, offset=st.integers(0, 70), seed=SEEDS)
def test_conversion_follows_the_protocol_at_any_address(
    variant: str, samples: int, offset: int, seed: int
) -> None:
    as_float = guarded(0, floats(1, samples, seed)[0], offset // 4 * 4)
    as_int = guarded(1, ints(1, samples, seed)[0], offset)
    with relaycore.force_simd(variant):
        out = MEMORY[2].array((samples,), np.int16, offset)
        assert relaycore.to_int16(as_float, out=out) is out
        assert_same(out, as_int16(as_float))
        assert_same(relaycore.to_float32(as_int), as_int.astype(np.float32) / np.float32(32768))


def test_conversion_keeps_any_shape() -> None:
    block = np.full((2, 3, 5), 0.5, np.float32)
    assert_same(relaycore.to_int16(block), np.full((2, 3, 5), 16384, np.int16))
    assert relaycore.to_int16(np.full((), 0.5, np.float32)).shape == ()


# --- interleave and deinterleave -------------------------------------------------------------


def check_layout(channels: int, samples: int, offset: int, seed: int) -> None:
    """Interleave and take apart again, all types, between memory that nobody may touch."""
    planes = guarded(0, floats(channels, samples, seed), offset // 4 * 4)
    for source, dtype, wanted in (
        (planes, np.float32, planes.T),
        (planes, np.int16, as_int16(planes).T),
        (guarded(1, as_int16(planes), offset // 2 * 2), np.int16, as_int16(planes).T),
    ):
        frames = MEMORY[2].array((samples, channels), dtype, offset)
        around = MEMORY[2].array((frames.nbytes + offset + 32,), np.uint8)
        around[:] = 0xA5
        assert relaycore.interleave(source, out=frames) is frames
        assert_same(frames, wanted)
        assert np.all(around[:32] == 0xA5)
        assert np.all(around[32 + frames.nbytes :] == 0xA5)

        back = MEMORY[3].array((channels, samples), source.dtype)
        assert relaycore.deinterleave(frames, out=back) is back
        if source.dtype == frames.dtype:
            assert_same(back, source)
        else:
            assert_same(back, wanted.T.astype(np.float32) / np.float32(32768))


@each_variant
@pytest.mark.parametrize("channels", range(65))
def test_interleaving_is_a_transposition_for_every_number_of_channels(
    variant: str, channels: int
) -> None:
    with relaycore.force_simd(variant):
        for samples in (1, 15, 37, 64):
            check_layout(channels, samples, offset=channels % 7, seed=channels)


@each_variant
@quick
@given(channels=CHANNELS, samples=SAMPLES, offset=st.integers(0, 70), seed=SEEDS)
@example(channels=64, samples=960, offset=1, seed=0)
def test_interleaving_is_a_transposition_for_any_size_and_address(
    variant: str, channels: int, samples: int, offset: int, seed: int
) -> None:
    with relaycore.force_simd(variant):
        check_layout(channels, samples, offset, seed)


@each_variant
@quick
@given(data=st.data(), channels=st.integers(1, 64), samples=SAMPLES, seed=SEEDS)
def test_subsets_take_the_channels_named_in_their_order(
    variant: str, data: st.DataObject, channels: int, samples: int, seed: int
) -> None:
    numbers = st.integers(0, channels - 1)
    planes = floats(channels, samples, seed)
    with relaycore.force_simd(variant):
        wanted = data.draw(st.lists(numbers, max_size=20))
        frames = relaycore.interleave(planes, channels=wanted, dtype=np.int16)
        assert_same(frames, as_int16(planes[wanted]).T)

        each_once = data.draw(st.lists(numbers, max_size=20, unique=True))
        frames = relaycore.interleave(planes)
        assert_same(relaycore.deinterleave(frames, channels=each_once), planes[each_once])
        quantised = relaycore.interleave(planes, dtype=np.int16)
        for dtype, scale in ((np.float32, 32768), (np.int16, 1)):
            apart = relaycore.deinterleave(quantised, channels=each_once, dtype=dtype)
            assert_same(apart, (quantised.T[each_once] / np.float32(scale)).astype(dtype))


def test_float_samples_are_moved_untouched_whatever_their_bits() -> None:
    every_kind = np.linspace(0, 2**32 - 1, 6000).astype(np.uint32).view(np.float32)
    for channels in (1, 2, 3, 4, 5, 8, 20, 24):
        planes = every_kind.reshape(channels, -1)
        for variant in VARIANTS:
            with relaycore.force_simd(variant):
                frames = relaycore.interleave(planes)
                assert frames.T.tobytes() == planes.tobytes()
                assert relaycore.deinterleave(frames).tobytes() == planes.tobytes()


def test_planes_may_be_rows_of_a_bigger_array_or_buffers_of_any_kind() -> None:
    big = floats(6, 100, 1)
    expected = np.ascontiguousarray(big[::-2, 10:50].T)
    assert_same(relaycore.interleave(big[::-2, 10:50]), expected)
    assert_same(relaycore.interleave([row[10:50] for row in big[::-2]]), expected)
    assert_same(relaycore.interleave(tuple(memoryview(row)[10:50] for row in big[::-2])), expected)
    out = np.empty_like(big)
    relaycore.deinterleave(expected, out=[row[10:50] for row in out[::-2]])
    assert_same(out[::-2, 10:50], big[::-2, 10:50])


def test_nothing_is_fine() -> None:
    assert relaycore.interleave([]).shape == (0, 0)
    assert relaycore.interleave(np.empty((5, 0), np.float32)).shape == (0, 5)
    assert relaycore.deinterleave(np.empty((7, 0), np.int16)).shape == (0, 7)
    assert relaycore.deinterleave(np.empty((7, 3), np.int16), channels=[]).shape == (0, 7)
    assert relaycore.to_int16(np.empty(0, np.float32)).shape == (0,)


# --- mix -------------------------------------------------------------------------------------


@each_variant
@quick
@given(channels=CHANNELS, samples=SAMPLES, outputs=st.integers(0, 5), seed=SEEDS)
def test_mix_is_the_sum_of_channels_times_gains(
    variant: str, channels: int, samples: int, outputs: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    planes = guarded(0, random.normal(0, 0.4, (channels, samples)).astype(np.float32))
    start, end = (gain_matrix(outputs, channels, random) for _ in range(2))
    end[random.random(end.shape) < 0.5] = 0
    along = np.arange(samples) / max(samples, 1)
    moving = start[:, :, None] + (end - start).astype(np.float64)[:, :, None] * along
    with relaycore.force_simd(variant):
        out = MEMORY[2].array((outputs, samples), np.float32)
        assert relaycore.mix(planes, start, out=out) is out
        np.testing.assert_allclose(out, start.astype(np.float64) @ planes, rtol=0, atol=2e-5)
        out = relaycore.mix(planes, start, to_gains=end, out=MEMORY[3].array(out.shape, out.dtype))
        np.testing.assert_allclose(out, np.einsum("ocn,cn->on", moving, planes), rtol=0, atol=2e-5)


@quick
@given(channels=CHANNELS, samples=SAMPLES, outputs=st.integers(1, 3), seed=SEEDS)
def test_every_instruction_set_mixes_to_the_same_bits(
    channels: int, samples: int, outputs: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    planes = floats(channels, samples, seed)
    start, end = (gain_matrix(outputs, channels, random) for _ in range(2))
    with relaycore.force_simd("scalar"):
        still = relaycore.mix(planes, start)
        moving = relaycore.mix(planes, start, to_gains=end)
    for variant in VARIANTS:
        with relaycore.force_simd(variant):
            assert_same(relaycore.mix(planes, start), still)
            assert_same(relaycore.mix(planes, start, to_gains=end), moving)


@each_variant
def test_what_is_muted_adds_nothing_not_even_its_nans(variant: str) -> None:
    planes = np.full((3, 100), 0.5, np.float32)
    planes[1] = [np.nan, np.inf] * 50
    gains = np.array([[1, 0, 0.5], [0, 0, 1], [0, 1, 0]])
    with relaycore.force_simd(variant):
        for to_gains in (None, gains):
            left, right, heard = relaycore.mix(planes, gains, to_gains=to_gains)
            assert np.all(left == 0.75)
            assert np.all(right == 0.5)
            assert_same(heard, planes[1])
        fading = relaycore.mix(planes, [[1, 0, 0]], to_gains=[[1, 1, 0]])
        assert np.all(np.isnan(fading[0, ::2]))


@each_variant
def test_a_ramp_goes_on_where_the_last_one_ended(variant: str) -> None:
    ones = np.ones((1, 480), np.float32)
    with relaycore.force_simd(variant):
        blocks = [
            relaycore.mix(ones, [[a]], to_gains=[[b]])[0] for a, b in ((0, 1), (1, 1), (1, 0.25))
        ]
    whole = np.concatenate(blocks)
    assert whole[0] == 0
    assert np.all(whole[480:960] == 1)
    assert np.abs(np.diff(whole)).max() < 1.01 / 480
    assert abs(whole[-1] - 0.25) < 1 / 480


def test_gains_may_be_lists_and_a_mix_of_nothing_is_silence() -> None:
    assert_same(relaycore.mix(np.ones((2, 3), np.float32), [[1, 2]]), np.full((1, 3), 3, "f4"))
    silence = relaycore.mix(np.empty((0, 4), np.float32), np.empty((2, 0)))
    assert_same(silence, np.zeros((2, 4), np.float32))
    assert relaycore.mix(np.ones((2, 3), np.float32), np.empty((0, 2))).shape == (0, 3)


# --- meter -----------------------------------------------------------------------------------


@each_variant
@quick
@given(channels=st.integers(0, 5), samples=SAMPLES, offset=st.integers(0, 15), seed=SEEDS)
def test_levels_are_peak_and_root_mean_square(
    variant: str, channels: int, samples: int, offset: int, seed: int
) -> None:
    planes = guarded(0, floats(channels, samples, seed), offset * 4)
    with relaycore.force_simd(variant):
        peak, rms = relaycore.levels(planes)
    counted = np.where(np.isnan(planes), 0, planes).astype(np.float64)
    assert_same(peak, np.abs(counted).max(axis=1, initial=0).astype(np.float32))
    squares = (counted**2).sum(axis=1) / max(samples, 1)
    assert rms.dtype == np.float32
    np.testing.assert_allclose(rms, np.sqrt(squares), rtol=1e-6)


# --- instruction sets ------------------------------------------------------------------------


def test_the_best_instruction_set_runs_unless_another_is_forced() -> None:
    best = VARIANTS[0]
    assert VARIANTS[-1] == "scalar"
    assert relaycore.simd() == best
    for variant in VARIANTS:
        with relaycore.force_simd(variant):
            assert relaycore.simd() == variant
            with relaycore.force_simd(None):
                assert relaycore.simd() == best
            assert relaycore.simd() == variant
        assert relaycore.simd() == best


def test_a_forced_instruction_set_lasts_without_a_context() -> None:
    relaycore.force_simd("scalar")
    try:
        assert relaycore.simd() == "scalar"
    finally:
        relaycore.force_simd(None)
    assert relaycore.simd() == VARIANTS[0]


def test_an_instruction_set_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*scalar, got 'mmx'"):
        relaycore.force_simd("mmx")
    with pytest.raises(ValueError, match="got 3"):
        kernels.force_simd(3)
    assert relaycore.simd() == VARIANTS[0]


# --- threads ---------------------------------------------------------------------------------


def test_threads_work_at_once_while_the_instruction_set_changes() -> None:
    planes = [floats(16, 960, seed) for seed in range(4)]
    gains = gain_matrix(2, 16, np.random.default_rng(0))
    wanted = [(as_int16(block).T, relaycore.mix(block, gains)) for block in planes]
    enough = threading.Event()

    def work(number: int) -> None:
        frames = np.empty((960, 16), np.int16)
        out = np.empty((2, 960), np.float32)
        for _ in range(200):
            relaycore.interleave(planes[number], out=frames)
            relaycore.mix(planes[number], gains, out=out)
            assert_same(frames, wanted[number][0])
            assert_same(out, wanted[number][1])

    def switch() -> None:
        while not enough.is_set():
            for variant in VARIANTS:
                relaycore.force_simd(variant)

    with ThreadPoolExecutor(5) as pool:
        switching = pool.submit(switch)
        try:
            for job in [pool.submit(work, number) for number in range(4)]:
                job.result()
        finally:
            enough.set()
        switching.result()
    relaycore.force_simd(None)


def test_the_gil_is_free_while_a_kernel_runs() -> None:
    # A thousand channels that are all the same memory: half a second's work and no more cache
    # misses than needed. While it runs, this thread must get to read the clock.
    plane = np.ones(60_000, np.float32)
    planes = np.broadcast_to(plane, (1000, plane.size))
    gains = np.ones((4, 1000), np.float32)
    span: list[float] = []

    def work() -> None:
        begin = time.monotonic()
        relaycore.mix(planes, gains)
        span.extend((begin, time.monotonic()))

    with relaycore.force_simd("scalar"):
        worker = threading.Thread(target=work)
        worker.start()
        seen = []
        while worker.is_alive():
            seen.append(time.monotonic())
        worker.join()
    # Not the edges: around the call itself both threads run Python in turns.
    begin, end = span
    margin = (end - begin) / 4
    assert any(begin + margin < moment < end - margin for moment in seen)


# --- misuse ----------------------------------------------------------------------------------

PLANES = np.zeros((3, 8), np.float32)
FRAMES = np.zeros((8, 3), np.float32)
SHORTS = np.zeros((3, 8), np.int16)
TALL = np.zeros((8, 3), np.int16)
READ_ONLY = np.zeros((8, 3), np.float32)
READ_ONLY.flags.writeable = False
UNALIGNED = np.frombuffer(bytearray(8 * 4 + 1), np.float32, offset=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.interleave(3), TypeError, "2-D array or a sequence .* got int"),
        (lambda: kernels.interleave([1, 2]), TypeError, r"planes\[0\]: .* got int"),
        (lambda: kernels.interleave(PLANES.astype(float)), TypeError, "float32 or int16.*'d'"),
        (lambda: kernels.interleave(PLANES.astype(">f4")), TypeError, "'>f'"),
        (lambda: kernels.interleave(b"abcd"), TypeError, "float32 or int16"),
        (lambda: kernels.interleave([PLANES[0], SHORTS[0]]), TypeError, "as in planes"),
        (lambda: kernels.interleave([PLANES[0], PLANES[0, 1:]]), ValueError, "8 samples.*got 7"),
        (lambda: kernels.interleave([PLANES]), ValueError, "contiguous 1-D"),
        (lambda: kernels.interleave([PLANES[0, ::2]]), ValueError, "contiguous 1-D"),
        (lambda: kernels.interleave(PLANES[0]), ValueError, r"\(channels, samples\), got \(8,\)"),
        (lambda: kernels.interleave(PLANES[:, ::2]), ValueError, "got 8 bytes"),
        (lambda: kernels.interleave([UNALIGNED]), ValueError, "aligned to 4 bytes"),
        (lambda: kernels.interleave(np.zeros((1025, 1), "f4")), ValueError, "at most 1024"),
        (lambda: kernels.interleave([PLANES[0]] * 1025), ValueError, "at most 1024"),
        (lambda: kernels.interleave(PLANES, channels=[3]), ValueError, "from 0 to 2, got 3"),
        (lambda: kernels.interleave(PLANES, channels=[-1]), ValueError, "got -1"),
        (lambda: kernels.interleave(PLANES, channels=[0] * 1025), ValueError, "at most 1024"),
        (lambda: kernels.interleave(PLANES, channels=[0.5]), TypeError, r"channels: .*float"),
        (lambda: kernels.interleave(PLANES, channels=3), TypeError, r"channels: .*int"),
        (lambda: kernels.interleave(PLANES, dtype=float), TypeError, "got float64"),
        (lambda: kernels.interleave(PLANES, dtype="i2", out=FRAMES), TypeError, "int16 as dtype"),
        (lambda: kernels.interleave(SHORTS, dtype="f4"), TypeError, "use to_float32"),
        (lambda: kernels.interleave(PLANES, out=PLANES.copy()), ValueError, r"\(8, 3\), got"),
        (lambda: kernels.interleave(PLANES, out=PLANES.T), ValueError, "C-contiguous"),
        (lambda: kernels.interleave(PLANES, out=READ_ONLY), ValueError, "writable"),
        (lambda: kernels.interleave(FRAMES.reshape(3, 8), out=FRAMES), ValueError, "overlaps"),
        (lambda: kernels.deinterleave(FRAMES[0]), ValueError, r"\(samples, channels\), got \(3"),
        (lambda: kernels.deinterleave(FRAMES[::2]), ValueError, "C-contiguous"),
        (lambda: kernels.deinterleave([FRAMES]), TypeError, "got list"),
        (lambda: kernels.deinterleave(FRAMES, channels=[1, 1]), ValueError, "more than once"),
        (lambda: kernels.deinterleave(FRAMES, channels=[3]), ValueError, "from 0 to 2, got 3"),
        (lambda: kernels.deinterleave(FRAMES, dtype="i2"), TypeError, "use to_int16"),
        (lambda: kernels.deinterleave(FRAMES, out=SHORTS), TypeError, "use to_int16"),
        (lambda: kernels.deinterleave(FRAMES, out=PLANES[:2]), ValueError, r"\(3, 8\), got"),
        (lambda: kernels.deinterleave(FRAMES, out=READ_ONLY.T), ValueError, "writable"),
        (
            lambda: kernels.deinterleave(FRAMES, out=FRAMES.reshape(3, 8)),
            ValueError,
            "overlaps",
        ),
        (lambda: kernels.deinterleave(np.zeros((1, 1025), "f4")), ValueError, "at most 1024"),
        (lambda: kernels.mix(SHORTS, [[1, 1, 1]]), TypeError, "use to_float32"),
        (lambda: kernels.mix(PLANES, [1, 1, 1]), ValueError, r"\(outputs, 3\), got \(3,\)"),
        (lambda: kernels.mix(PLANES, [[1, 1]]), ValueError, r"\(outputs, 3\), got \(1, 2\)"),
        (lambda: kernels.mix(PLANES, [["loud"]]), TypeError, "gains: expected numbers"),
        (
            lambda: kernels.mix(PLANES, [[1, 1, 1]], to_gains=[[1, 1, 1]] * 2),
            ValueError,
            "to_gains: expected shape",
        ),
        (lambda: kernels.mix(PLANES, [[1, 1, 1]], out=PLANES[:1]), ValueError, "overlaps"),
        (lambda: kernels.mix(PLANES, [[1, 1, 1]], out=SHORTS[:1]), TypeError, "got int16"),
        (lambda: kernels.mix(PLANES, [[1, 1, 1]], out=FRAMES), ValueError, r"\(1, 8\), got"),
        (lambda: kernels.levels(SHORTS), TypeError, "use to_float32"),
        (lambda: kernels.to_int16(SHORTS), TypeError, "expected float32, got int16"),
        (lambda: kernels.to_float32(PLANES), TypeError, "expected int16, got float32"),
        (lambda: kernels.to_int16(PLANES, out=FRAMES), TypeError, "expected int16"),
        (lambda: kernels.to_int16(PLANES, out=SHORTS.T.copy()), ValueError, r"\(3, 8\), got"),
        (lambda: kernels.to_int16(UNALIGNED), ValueError, "aligned to 4 bytes"),
        (lambda: kernels.to_int16(PLANES[:, ::2]), ValueError, "C-contiguous"),
        (lambda: kernels.to_int16(PLANES, out=TALL.T), ValueError, "C-contiguous"),
    ],
)
def test_misuse_says_what_was_got_and_wanted(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_buffers_are_free_again_after_an_error() -> None:
    memory = bytearray(8 * 4)
    calls: tuple[Callable[[], object], ...] = (
        lambda: kernels.interleave([np.frombuffer(memory, "f4"), PLANES[0, 1:]]),
        lambda: kernels.interleave(np.frombuffer(memory, "f4")),
        lambda: kernels.deinterleave(memoryview(memory).cast("f")),
        lambda: kernels.to_int16(memoryview(memory).cast("f"), out=PLANES),
    )
    for call in calls:
        with pytest.raises((TypeError, ValueError)):
            call()
    memory.extend(b"more")  # BufferError while anyone holds it
