# The sample kernels for NumPy arrays and other buffers.
#
# A caller's buffers are taken through the buffer protocol into a struct on the stack, checked,
# and given to the kernel with the GIL released. The buffers stay taken meanwhile, so that no other
# thread can resize or free them.

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport sqrt
from libc.stdint cimport int16_t, uintptr_t

from .capi cimport PcmOps, PcmOpsList, force_pcm_ops, pcm_ops, pcm_ops_available

from operator import index as _index

import numpy as np

_FLOAT32 = np.dtype(np.float32)
_INT16 = np.dtype(np.int16)

cdef enum:
    # More than the 64 of a room: the kernels are useful without one. It bounds what stands on
    # the stack.
    MAX_CHANNELS = 1024

cdef struct Planes:
    # Channel after channel, with the buffers that they come from.
    void* at[MAX_CHANNELS]
    unsigned channels
    Py_ssize_t samples
    Py_ssize_t item  # bytes of a sample: 4 for float32, 2 for int16
    Py_buffer whole
    Py_buffer* parts
    Py_ssize_t taken  # how many of `parts`, or 1 for `whole`

cdef struct Frames:
    # Sample after sample with all channels, or any array seen as one run of samples.
    void* at
    Py_ssize_t samples
    Py_ssize_t channels
    Py_ssize_t item
    Py_buffer whole


cdef str type_name(Py_ssize_t item):
    return "float32" if item == 4 else "int16"


cdef str shape_of(Py_buffer* view):
    return str(tuple([view.shape[i] for i in range(view.ndim)]))


cdef Py_ssize_t item_of(Py_buffer* view, str name) except -1:
    """Bytes of a sample, for the two types there are."""
    cdef const char* code = view.format
    if code != NULL:
        if code[0] == b"@" or code[0] == b"=" or code[0] == b"<":
            code += 1
        if code[1] == 0:
            if code[0] == b"f" and view.itemsize == 4:
                return 4
            if code[0] == b"h" and view.itemsize == 2:
                return 2
    got = "bytes" if view.format == NULL else f"buffer format {view.format.decode()!r}"
    raise TypeError(f"{name}: expected float32 or int16 samples, got {got}")


cdef int take(object source, Py_buffer* view, str name, bint writable) except -1:
    """Take the buffer of `source`; the caller gives it back with PyBuffer_Release."""
    if not PyObject_CheckBuffer(source):
        raise TypeError(
            f"{name}: expected an array or another buffer of float32 or int16 samples, "
            f"got {type(source).__name__}"
        )
    try:
        PyObject_GetBuffer(
            source, view, PyBUF_FORMAT | PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0)
        )
    except (BufferError, ValueError) as error:
        wanted = "a writable buffer" if writable else "a buffer with strides"
        raise ValueError(f"{name}: expected {wanted}: {error}") from error
    return 0


cdef int check_aligned(const void* at, Py_ssize_t item, str name) except -1:
    if <uintptr_t>at % <uintptr_t>item:
        raise ValueError(f"{name}: samples of {type_name(item)} must be aligned to {item} bytes")
    return 0


cdef int take_matrix(object source, Planes* planes, str name, bint writable) except -1:
    """Take planes that are the rows of one 2-D buffer."""
    cdef Py_buffer* view = &planes.whole
    cdef Py_ssize_t c
    take(source, view, name, writable)
    planes.taken = 1
    planes.item = item_of(view, name)
    if view.ndim != 2:
        raise ValueError(f"{name}: expected shape (channels, samples), got {shape_of(view)}")
    if view.shape[0] > MAX_CHANNELS:
        raise ValueError(f"{name}: expected at most {MAX_CHANNELS} channels, got {view.shape[0]}")
    planes.channels = <unsigned>view.shape[0]
    planes.samples = view.shape[1]
    if planes.channels == 0 or planes.samples == 0:
        for c in range(<Py_ssize_t>planes.channels):
            planes.at[c] = view.buf
        return 0
    if planes.samples > 1 and view.strides[1] != planes.item:
        raise ValueError(
            f"{name}: the samples of a channel must stand one after another, "
            f"got {view.strides[1]} bytes from one to the next"
        )
    for c in range(<Py_ssize_t>planes.channels):
        planes.at[c] = <char*>view.buf + c * view.strides[0]
        check_aligned(planes.at[c], planes.item, name)
    return 0


