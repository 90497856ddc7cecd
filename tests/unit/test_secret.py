"""The key that signs tokens: made, kept, replaced."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from roomserver.auth.secret import SigningKeys, prepare_data_dir, rotate
from roomserver.auth.tokens import Keys, OldKey
from roomserver.config import ConfigError


def load(directory: Path, given: str | None = None, *old: str) -> SigningKeys:
    return SigningKeys(directory, given=given, old=old, keep_s=3600)


def test_the_signing_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    prepare_data_dir(directory)
    first, second = load(directory), load(directory)
    assert first.keys == second.keys
    assert (first.made, second.made) == (True, False)
    assert len(first.keys.signing) >= 32
    assert (directory / "secret").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in directory.iterdir()] == ["secret"]


def test_servers_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    keys: list[SigningKeys] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        keys.append(load(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.keys.signing for key in keys}) == 1
    assert sum(key.made for key in keys) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("short", "too short"), ("", "too short"), (f"{'x' * 32}\n{'y' * 32} soon", "replaced")],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "secret").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path)
    assert "yyyy" not in str(caught.value)
    with pytest.raises(ConfigError, match=message):
        rotate(tmp_path, keep_s=3600)


def test_keys_that_are_given_are_used(tmp_path: Path) -> None:
    keys = load(tmp_path, "x" * 32, "y" * 32).keys
    assert keys == Keys(b"x" * 32, (OldKey(b"y" * 32),))
    assert not list(tmp_path.iterdir())


def test_a_key_that_was_replaced_holds_as_long_as_its_tokens(tmp_path: Path) -> None:
    first = load(tmp_path).keys.signing
    begun = time.time()
    rotate(tmp_path, keep_s=3600)
    keys = load(tmp_path).keys
    (old,) = keys.old
    assert keys.signing != first == old.key
    assert old.until is not None
    assert begun + 3599 <= old.until <= time.time() + 3601
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600

    rotate(tmp_path, keep_s=3600)
    assert [old.key for old in load(tmp_path).keys.old] == [keys.signing, first]
    rotate(tmp_path, keep_s=-3600)  # as if a long time had passed
    assert len(load(tmp_path).keys.old) == 1
    rotate(tmp_path, keep_s=3600, revoke=True)
    assert load(tmp_path).keys.old == ()
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_keys_that_are_replaced_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    first = load(tmp_path).keys.signing
    threads = [
        threading.Thread(target=rotate, args=(tmp_path,), kwargs={"keep_s": 60}) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    old = [old.key for old in load(tmp_path).keys.old]
    assert len(set(old)) == 8
    assert first in old


async def test_a_server_takes_up_what_was_replaced_and_keeps_what_it_has_if_it_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roomserver.auth.secret.LOOK_S", 0.01)
    signing = load(tmp_path)
    told: asyncio.Queue[Keys] = asyncio.Queue()
    signing.on_change(told.put_nowait)
    watch = asyncio.create_task(signing.watch())
    rotate(tmp_path, keep_s=3600)
    keys = await asyncio.wait_for(told.get(), 10)
    assert keys == load(tmp_path).keys == signing.keys
    (tmp_path / "secret").write_text("short")
    assert not signing.reload()
    assert signing.keys == keys
    watch.cancel()
