# The sample kernels for NumPy arrays and other buffers.

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport sqrt
from libc.stdint cimport int16_t

from .capi cimport PcmOps, PcmOpsList, force_pcm_ops, pcm_ops, pcm_ops_available

from operator import index as _index

import numpy as np

_FLOAT32 = np.dtype(np.float32)
_INT16 = np.dtype(np.int16)


cdef object output_type(object dtype, object default):
    """float32 or int16 as a dtype, from whatever names one."""
    if dtype is None:
        return default
    found = np.dtype(dtype)
    if found != _FLOAT32 and found != _INT16:
        raise TypeError(f"dtype: expected float32 or int16, got {found}")
    return found


cdef int check_out_type(object dtype, Py_ssize_t item) except -1:
    if dtype is not None and output_type(dtype, None).itemsize != item:
        raise TypeError(f"out: expected {np.dtype(dtype)} as dtype says, got {type_name(item)}")
    return 0


cdef Py_ssize_t take_selection(object channels, unsigned* chosen, Py_ssize_t count) except -1:
    """Read channel numbers below `count` into `chosen`; how many they are."""
    cdef Py_ssize_t number, filled
    try:
        numbers = [_index(channel) for channel in channels]
    except TypeError as error:
        raise TypeError(f"channels: expected a sequence of numbers: {error}") from None
    if len(numbers) > MAX_CHANNELS:
        raise ValueError(f"channels: expected at most {MAX_CHANNELS}, got {len(numbers)}")
    for filled, number in enumerate(numbers):
        if not 0 <= number < count:
            raise ValueError(f"channels: expected numbers from 0 to {count - 1}, got {number}")
        chosen[filled] = <unsigned>number
    return len(numbers)


def interleave(planes, *, channels=None, dtype=None, out=None):
    """Put channels that stand one after another together sample by sample.

    Parameters
    ----------
    planes
        Samples of each channel: an array of shape ``(channels, samples)`` whose rows are
        contiguous (rows may be any distance apart), or a sequence of 1-D arrays of equal length;
        float32 (full scale ±1) or int16. At most 1024 channels.
    channels
        Which planes to take, in this order; one may come more than once. Default: all.
    dtype
        float32 or int16: what to make. Default: the type of `out`, else of `planes`. float32
        becomes int16 as in `to_int16`; int16 planes can't become float32 here.
    out
        Where to write: C-contiguous, of shape ``(samples, channels)``, at any byte address, not
        overlapping `planes`. Default: a new array.

    Returns
    -------
    `out`, or the new array.

    Raises
    ------
    TypeError
        A buffer is missing or not of float32 or int16, or the types don't go together.
    ValueError
        A shape, a stride or a channel number doesn't fit, or `out` is read-only or overlaps.

    The GIL is released meanwhile. Any thread may call this; it is the caller's business that no
    other thread writes to these arrays at the same time.
    """
    cdef Planes source
    cdef Frames target
    cdef unsigned chosen[MAX_CHANNELS]
    cdef void* picked[MAX_CHANNELS]
    cdef unsigned c, count
    cdef const PcmOps* ops = &pcm_ops()
    no_planes(&source)
    try:
        take_planes(planes, &source, "planes")
        if channels is not None:
            count = <unsigned>take_selection(channels, chosen, source.channels)
            for c in range(count):
                picked[c] = source.at[chosen[c]]
            for c in range(count):
                source.at[c] = picked[c]
            source.channels = count
        if out is None:
            wanted = output_type(dtype, _FLOAT32 if source.item == 4 else _INT16)
            out = np.empty((source.samples, source.channels), wanted)
        take_frames(out, &target, "out", True)
        try:
            check_out_type(dtype, target.item)
            if source.item == 2 and target.item == 4:
                raise TypeError("out: int16 planes interleave to int16; use to_float32 first")
            check_out_shape(target.samples, target.channels, source.samples, source.channels)
            check_planes_apart(&source, target.at, target.whole.len)
            with nogil:
                if source.item == 2:
                    ops.interleave_s16_s16(
                        <const int16_t* const*>source.at, source.channels, source.samples, target.at
                    )
                elif target.item == 2:
                    ops.interleave_s16(
                        <const float* const*>source.at, source.channels, source.samples, target.at
                    )
                else:
                    ops.interleave_f32(
                        <const float* const*>source.at, source.channels, source.samples, target.at
                    )
        finally:
            PyBuffer_Release(&target.whole)
    finally:
        release_planes(&source)
    return out


