# Every extern declaration of the native core, in pipeline order. All of it is nogil.
