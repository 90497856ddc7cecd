"""relaycore: the native core of a live multichannel audio relay."""

from relaycore._core import (
    Durations,
    Frame,
    JitterBuffer,
    LoadClient,
    Relay,
    RingBuffer,
    Subscription,
    deinterleave,
    force_simd,
    interleave,
    levels,
    mix,
    simd,
    simd_available,
    to_float32,
    to_int16,
)
from relaycore.counters import ChannelCounters
from relaycore.errors import RelayClosedError, RelayError, RelayUnavailableError, UpgradeRefused
from relaycore.handshake import Upgrade, accept_key, parse_upgrade, read_upgrade, upgrade_response

__all__ = [
    "ChannelCounters",
    "Durations",
    "Frame",
    "JitterBuffer",
    "LoadClient",
    "Relay",
    "RelayClosedError",
    "RelayError",
    "RelayUnavailableError",
    "RingBuffer",
    "Subscription",
    "Upgrade",
    "UpgradeRefused",
    "accept_key",
    "deinterleave",
    "force_simd",
    "interleave",
    "levels",
    "mix",
    "parse_upgrade",
    "read_upgrade",
    "simd",
    "simd_available",
    "to_float32",
    "to_int16",
    "upgrade_response",
]

__version__ = "0.1.0"
