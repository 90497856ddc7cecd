# distutils: language = c++
"""Thin typed bindings over the native core, one file per concept."""

cimport cython

include "buffers.pxi"
include "kernels.pxi"
include "ring.pxi"
include "jitter.pxi"
include "relay.pxi"
include "load.pxi"
include "debug.pxi"
