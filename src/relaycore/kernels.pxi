# kernels bindings
