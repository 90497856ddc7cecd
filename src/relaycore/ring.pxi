# RingBuffer: the lock-free ring of float32 samples for two Python threads.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from .capi cimport Role, SpscRing, SpscSpan

cdef enum:
    # Copies of at least this many samples release the GIL; for fewer it costs more than it gives.
    WORTH_RELEASING = 8192


cdef class _Borrowed:
    # One piece of a ring's memory as a buffer. It keeps the ring alive, nothing else.
    cdef RingBuffer ring
    cdef float* at
    cdef Py_ssize_t shape
    cdef Py_ssize_t stride
    cdef bint read_only

    def __getbuffer__(self, Py_buffer* view, int flags):
        if self.read_only and flags & PyBUF_WRITABLE:
            raise BufferError("what peek() gives is read-only")
        view.buf = self.at
        view.obj = self
        view.len = self.shape * sizeof(float)
        view.readonly = self.read_only
        view.itemsize = sizeof(float)
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = b"f"
        view.ndim = 1
        view.shape = &self.shape
        view.strides = NULL
        if (flags & PyBUF_STRIDES) == PyBUF_STRIDES:
            view.strides = &self.stride
        view.suboffsets = NULL
        view.internal = NULL

    def __releasebuffer__(self, Py_buffer* view):
        pass


cdef object borrow(RingBuffer ring, float* at, size_t n, bint read_only):
    cdef _Borrowed piece = _Borrowed.__new__(_Borrowed)
    piece.ring = ring
    piece.at = at
    piece.shape = <Py_ssize_t>n
    piece.stride = sizeof(float)
    piece.read_only = read_only
    return memoryview(piece)


cdef int give_back(tuple views) except -1:
    """Make borrowed views unusable, except those that an array still looks through."""
    for view in views:
        try:
            view.release()
        except BufferError:
            pass
    return 0


