"""What a caller may hand to `Subscription` that changes while it is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from relaycore import Subscription


class Beyond:
    """What stands behind the last channel, where nobody may look."""

    def __float__(self) -> float:
        raise AssertionError("it was taken for a gain")

    def __bool__(self) -> bool:
        raise AssertionError("it was taken for a truth value")


class Growing(list[Any]):
    """Has one entry more each time that somebody has asked how many there are."""

    def __len__(self) -> int:
        count = super().__len__()
        self.append(Beyond())
        return count


class Extending:
    """A number that makes a list longer when it is looked at."""

    def __init__(self, extended: list[Any]) -> None:
        self.extended = extended

    def __float__(self) -> float:
        self.extended.append(Beyond())
        return 1.0


@pytest.mark.parametrize("name", ["faders", "pans", "mutes", "solos"])
def test_of_a_list_that_grows_no_more_is_taken_than_there_are_channels(name: str) -> None:
    values: Any = Growing([1.0] * 64)
    Subscription(**{name: values})
    assert list.__len__(values) > 64, "it has grown"


@pytest.mark.parametrize("name", ["pans", "mutes", "solos"])
def test_a_fader_may_make_another_list_longer(name: str) -> None:
    values: Any = [1.0] * 64
    faders: list[Any] = [Extending(values)]
    Subscription(faders=faders, **{name: values})
    assert len(values) == 65
