# For tests of the core itself; not exported by the package.

from libcpp.vector cimport vector

from . cimport capi


def live_objects():
    """Native objects by kind: (made, freed). Empty unless built with RELAYCORE_COUNT_OBJECTS."""
    cdef vector[capi.LiveObjects] all = capi.live_objects()
    return {(<bytes>o.kind).decode(): (o.made, o.freed) for o in all}
