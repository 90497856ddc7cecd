"""Room codes: six characters that can be read out over a telephone."""

from __future__ import annotations

import secrets

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without I, O, 0, 1
LENGTH = 6


def new_code() -> str:
    """A random code; whether it is free is the store's to say."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