def deinterleave(frames, *, channels=None, dtype=None, out=None):
    """Take interleaved samples apart into one plane per channel.

    Parameters
    ----------
    frames
        C-contiguous array of shape ``(samples, channels)``, float32 or int16, at any byte address.
        At most 1024 channels.
    channels
        Which channels to take, in this order, each at most once. Default: all.
    dtype
        float32 or int16: what to make. Default: the type of `out`, else of `frames`. int16 becomes
        float32 as in `to_float32`; float32 frames can't become int16 here.
    out
        Where to write: planes as `interleave` takes them, one for each channel taken, not
        overlapping `frames` or one another. Default: a new array of shape ``(channels, samples)``.

    Returns
    -------
    `out`, or the new array.

    Raises
    ------
    TypeError
        A buffer is missing or not of float32 or int16, or the types don't go together.
    ValueError
        A shape, a stride or a channel number doesn't fit, or `out` is read-only or overlaps.

    The GIL is released meanwhile. Any thread may call this; it is the caller's business that no
    other thread writes to these arrays at the same time.
    """
    cdef Frames source
    cdef Planes target
    cdef unsigned chosen[MAX_CHANNELS]
    cdef void* planes[MAX_CHANNELS]
    cdef unsigned c, count, total
    cdef const PcmOps* ops = &pcm_ops()
    take_frames(frames, &source, "frames")
    no_planes(&target)
    try:
        if source.channels > MAX_CHANNELS:
            raise ValueError(
                f"frames: expected at most {MAX_CHANNELS} channels, got {source.channels}"
            )
        total = <unsigned>source.channels
        if channels is None:
            count = total
            for c in range(count):
                chosen[c] = c
        else:
            count = <unsigned>take_selection(channels, chosen, total)
        if out is None:
            wanted = output_type(dtype, _FLOAT32 if source.item == 4 else _INT16)
            out = np.empty((count, source.samples), wanted)
        take_planes(out, &target, "out", True)
        check_out_type(dtype, target.item)
        if source.item == 4 and target.item == 2:
            raise TypeError("out: float32 frames deinterleave to float32; use to_int16 first")
        # A sequence of no planes says nothing of how long they are.
        check_out_shape(
            target.channels, target.samples if count else source.samples, count, source.samples
        )
        check_planes_apart(&target, source.at, source.whole.len)
        for c in range(total):
            planes[c] = NULL
        for c in range(count):
            if planes[chosen[c]] != NULL:
                raise ValueError(f"channels: {chosen[c]} comes more than once")
            planes[chosen[c]] = target.at[c]
        with nogil:
            if target.item == 2:
                ops.deinterleave_s16_s16(source.at, total, source.samples, <int16_t* const*>planes)
            elif source.item == 2:
                ops.deinterleave_s16(source.at, total, source.samples, <float* const*>planes)
            else:
                ops.deinterleave_f32(source.at, total, source.samples, <float* const*>planes)
    finally:
        release_planes(&target)
        PyBuffer_Release(&source.whole)
    return out


