# jitter bindings
