"""roomserver: rooms, tokens and pages around the relay of `relaycore`."""