@cython.final
cdef class RingBuffer:
    """A lock-free ring of float32 samples between one writing and one reading thread.

    One thread calls the writer's methods (`write`, `reserve`, `commit`, `writable`), one the
    reader's (`read`, `peek`, `release`, `readable`); neither ever waits for the other. Two calls
    of the same side that overlap raise RuntimeError. A side may pass to another thread when the
    first thread is done with it.

    Parameters
    ----------
    capacity
        Samples it holds, 1 to 2**30; rounded up to a power of two.
    first_index
        Where the free-running 64-bit indices begin. It changes nothing; tests begin near a wrap.

    Raises
    ------
    ValueError
        `capacity` is out of its range.
    MemoryError
        There is no memory for it.
    """

    # By itself, since Python's objects are not aligned to the cache lines that a ring stands on.
    cdef SpscRing* ring
    cdef Role writer
    cdef Role reader
    cdef size_t reserved
    cdef size_t peeked
    cdef tuple reserved_views
    cdef tuple peeked_views

    def __cinit__(self, Py_ssize_t capacity, *, uint64_t first_index=0):
        self.reserved_views = ()
        self.peeked_views = ()
        if not 1 <= capacity <= 1 << 30:
            raise ValueError(f"capacity: expected 1 to {1 << 30} samples, got {capacity}")
        self.ring = new SpscRing()
        if not self.ring.init(<size_t>capacity, first_index):
            raise MemoryError(f"no memory for a ring of {capacity} samples")

    def __dealloc__(self):
        del self.ring

    def __repr__(self):
        return f"<RingBuffer of {self.ring.capacity()} samples>"

    @property
    def capacity(self):
        """Samples it holds when it is full, a power of two. Any thread."""
        return self.ring.capacity()

    cdef int enter_writer(self, str method) except -1:
        if not self.writer.enter():
            raise RuntimeError(f"{method}() while another thread writes: one thread at a time")
        return 0

    cdef int enter_reader(self, str method) except -1:
        if not self.reader.enter():
            raise RuntimeError(f"{method}() while another thread reads: one thread at a time")
        return 0

    @property
    def writable(self):
        """Samples that may be written now; it may only grow meanwhile. Writing thread."""
        self.enter_writer("writable")
        cdef size_t n = self.ring.writable()
        self.writer.leave()
        return n

    @property
    def readable(self):
        """Samples that may be read now; it may only grow meanwhile. Reading thread."""
        self.enter_reader("readable")
        cdef size_t n = self.ring.readable()
        self.reader.leave()
        return n

    def write(self, samples):
        """Copy in as many samples as there is room for. Writing thread.

        Parameters
        ----------
        samples
            C-contiguous float32 array or buffer; of any shape, taken as one run.

        Returns
        -------
        How many were taken: the first so many of `samples`. The GIL is released for long copies.

        Raises
        ------
        TypeError
            `samples` is no buffer of float32.
        ValueError
            `samples` is not contiguous.
        RuntimeError
            Another thread writes, or a `reserve` has not been committed.
        """
        cdef Frames source
        cdef size_t n
        take_run(samples, &source, "samples", False)
        try:
            if source.item != sizeof(float):
                raise TypeError("samples: expected float32 samples, got int16; use to_float32")
            self.enter_writer("write")
            try:
                if self.reserved:
                    raise RuntimeError("write() before what reserve() gave was committed")
                n = <size_t>source.samples
                if n >= WORTH_RELEASING:
                    with nogil:
                        n = self.copy_in(<const char*>source.at, n)
                else:
                    n = self.copy_in(<const char*>source.at, n)
            finally:
                self.writer.leave()
        finally:
            PyBuffer_Release(&source.whole)
        return n

    cdef size_t copy_in(self, const char* samples, size_t n) noexcept nogil:
        n = min(n, self.ring.writable(n))
        cdef SpscSpan span = self.ring.reserve(n)
        if span.first_n:
            memcpy(span.first, samples, span.first_n * sizeof(float))
        if span.second_n:
            memcpy(span.second, samples + span.first_n * sizeof(float),
                   span.second_n * sizeof(float))
        self.ring.commit(n)
        return n

    def read(self, into, /):
        """Take the oldest samples out. Reading thread.

        Parameters
        ----------
        into
            How many samples at most, or a writable C-contiguous float32 array to fill from its
            beginning.

        Returns
        -------
        A new float32 array of the samples there were, shape ``(n,)``; or, when an array was
        given, how many samples were written to it. The GIL is released for long copies.

        Raises
        ------
        TypeError
            `into` is neither a number nor a buffer of float32.
        ValueError
            The number is negative, or the array not contiguous or not writable.
        RuntimeError
            Another thread reads, or a `peek` has not been released.
        """
        cdef Frames target
        cdef size_t n
        cdef Py_ssize_t wanted
        if isinstance(into, (int, np.integer)):
            wanted = into
            if wanted < 0:
                raise ValueError(f"read(): expected a number from 0 on, got {wanted}")
            found = np.empty(min(wanted, <Py_ssize_t>self.readable), _FLOAT32)
            return found[: self.read(found)]
        take_run(into, &target, "read()", True)
        try:
            if target.item != sizeof(float):
                raise TypeError("read(): expected a float32 array, got int16")
            self.enter_reader("read")
            try:
                if self.peeked:
                    raise RuntimeError("read() before what peek() gave was released")
                n = <size_t>target.samples
                if n >= WORTH_RELEASING:
                    with nogil:
                        n = self.copy_out(<char*>target.at, n)
                else:
                    n = self.copy_out(<char*>target.at, n)
            finally:
                self.reader.leave()
        finally:
            PyBuffer_Release(&target.whole)
        return n

    cdef size_t copy_out(self, char* samples, size_t n) noexcept nogil:
        n = min(n, self.ring.readable(n))
        cdef SpscSpan span = self.ring.peek(n)
        if span.first_n:
            memcpy(samples, span.first, span.first_n * sizeof(float))
        if span.second_n:
            memcpy(samples + span.first_n * sizeof(float), span.second,
                   span.second_n * sizeof(float))
        self.ring.release(n)
        return n

    def reserve(self, Py_ssize_t n):
        """Borrow the next free places, to be filled and then committed. Writing thread.

        .. warning:: The memory belongs to the ring. The views are good until `commit` or the next
           `reserve`, which release them; an array made over one must not be used after that.

        Parameters
        ----------
        n
            How many samples at most; there may be room for fewer.

        Returns
        -------
        Two writable float32 memoryviews, the second going on where the first ends; it is empty
        unless the places go over the end of the memory. Nothing is readable before `commit`.
        """
        if n < 0:
            raise ValueError(f"reserve(): expected a number from 0 on, got {n}")
        self.enter_writer("reserve")
        try:
            give_back(self.reserved_views)
            self.reserved = min(<size_t>n, self.ring.writable(<size_t>n))
            span = self.ring.reserve(self.reserved)
            self.reserved_views = (
                borrow(self, span.first, span.first_n, False),
                borrow(self, span.second, span.second_n, False),
            )
            return self.reserved_views
        finally:
            self.writer.leave()

    def commit(self, Py_ssize_t n):
        """Publish the first `n` of the reserved places; the rest is given up. Writing thread.

        Raises
        ------
        ValueError
            `n` is negative or more than was reserved. Nothing is published then.
        RuntimeError
            Another thread writes.
        """
        self.enter_writer("commit")
        try:
            if n < 0 or <size_t>n > self.reserved:
                raise ValueError(f"commit({n}): {self.reserved} samples are reserved")
            give_back(self.reserved_views)
            self.reserved_views = ()
            self.reserved = 0
            self.ring.commit(<size_t>n)
        finally:
            self.writer.leave()

    def peek(self, Py_ssize_t n):
        """Borrow the oldest samples without taking them out. Reading thread.

        .. warning:: The memory belongs to the ring. The views are good until `release` or the next
           `peek`, which release them; an array made over one must not be used after that.

        Parameters
        ----------
        n
            How many samples at most; there may be fewer.

        Returns
        -------
        Two read-only float32 memoryviews, the second going on where the first ends.
        """
        if n < 0:
            raise ValueError(f"peek(): expected a number from 0 on, got {n}")
        self.enter_reader("peek")
        try:
            give_back(self.peeked_views)
            self.peeked = min(<size_t>n, self.ring.readable(<size_t>n))
            span = self.ring.peek(self.peeked)
            self.peeked_views = (
                borrow(self, span.first, span.first_n, True),
                borrow(self, span.second, span.second_n, True),
            )
            return self.peeked_views
        finally:
            self.reader.leave()

    def release(self, Py_ssize_t n):
        """Free the oldest `n` of the samples peeked at; the rest stays. Reading thread.

        Raises
        ------
        ValueError
            `n` is negative or more than was peeked at. Nothing is freed then.
        RuntimeError
            Another thread reads.
        """
        self.enter_reader("release")
        try:
            if n < 0 or <size_t>n > self.peeked:
                raise ValueError(f"release({n}): {self.peeked} samples were peeked at")
            give_back(self.peeked_views)
            self.peeked_views = ()
            self.peeked = 0
            self.ring.release(<size_t>n)
        finally:
            self.reader.leave()
