"""Messages to clients. Times are Unix microseconds of the server's clock."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from roomserver.protocol.client import MAX_CHANNELS, Encoding, Mode
from roomserver.protocol.codes import ErrorCode, RoomCloseReason, RoomState

PROTOCOL_VERSION = 1


class Message(Struct, tag_field="type", rename="camel"):
    """A text message to a client."""


class MixState(Struct, rename="camel", frozen=True, kw_only=True):
    """A mix in force."""

    faders: tuple[float, ...] = ()
    pans: tuple[float, ...] = ()
    mutes: tuple[bool, ...] = ()
    solos: tuple[bool, ...] = ()
    master: float = 1.0


class SubscriptionState(Struct, rename="camel", frozen=True, kw_only=True):
    """A subscription in force."""

    mode: Mode = "multichannel"
    channels: tuple[int, ...] | None = None  # ascending; None: all
    encoding: Encoding = "pcm_s16le"
    interval_ms: int = 0
    levels: bool = False
    mix: MixState = MixState()


class Config(Message, tag="config"):
    """The first message on a connection."""

    client_id: str
    server_time: int
    protocol: int = PROTOCOL_VERSION
    encodings: tuple[Encoding, ...] = ("pcm_s16le", "pcm_f32le")
    max_channels: int = MAX_CHANNELS


class SourceRegistered(Message, tag="sourceRegistered"):
    """Answer to `registerSource`."""

    room_id: str
    stream: int
    channels: int
    sample_rate: int
    frame_ms: int
    buffer_ms: float | None  # None: adaptive
    listener_count: int


class StreamStarted(Message, tag="streamStarted"):
    """The format of a source's session; `timestamp` is where its timeline starts."""

    stream: int
    channel_count: int
    channel_names: tuple[str, ...]
    sample_rate: int
    frame_ms: int
    buffer_ms: float | None
    timestamp: int | UnsetType = UNSET


class ListenerRegistered(Message, tag="listenerRegistered", kw_only=True):
    """Answer to `registerListener`: the room, the format when there is one, the subscription."""

    room_id: str
    room_name: str
    client_id: str
    state: RoomState
    has_broadcaster: bool
    listener_count: int

    stream: int | UnsetType = UNSET
    channel_count: int | UnsetType = UNSET
    channel_names: tuple[str, ...] | UnsetType = UNSET
    sample_rate: int | UnsetType = UNSET
    frame_ms: int | UnsetType = UNSET
    buffer_ms: float | UnsetType | None = UNSET
    timestamp: int | UnsetType = UNSET

    mode: Mode
    channels: tuple[int, ...] | None
    encoding: Encoding
    interval_ms: int
    levels: bool
    mix: MixState


class Subscribed(Message, tag="subscribed"):
    """The subscription in force from the next frame on."""

    mode: Mode
    channels: tuple[int, ...] | None
    encoding: Encoding
    interval_ms: int
    levels: bool
    mix: MixState


class MixChanged(Message, tag="mixChanged"):
    """The mix in force from the next frame on."""

    faders: tuple[float, ...]
    pans: tuple[float, ...]
    mutes: tuple[bool, ...]
    solos: tuple[bool, ...]
    master: float


class RoomStatus(Message, tag="roomStatus"):
    """State of the room, on change."""

    room_id: str
    state: RoomState
    has_broadcaster: bool
    buffering: bool
    listener_count: int


class SourceStatus(Message, tag="sourceStatus"):
    """What the relay sees of a source, once a second; per-channel counters are in samples."""

    fill_ms: float
    target_ms: float
    jitter_ms: float
    drift_ppm: float
    capture_offset_us: int | None
    received: tuple[int, ...]
    late: tuple[int, ...]
    duplicate: tuple[int, ...]
    lost: tuple[int, ...]
    concealed: tuple[int, ...]
    listener_count: int = 0


class RoomToken(Message, tag="roomToken"):
    """A token to use from now on."""

    room_token: str
    expires_at: int


class RoomChanged(Message, tag="roomChanged"):
    """The owner gave the room or its channels other names."""

    room_id: str
    room_name: str
    channel_names: tuple[str, ...]


class RoomSuspended(Message, tag="roomSuspended"):
    """The source is gone and the room waits for it, or its owner suspended it."""

    room_id: str
    suspended_until: int


class RoomResumed(Message, tag="roomResumed"):
    """The source is back."""

    room_id: str


class RoomClosed(Message, tag="roomClosed"):
    """The last message of a room."""

    room_id: str
    reason: RoomCloseReason


class Pong(Message, tag="pong"):
    """Answer to `ping`; `sent` is added by the relay as it writes the message."""

    t: int | float
    received: int


class Presets(Message, tag="presets"):
    """The names of the listener's presets, in order."""

    names: tuple[str, ...]


class Preset(Message, tag="preset", kw_only=True):
    """A preset that is in force from the next frame on."""

    name: str
    mix: MixState


class PresetSaved(Message, tag="presetSaved"):
    """The mix in force is kept under this name."""

    name: str


class PresetDeleted(Message, tag="presetDeleted"):
    """There is no preset of this name any more."""

    name: str


class Error(Message, tag="error"):
    """Something was refused. With `wrong_server` comes the `url` of the right one, if known."""

    code: ErrorCode
    message: str
    url: str | UnsetType = UNSET


ServerMessage = (
    Config
    | SourceRegistered
    | StreamStarted
    | ListenerRegistered
    | Subscribed
    | MixChanged
    | RoomStatus
    | SourceStatus
    | RoomToken
    | RoomChanged
    | RoomSuspended
    | RoomResumed
    | RoomClosed
    | Pong
    | Presets
    | Preset
    | PresetSaved
    | PresetDeleted
    | Error
)
