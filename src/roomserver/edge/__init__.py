"""The edge: HTTP routes, errors, addresses, the socket hand-over and TLS."""