cdef int take_gains(object gains, Py_buffer* view, str name, unsigned channels) except -1:
    """Take `gains` as a float32 matrix with a column for each channel; the caller gives it back."""
    try:
        matrix = np.ascontiguousarray(gains, _FLOAT32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers of shape (outputs, channels): {error}") from None
    PyObject_GetBuffer(matrix, view, PyBUF_STRIDES)
    if view.ndim != 2 or view.shape[1] != <Py_ssize_t>channels or view.shape[0] > MAX_CHANNELS:
        PyBuffer_Release(view)
        raise ValueError(f"{name}: expected shape (outputs, {channels}), got {matrix.shape}")
    return 0


def mix(planes, gains, *, to_gains=None, out=None):
    """Mix channels to outputs: each output is the sum of the channels, each times its gain.

    Parameters
    ----------
    planes
        float32 samples of each channel: an array of shape ``(channels, samples)`` whose rows are
        contiguous, or a sequence of 1-D arrays of equal length. At most 1024 channels.
    gains
        Linear gains of shape ``(outputs, channels)``, anything that NumPy makes float32 of. A
        gain of 0 leaves the channel out altogether, so a muted channel adds nothing even if it
        holds NaNs.
    to_gains
        When given, gains move in a straight line: sample ``i`` of ``n`` has
        ``gains + (to_gains - gains) * i / n``. The next block goes on from `to_gains` with no step.
    out
        Where to write: float32 planes, one for each output, not overlapping `planes` or one
        another. Default: a new array of shape ``(outputs, samples)``.

    Returns
    -------
    `out`, or the new array. Sums are not limited; the same bits come out on every machine.

    Raises
    ------
    TypeError
        A buffer is missing or not of float32.
    ValueError
        A shape or a stride doesn't fit, or `out` is read-only or overlaps.

    The GIL is released meanwhile. Any thread may call this; it is the caller's business that no
    other thread writes to these arrays at the same time.
    """
    cdef Planes source
    cdef Planes target
    cdef Py_buffer start
    cdef Py_buffer end
    cdef const float* start_at
    cdef const float* end_at
    cdef Py_ssize_t outputs, o
    cdef int gains_taken = 0
    cdef bint ramp = to_gains is not None
    cdef const PcmOps* ops = &pcm_ops()
    no_planes(&source)
    no_planes(&target)
    try:
        take_planes(planes, &source, "planes")
        if source.item != 4:
            raise TypeError("planes: expected float32 samples, got int16; use to_float32 first")
        take_gains(gains, &start, "gains", source.channels)
        gains_taken = 1
        outputs = start.shape[0]
        start_at = <const float*>start.buf
        end_at = start_at
        if ramp:
            take_gains(to_gains, &end, "to_gains", source.channels)
            gains_taken = 2
            end_at = <const float*>end.buf
            if end.shape[0] != outputs:
                raise ValueError(
                    f"to_gains: expected shape {shape_of(&start)} as of gains, "
                    f"got {shape_of(&end)}"
                )
        if out is None:
            out = np.empty((outputs, source.samples), _FLOAT32)
        take_planes(out, &target, "out", True)
        if target.item != 4:
            raise TypeError("out: expected float32 samples, got int16")
        check_out_shape(
            target.channels, target.samples if outputs else source.samples, outputs, source.samples
        )
        for o in range(outputs):
            check_planes_apart(&source, target.at[o], target.samples * 4)
        with nogil:
            if ramp:
                ops.mix_ramp(
                    <const float* const*>source.at, source.channels, source.samples,
                    start_at, end_at, <unsigned>outputs, <float* const*>target.at,
                )
            else:
                ops.mix(
                    <const float* const*>source.at, source.channels, source.samples,
                    start_at, <unsigned>outputs, <float* const*>target.at,
                )
    finally:
        if gains_taken == 2:
            PyBuffer_Release(&end)
        if gains_taken:
            PyBuffer_Release(&start)
        release_planes(&target)
        release_planes(&source)
    return out


cdef bint same_shape(Py_buffer* a, Py_buffer* b) noexcept:
    cdef int i
    if a.ndim != b.ndim:
        return False
    for i in range(a.ndim):
        if a.shape[i] != b.shape[i]:
            return False
    return True


cdef object convert(object samples, object out, Py_ssize_t wanted):
    """Both conversions: samples of the other type to those of `wanted` bytes."""
    cdef Frames source
    cdef Frames target
    cdef const PcmOps* ops = &pcm_ops()
    take_run(samples, &source, "samples", False)
    try:
        if source.item == wanted:
            raise TypeError(
                f"samples: expected {type_name(6 - wanted)}, got {type_name(source.item)}"
            )
        if out is None:
            out = np.empty(
                tuple([source.whole.shape[i] for i in range(source.whole.ndim)]),
                _FLOAT32 if wanted == 4 else _INT16,
            )
        take_run(out, &target, "out", True)
        try:
            if target.item != wanted:
                raise TypeError(
                    f"out: expected {type_name(wanted)}, got {type_name(target.item)}"
                )
            if not same_shape(&source.whole, &target.whole):
                raise ValueError(
                    f"out: expected shape {shape_of(&source.whole)}, "
                    f"got {shape_of(&target.whole)}"
                )
            check_aligned(source.at if wanted == 2 else target.at, 4,
                          "samples" if wanted == 2 else "out")
            check_apart(source.at, source.whole.len, target.at, target.whole.len)
            with nogil:
                if wanted == 2:
                    ops.f32_to_s16(<const float*>source.at, source.samples, target.at)
                else:
                    ops.s16_to_f32(source.at, source.samples, <float*>target.at)
        finally:
            PyBuffer_Release(&target.whole)
    finally:
        PyBuffer_Release(&source.whole)
    return out


def to_int16(samples, *, out=None):
    """Convert float32 samples to 16 bits.

    Full scale ±1 becomes ±32768: times 32768, rounded half to even, saturated, without dither;
    NaN becomes 0.

    Parameters
    ----------
    samples
        C-contiguous float32 array of any shape.
    out
        Where to write: C-contiguous int16 of the same shape, at any byte address, not overlapping
        `samples`. Default: a new array.

    Returns
    -------
    `out`, or the new array.

    Raises
    ------
    TypeError
        A buffer is missing or not of the type said above.
    ValueError
        A shape doesn't fit, or `out` is read-only or overlaps.

    The GIL is released meanwhile. Any thread may call this; it is the caller's business that no
    other thread writes to these arrays at the same time.
    """
    return convert(samples, out, 2)


def to_float32(samples, *, out=None):
    """Convert samples of 16 bits to float32: divided by 32768, which is exact.

    `to_int16` gives back the same 16 bits.

    Parameters
    ----------
    samples
        C-contiguous int16 array of any shape, at any byte address.
    out
        Where to write: C-contiguous float32 of the same shape, not overlapping `samples`.
        Default: a new array.

    Returns
    -------
    `out`, or the new array: values from −1 up to 1 − 1/32768.

    Raises
    ------
    TypeError
        A buffer is missing or not of the type said above.
    ValueError
        A shape doesn't fit, or `out` is read-only or overlaps.

    The GIL is released meanwhile. Any thread may call this; it is the caller's business that no
    other thread writes to these arrays at the same time.
    """
    return convert(samples, out, 4)


def levels(planes):
    """Measure the peak and the root mean square of each channel.

    Parameters
    ----------
    planes
        float32 samples of each channel: an array of shape ``(channels, samples)`` whose rows are
        contiguous, or a sequence of 1-D arrays of equal length. At most 1024 channels.

    Returns
    -------
    peak, rms
        Two float32 arrays with a linear value per channel (full scale is 1): the largest
        magnitude, and the square root of the mean of squares. NaN counts as 0; of no samples
        both are 0.

    Raises
    ------
    TypeError
        A buffer is missing or not of float32.
    ValueError
        A shape or a stride doesn't fit.

    The GIL is released meanwhile. Any thread may call this; it is the caller's business that no
    other thread writes to these arrays at the same time.
    """
    cdef Planes source
    cdef Planes target
    cdef double squares
    cdef unsigned c
    cdef const PcmOps* ops = &pcm_ops()
    no_planes(&source)
    no_planes(&target)
    try:
        take_planes(planes, &source, "planes")
        if source.item != 4:
            raise TypeError("planes: expected float32 samples, got int16; use to_float32 first")
        peak = np.empty(source.channels, _FLOAT32)
        rms = np.empty(source.channels, _FLOAT32)
        take_each((peak, rms), &target, "out", True)
        with nogil:
            for c in range(source.channels):
                ops.levels(
                    <const float*>source.at[c], source.samples, <float*>target.at[0] + c, &squares
                )
                (<float*>target.at[1])[c] = <float>sqrt(squares / max(source.samples, 1))
    finally:
        release_planes(&target)
        release_planes(&source)
    return peak, rms


def simd():
    """Name the instruction set that the kernels use now.

    ``"avx512"``, ``"avx2"`` or ``"sse2"`` on x86-64, ``"neon"`` on 64-bit ARM, ``"scalar"`` where
    there is none of these. Any thread may call this.
    """
    return pcm_ops().name.decode()


def simd_available():
    """Name the instruction sets that this CPU runs, best first; the last is ``"scalar"``.

    Any thread may call this.
    """
    cdef PcmOpsList found = pcm_ops_available()
    cdef size_t i
    return tuple([found[i].name.decode() for i in range(found.size())])


cdef class _ForcedSimd:
    cdef str _before

    def __enter__(self):
        return None

    def __exit__(self, *_):
        force_pcm_ops(self._before.encode())


def force_simd(name, /):
    """Make all kernels of this process use one instruction set; for tests and measurements.

    Parameters
    ----------
    name
        One of `simd_available`, or None for the best.

    Returns
    -------
    A context manager that goes back to the instruction set used before. It need not be entered:
    the change takes effect at once and lasts.

    Raises
    ------
    ValueError
        This CPU, or this build, doesn't have it; nothing changes.

    Any thread may call this. Kernels that run meanwhile in other threads finish as they began.
    """
    cdef _ForcedSimd guard = _ForcedSimd()
    guard._before = simd()
    if name is None:
        force_pcm_ops(NULL)
    elif name in simd_available():
        force_pcm_ops(name.encode())
    else:
        known = ", ".join(simd_available())
        raise ValueError(f"name: expected one of {known}, got {name!r}")
    return guard
