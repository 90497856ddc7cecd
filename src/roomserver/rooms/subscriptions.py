"""Subscriptions: what a message changes, merged into what is in force."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from roomserver.protocol.client import MixFields, SubscriptionFields
from roomserver.protocol.server import MixState, SubscriptionState

DEFAULT = SubscriptionState()


def merge_mix(mix: MixState, change: MixFields) -> MixState:
    """`mix` with the fields that `change` names; a list replaces the whole list."""
    return msgspec.structs.replace(mix, **_given(change, MixState))


def merge(subscription: SubscriptionState, change: SubscriptionFields) -> SubscriptionState:
    """`subscription` with the fields that `change` names."""
    given = _given(change, SubscriptionState)
    if isinstance(change.mix, MixFields):
        given["mix"] = merge_mix(subscription.mix, change.mix)
    if isinstance(channels := change.channels, tuple):
        given["channels"] = tuple(sorted(set(channels)))
    return msgspec.structs.replace(subscription, **given) if given else subscription


def round_interval(interval_ms: int, frame_ms: int | None, longest_ms: int) -> int:
    """The least distance between sends: a multiple of the frame length, and at most `longest_ms`.

    Rounded up, or down where that would pass `longest_ms`.
    """
    if frame_ms is None:
        return interval_ms
    rounded = -(-interval_ms // frame_ms) * frame_ms
    return rounded if rounded <= longest_ms else longest_ms // frame_ms * frame_ms


def _given(change: msgspec.Struct, target: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        name: value
        for name in target.__struct_fields__
        if (value := getattr(change, name)) is not UNSET
    }
