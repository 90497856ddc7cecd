"""relaycore: the native core of a live multichannel audio relay."""

from relaycore.errors import RelayClosedError, RelayError, RelayUnavailableError, UpgradeRefused
from relaycore.handshake import Upgrade, accept_key, parse_upgrade, read_upgrade, upgrade_response

__all__ = [
    "RelayClosedError",
    "RelayError",
    "RelayUnavailableError",
    "Upgrade",
    "UpgradeRefused",
    "accept_key",
    "parse_upgrade",
    "read_upgrade",
    "upgrade_response",
]

__version__ = "0.1.0"
