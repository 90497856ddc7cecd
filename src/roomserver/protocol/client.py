"""Messages from clients, with every bound that the wire sets. Unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from roomserver.discreet import Discreet

MAX_CHANNELS = 64
MAX_BURST_MS = 2000
MAX_INTERVAL_MS = 1000  # half of what the relay keeps; max_lag_ms may be stricter
MAX_SAFE_INTEGER = 2**53 - 1  # exact in every JSON implementation

END = r"$(?!\n)"  # of a pattern: by itself Python's `$` stands before a last line break, too
NO_CONTROL = r"^[^\x00-\x1f\x7f]*" + END  # names are shown and logged: one line, no NUL

Encoding = Literal["pcm_s16le", "pcm_f32le"]
Mode = Literal["multichannel", "mix"]
SampleRate = Literal[8000, 16000, 24000, 32000, 44100, 48000, 88200, 96000]
FrameMs = Literal[5, 10, 20, 40, 60]
Name = Annotated[str, Meta(max_length=64, pattern=NO_CONTROL)]
RoomName = Annotated[str, Meta(min_length=1, max_length=64)]
TokenText = Annotated[str, Meta(min_length=1, max_length=4096)]
PresetName = Annotated[str, Meta(min_length=1, max_length=64, pattern=NO_CONTROL)]
Gain = Annotated[float, Meta(ge=0, le=4)]
Pan = Annotated[float, Meta(ge=-1, le=1)]
ChannelIndex = Annotated[int, Meta(ge=0, lt=MAX_CHANNELS)]
Gains = Annotated[tuple[Gain, ...], Meta(max_length=MAX_CHANNELS)]
Pans = Annotated[tuple[Pan, ...], Meta(max_length=MAX_CHANNELS)]
Switches = Annotated[tuple[bool, ...], Meta(max_length=MAX_CHANNELS)]
ChannelList = Annotated[tuple[ChannelIndex, ...], Meta(min_length=1, max_length=MAX_CHANNELS)]
Milliseconds = Annotated[float, Meta(ge=-86_400_000, le=86_400_000)]


class Message(Struct, tag_field="type", rename="camel"):
    """A text message of a client."""


class MixFields(Struct, rename="camel"):
    """What of a mix a message changes; fields left out keep their value.

    A list may be shorter than the room has channels: the rest has fader 1, pan 0, no mute, no
    solo.
    """

    faders: Gains | UnsetType = UNSET  # linear
    pans: Pans | UnsetType = UNSET  # -1 left ... 1 right
    mutes: Switches | UnsetType = UNSET
    solos: Switches | UnsetType = UNSET
    master: Gain | UnsetType = UNSET


class SubscriptionFields(Struct, rename="camel"):
    """What of a subscription a message changes; fields left out keep their value."""

    mode: Mode | UnsetType = UNSET
    channels: ChannelList | UnsetType | None = UNSET  # null: all
    encoding: Encoding | UnsetType = UNSET
    interval_ms: Annotated[int, Meta(ge=0, le=MAX_INTERVAL_MS)] | UnsetType = UNSET
    levels: bool | UnsetType = UNSET
    mix: MixFields | UnsetType = UNSET


class RegisterSource(Discreet, Message, tag="registerSource", kw_only=True):
    """Become the source of a room."""

    room_id: RoomName
    room_token: TokenText
    channels: Annotated[int, Meta(ge=1, le=MAX_CHANNELS)]
    sample_rate: SampleRate
    encoding: Encoding
    channel_names: Annotated[tuple[Name, ...], Meta(max_length=MAX_CHANNELS)] | None = None
    frame_ms: FrameMs = 20
    buffer_ms: Annotated[float, Meta(ge=1, le=1000)] | None = None  # None: adaptive


class UnregisterSource(Message, tag="unregisterSource"):
    """Stop: what is buffered is played out, then the room is suspended."""


class RegisterListener(SubscriptionFields, Discreet, Message, tag="registerListener", kw_only=True):
    """Become a listener of a room."""

    room_id: RoomName
    room_token: TokenText
    nickname: Name | None = None
    from_timestamp: Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)] | None = msgspec.field(
        name="from", default=None
    )
    burst_ms: Annotated[int, Meta(ge=0, le=MAX_BURST_MS)] = 0


class Subscribe(SubscriptionFields, Message, tag="subscribe"):
    """Change the subscription."""


class SetMix(MixFields, Message, tag="setMix"):
    """Change the mix."""


class Stats(Message, tag="stats"):
    """What a player measures."""

    buffer_ms: Milliseconds | None = None
    jitter_ms: Milliseconds | None = None
    latency_ms: Milliseconds | None = None
    lost: Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)] | None = None


class Ping(Message, tag="ping"):
    """Asks for a `pong`."""

    t: int | float


class SavePreset(Message, tag="savePreset"):
    """Keep the mix in force under a name."""

    name: PresetName


class LoadPreset(Message, tag="loadPreset"):
    """Put a kept mix in force."""

    name: PresetName


class DeletePreset(Message, tag="deletePreset"):
    """Forget a kept mix."""

    name: PresetName


class ListPresets(Message, tag="listPresets"):
    """Ask for the names of the kept mixes."""


PresetMessage = SavePreset | LoadPreset | DeletePreset | ListPresets
ClientMessage = (
    RegisterSource
    | UnregisterSource
    | RegisterListener
    | Subscribe
    | SetMix
    | Stats
    | Ping
    | PresetMessage
)
