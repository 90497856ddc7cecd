"""Rates, frame lengths and channels stand in three places, for want of a common one: they agree."""

from __future__ import annotations

from typing import Any, get_args

from relaycore import Relay
from roomserver.clients import wire
from roomserver.protocol import client

RATES = (*range(1000, 200_001, 1000), 11_025, 22_050, 44_100, 88_200, 176_400)


def taken(relay: Relay, **changed: Any) -> bool:
    """Whether the relay takes a source of that format (its connection need not be there)."""
    source: dict[str, Any] = {"channels": 1, "sample_rate": 48_000, "frame_ms": 20} | changed
    try:
        relay.bind_source(1, 1, stream=1, encoding="pcm_s16le", announce="", **source)
    except ValueError:
        return False
    return True


def test_server_clients_and_relay_agree_on_rates_frames_and_channels(relay: Relay) -> None:
    rates = set(get_args(client.SampleRate))
    assert rates == set(wire.SAMPLE_RATES) == {r for r in RATES if taken(relay, sample_rate=r)}
    lengths = set(get_args(client.FrameMs))
    assert lengths == set(wire.FRAME_LENGTHS_MS)
    assert lengths == {ms for ms in range(101) if taken(relay, frame_ms=ms)}
    most = max(count for count in range(257) if taken(relay, channels=count))
    assert client.MAX_CHANNELS == wire.MAX_CHANNELS == most
