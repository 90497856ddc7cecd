"""relaycore: the native core of a live multichannel audio relay."""

__version__ = "0.1.0"
