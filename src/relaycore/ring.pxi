# ring bindings
