# Callers' samples, taken through the buffer protocol into a struct on the stack and checked, so
# that a kernel can run on them without the GIL. They stay taken meanwhile: no other thread can
# resize or free them.

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
from libc.stdint cimport uintptr_t

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


cdef void no_planes(Planes* planes) noexcept:
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


cdef int check_apart(
    const void* a, Py_ssize_t a_bytes, const void* b, Py_ssize_t b_bytes
) except -1:
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
