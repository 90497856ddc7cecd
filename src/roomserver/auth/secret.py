"""The keys of tokens: given, or made once and kept in the data directory.

The file has the key that signs in its first line. Each further line is one that did, with the Unix
time at which it was replaced: tokens that it signed are good until they expire by themselves.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from roomserver.auth.tokens import Keys, OldKey
from roomserver.config import ConfigError

FILE_NAME = "secret"
KEY_BYTES = 32
LOOK_S = 2.0

log = structlog.stdlib.get_logger("roomserver")


def prepare_data_dir(path: Path) -> None:
    """Makes the data directory, for its owner alone. Raises ConfigError when that cannot be."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data directory {path}: {error.strerror}") from None


class SigningKeys:
    """The keys that settings and data directory say. One event loop.

    Several servers that start at once on one directory agree on one key. Raises ConfigError.

    Args:
        data_dir: Where the key is kept when none is given.
        given: The key that signs, by the settings.
        old: More keys whose tokens are good.
        keep_s: The longest life of a token: for so long a key of the file that was replaced counts.
    """

    def __init__(
        self, data_dir: Path, *, given: str | None, old: Sequence[str], keep_s: float
    ) -> None:
        self._path = data_dir / FILE_NAME
        self._given = given
        self._old = tuple(OldKey(key.encode()) for key in old)
        self._keep_s = keep_s
        self.made = False
        """Whether the key was made now, because there was none."""
        if given is None:
            try:
                self.made = not self._path.exists() and _make(self._path)
            except OSError as error:
                raise ConfigError(f"signing key {self._path}: {error.strerror}") from None
        self._stamp = self._stat()
        self._changed: Callable[[Keys], None] = lambda _: None
        self.keys = self._load()

    def on_change(self, changed: Callable[[Keys], None]) -> None:
        """Tells of other keys."""
        self._changed = changed

    def reload(self) -> bool:
        """Takes the file again; keeps what it has and says so in the log when that can't be."""
        self._stamp = self._stat()
        try:
            keys = self._load()
        except ConfigError as error:
            log.warning("signing_keys_not_reloaded", reason=str(error))
            return False
        if keys.signing != self.keys.signing:
            log.info("signing_key_changed", old_keys=len(keys.old))
        self.keys = keys
        self._changed(keys)
        return True

    async def watch(self) -> None:
        """Takes the file again whenever it is another one, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if await asyncio.to_thread(self._stat) != self._stamp:
                self.reload()

    def _load(self) -> Keys:
        if self._given is not None:
            return Keys(self._given.encode(), self._old)
        (signing, _), *replaced = _read(self._path)
        return Keys(
            signing, (*self._old, *(OldKey(key, at + self._keep_s) for key, at in replaced))
        )

    def _stat(self) -> tuple[int, int] | None:
        with suppress(OSError):
            stat = self._path.stat()
            return stat.st_mtime_ns, stat.st_ino
        return None


def rotate(data_dir: Path, *, keep_s: float, revoke: bool = False) -> None:
    """Puts a new key before those of the file; forgets those that no token needs any more.

    With `revoke` it forgets all of them, so that their tokens are worthless.

    A server that runs on the directory takes it up by itself. Raises ConfigError.
    """
    path = data_dir / FILE_NAME
    now = time.time()
    try:
        with _locked(data_dir):
            (signing, _), *replaced = _read(path)
            old = [(signing, now), *((key, at) for key, at in replaced if at + keep_s > now)]
            lines = [f"{key.decode()} {at:.0f}" for key, at in old if not revoke]
            aside = _write_aside(path, [secrets.token_urlsafe(KEY_BYTES), *lines])
            aside.replace(path)
    except OSError as error:
        raise ConfigError(f"signing key {path}: {error.strerror}") from None


def _read(path: Path) -> list[tuple[bytes, float]]:
    """Every key of the file and when it was replaced, the one that signs first."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"signing key {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"signing key {path} is not text; remove it to have a new one made"
        ) from None
    keys: list[tuple[bytes, float]] = []
    for line in text.splitlines() or [""]:
        key, _, replaced_at = line.strip().partition(" ")
        if len(key.encode()) < KEY_BYTES:
            raise ConfigError(f"signing key {path} is too short; remove it to have a new one made")
        try:
            keys.append((key.encode(), float(replaced_at) if keys else 0.0))
        except ValueError:
            raise ConfigError(
                f"signing key {path}: behind an old key stands when it was replaced"
            ) from None
    return keys


def _make(path: Path) -> bool:
    """Links a new file into place, so that nobody ever reads half a key; whether it is ours."""
    aside = _write_aside(path, [secrets.token_urlsafe(KEY_BYTES)])
    try:
        os.link(aside, path)
    except FileExistsError:
        return False  # another server was first; its key is the one
    finally:
        aside.unlink()
    return True


def _write_aside(path: Path, lines: Sequence[str]) -> Path:
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    return aside


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two who rotate at once would lose one's key; the directory itself is the lock's file."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
