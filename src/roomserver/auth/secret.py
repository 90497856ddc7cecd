"""The key that signs tokens: given, or made once and kept in the data directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from roomserver.config import ConfigError

FILE_NAME = "secret"
KEY_BYTES = 32


def prepare_data_dir(path: Path) -> None:
    """Makes the data directory, for its owner alone. Raises ConfigError when that cannot be."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data directory {path}: {error.strerror}") from None


def load_secret(data_dir: Path, given: str | None) -> bytes:
    """The signing key. Several servers that start at once on one directory agree on one key."""
    if given is not None:
        return given.encode()
    path = data_dir / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"signing key {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"signing key {path} is not text; remove it to have a new one made"
        ) from None
    if len(text.encode()) < KEY_BYTES:
        raise ConfigError(f"signing key {path} is too short; remove it to have a new one made")
    return text.encode()


def _make(path: Path) -> None:
    """Writes the whole file aside and links it into place: nobody ever reads half a key."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return  # another server was first; its key is the one
    finally:
        aside.unlink()