cdef int take_each(object source, Planes* planes, str name, bint writable) except -1:
    """Take planes that are a buffer each."""
    cdef Py_buffer* view
    cdef Py_ssize_t c, count, item
    try:
        items = tuple(source)
    except TypeError:
        raise TypeError(
            f"{name}: expected a 2-D array or a sequence of 1-D arrays, "
            f"got {type(source).__name__}"
        ) from None
    count = len(items)
    if count > MAX_CHANNELS:
        raise ValueError(f"{name}: expected at most {MAX_CHANNELS} channels, got {count}")
    planes.parts = <Py_buffer*>PyMem_Malloc(max(count, 1) * sizeof(Py_buffer))
    if planes.parts == NULL:
        raise MemoryError
    planes.item = 4
    for c in range(count):
        view = &planes.parts[c]
        part = f"{name}[{c}]"
        take(items[c], view, part, writable)
        planes.taken = c + 1
        item = item_of(view, part)
        if view.ndim != 1 or not PyBuffer_IsContiguous(view, b"C"):
            raise ValueError(
                f"{part}: expected a contiguous 1-D array of samples, got shape {shape_of(view)}"
            )
        if c == 0:
            planes.item = item
            planes.samples = view.shape[0]
        elif item != planes.item:
            raise TypeError(f"{part}: expected {type_name(planes.item)} as in {name}[0], "
                            f"got {type_name(item)}")
        elif view.shape[0] != planes.samples:
            raise ValueError(f"{part}: expected {planes.samples} samples as in {name}[0], "
                             f"got {view.shape[0]}")
        check_aligned(view.buf, item, part)
        planes.at[c] = view.buf
    planes.channels = <unsigned>count
    return 0


cdef int take_planes(object source, Planes* planes, str name, bint writable=False) except -1:
    """Take planes of either form; the caller calls release_planes, whatever happens."""
    if PyObject_CheckBuffer(source):
        take_matrix(source, planes, name, writable)
    else:
        take_each(source, planes, name, writable)
    return 0


cdef void start_planes(Planes* planes) noexcept:
    planes.taken = 0
    planes.parts = NULL
    planes.channels = 0
    planes.samples = 0


cdef void release_planes(Planes* planes) noexcept:
    cdef Py_ssize_t c
    if planes.parts != NULL:
        for c in range(planes.taken):
            PyBuffer_Release(&planes.parts[c])
        PyMem_Free(planes.parts)
    elif planes.taken:
        PyBuffer_Release(&planes.whole)


cdef int take_run(object source, Frames* frames, str name, bint writable) except -1:
    """Take a C-contiguous buffer of any shape; on success the caller releases `whole`."""
    take(source, &frames.whole, name, writable)
    try:
        frames.item = item_of(&frames.whole, name)
        if not PyBuffer_IsContiguous(&frames.whole, b"C"):
            raise ValueError(f"{name}: expected a C-contiguous array")
    except BaseException:
        PyBuffer_Release(&frames.whole)
        raise
    frames.at = frames.whole.buf
    frames.samples = frames.whole.len // frames.item
    frames.channels = 1
    return 0


cdef int take_frames(object source, Frames* frames, str name, bint writable=False) except -1:
    """Take interleaved samples; on success the caller releases `whole`."""
    take_run(source, frames, name, writable)
    if frames.whole.ndim != 2:
        shape = shape_of(&frames.whole)
        PyBuffer_Release(&frames.whole)
        raise ValueError(f"{name}: expected shape (samples, channels), got {shape}")
    frames.samples = frames.whole.shape[0]
    frames.channels = frames.whole.shape[1]
    return 0


cdef int check_apart(const void* a, Py_ssize_t a_bytes, const void* b, Py_ssize_t b_bytes) except -1:
    """Kernels read while they write, so an output over its input would come out wrong."""
    if <const char*>a < <const char*>b + b_bytes and <const char*>b < <const char*>a + a_bytes:
        if a_bytes and b_bytes:
            raise ValueError("out: overlaps the samples that are read")
    return 0


cdef int check_planes_apart(Planes* a, const void* b, Py_ssize_t b_bytes) except -1:
    cdef Py_ssize_t c
    for c in range(<Py_ssize_t>a.channels):
        check_apart(a.at[c], a.samples * a.item, b, b_bytes)
    return 0


