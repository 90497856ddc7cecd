# relay bindings