cdef int check_out_shape(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t want_rows, Py_ssize_t want_columns
) except -1:
    if rows != want_rows or columns != want_columns:
        raise ValueError(
            f"out: expected shape ({want_rows}, {want_columns}), got ({rows}, {columns})"
        )
    return 0


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
    start_planes(&source)
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
    start_planes(&target)
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


cdef object gain_matrix(object gains, str name, unsigned channels):
    """`gains` as a contiguous float32 matrix with a column for each channel."""
    try:
        matrix = np.ascontiguousarray(gains, dtype=_FLOAT32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers of shape (outputs, channels): {error}") from None
    if matrix.ndim != 2 or matrix.shape[1] != channels or matrix.shape[0] > MAX_CHANNELS:
        raise ValueError(f"{name}: expected shape (outputs, {channels}), got {matrix.shape}")
    return matrix


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
    cdef Py_buffer first
    cdef Py_buffer last
    cdef Py_ssize_t o
    cdef unsigned outputs
    cdef bint ramp = to_gains is not None
    cdef const PcmOps* ops = &pcm_ops()
    start_planes(&source)
    start_planes(&target)
    try:
        take_planes(planes, &source, "planes")
        if source.item != 4:
            raise TypeError("planes: expected float32 samples, got int16; use to_float32 first")
        matrix = gain_matrix(gains, "gains", source.channels)
        outputs = <unsigned>matrix.shape[0]
        if ramp:
            to_matrix = gain_matrix(to_gains, "to_gains", source.channels)
            if to_matrix.shape != matrix.shape:
                raise ValueError(
                    f"to_gains: expected shape {matrix.shape} as of gains, got {to_matrix.shape}"
                )
        else:
            to_matrix = matrix
        if out is None:
            out = np.empty((outputs, source.samples), _FLOAT32)
        take_planes(out, &target, "out", True)
        if target.item != 4:
            raise TypeError("out: expected float32 samples, got int16")
        check_out_shape(
            target.channels, target.samples if outputs else source.samples, outputs, source.samples
        )
        for o in range(<Py_ssize_t>outputs):
            check_planes_apart(&source, target.at[o], target.samples * 4)
        PyObject_GetBuffer(matrix, &first, PyBUF_STRIDES)
        try:
            PyObject_GetBuffer(to_matrix, &last, PyBUF_STRIDES)
            try:
                with nogil:
                    if ramp:
                        ops.mix_ramp(
                            <const float* const*>source.at, source.channels, source.samples,
                            <const float*>first.buf, <const float*>last.buf, outputs,
                            <float* const*>target.at,
                        )
                    else:
                        ops.mix(
                            <const float* const*>source.at, source.channels, source.samples,
                            <const float*>first.buf, outputs, <float* const*>target.at,
                        )
            finally:
                PyBuffer_Release(&last)
        finally:
            PyBuffer_Release(&first)
    finally:
        release_planes(&target)
        release_planes(&source)
    return out


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
        shape = tuple([source.whole.shape[i] for i in range(source.whole.ndim)])
        if out is None:
            out = np.empty(shape, _FLOAT32 if wanted == 4 else _INT16)
        take_run(out, &target, "out", True)
        try:
            if target.item != wanted:
                raise TypeError(
                    f"out: expected {type_name(wanted)}, got {type_name(target.item)}"
                )
            if shape_of(&target.whole) != str(shape):
                raise ValueError(
                    f"out: expected shape {shape}, got {shape_of(&target.whole)}"
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
    cdef float peaks[MAX_CHANNELS]
    cdef double squares[MAX_CHANNELS]
    cdef unsigned c
    cdef const PcmOps* ops = &pcm_ops()
    start_planes(&source)
    try:
        take_planes(planes, &source, "planes")
        if source.item != 4:
            raise TypeError("planes: expected float32 samples, got int16; use to_float32 first")
        with nogil:
            for c in range(source.channels):
                ops.levels(<const float*>source.at[c], source.samples, &peaks[c], &squares[c])
        count = max(source.samples, 1)
        return (
            np.array([peaks[c] for c in range(source.channels)], _FLOAT32),
            np.array([sqrt(squares[c] / count) for c in range(source.channels)], _FLOAT32),
        )
    finally:
        release_planes(&source)


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
    elif not force_pcm_ops(name.encode()):
        known = ", ".join(simd_available())
        raise ValueError(f"name: expected one of {known}, got {name!r}")
    return guard
