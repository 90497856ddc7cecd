"""What an owner changes about a room that is open, and sees of its channels."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from roomserver.discreet import Discreet
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import Password, read_password
from roomserver.edge.rooms import (
    OWN_ROOM,
    ChannelNames,
    Grace,
    Label,
    ListenerLimit,
    RoomAnswer,
    own_room,
    read_listener_limit,
    read_metadata,
    read_name,
)
from roomserver.protocol.client import Encoding
from roomserver.rooms.control import NothingToSuspendError
from roomserver.rooms.room import Room
from roomserver.store.records import Account, AuditEvent

CHANGE = (*OWN_ROOM, ProblemCode.NOT_KEPT)


class RoomChanges(Struct, rename="camel"):
    """Body of `PATCH`: what is absent stays, what is null goes back to what it is by itself."""

    name: Label | UnsetType | None = UNSET
    public: bool | UnsetType | None = UNSET
    permanent: bool | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    max_listeners: ListenerLimit | UnsetType | None = UNSET
    channel_names: ChannelNames | UnsetType | None = UNSET
    grace_s: Grace | UnsetType | None = UNSET


class Suspension(Struct, rename="camel"):
    """Body of `POST …/suspend`: for how many seconds at most; the grace period unless told."""

    for_s: Annotated[float, Meta(ge=1, le=604_800)] | None = None


class PasswordChange(Discreet, rename="camel"):
    """Body of `POST …/password`: another password, or null for a room open to everyone."""

    password: Password | None
    drop_listeners: bool = False


class PasswordChanged(Struct, rename="camel"):
    """Its answer."""

    room_id: str
    open: bool
    dropped_listeners: int


class Channel(Struct, rename="camel"):
    """A channel of the source; counters in samples, of this stream, as in `sourceStatus`."""

    index: int
    name: str | None
    received: int
    late: int
    duplicate: int
    lost: int
    concealed: int


class Channels(Struct, rename="camel", kw_only=True):
    """Answer of `GET …/channels`; without a source it has no format and no channels."""

    room_id: str
    live: bool
    stream: int | None = None
    sample_rate: int | None = None
    encoding: Encoding | None = None
    frame_ms: int | None = None
    buffer_ms: float | None = None  # None: adaptive
    channels: list[Channel] = []


api = Api()


@api.patch("/api/broadcaster/rooms/{room}", problems=CHANGE)
async def update_room(call: Call, account: Account, body: RoomChanges) -> RoomAnswer:
    """Changes what is known of a room."""
    room = own_room(call, account)
    fields: dict[str, Any] = {}
    if body.name is not UNSET:
        fields["name"] = read_name(body.name, room.record.code)
    if body.public is not UNSET:
        fields["public"] = bool(body.public)
    if body.permanent is not UNSET:
        fields["permanent"] = bool(body.permanent)
    if body.metadata is not UNSET:
        fields["metadata"] = read_metadata(body.metadata)
    if body.max_listeners is not UNSET:
        fields["max_listeners"] = read_listener_limit(call, body.max_listeners)
    if body.channel_names is not UNSET:
        fields["channel_names"] = body.channel_names or None
    if body.grace_s is not UNSET:
        fields["grace_s"] = body.grace_s
    if changed := await call.services.room_control.update(room, fields):
        call.audit(AuditEvent.ROOM_UPDATED, room=room.id, changed=changed)
    return RoomAnswer.of(room.record, room)


@api.post("/api/broadcaster/rooms/{room}/suspend", problems=[*CHANGE, ProblemCode.WRONG_STATE])
async def suspend_room(call: Call, account: Account, body: Suspension) -> RoomAnswer:
    """Interrupts a room: listeners stay, its source is closed until the room is resumed."""
    room = own_room(call, account)
    try:
        await call.services.room_control.suspend(room, body.for_s)
    except NothingToSuspendError:
        raise Problem(ProblemCode.WRONG_STATE, "the room is waiting for its first source") from None
    until = room.record.suspended_until
    call.audit(AuditEvent.ROOM_SUSPENDED, room=room.id, until=until)
    return RoomAnswer.of(room.record, room)


@api.post("/api/broadcaster/rooms/{room}/resume", problems=CHANGE)
async def resume_room(call: Call, account: Account) -> RoomAnswer:
    """Lets a source into a room again that its owner had suspended."""
    room = own_room(call, account)
    if await call.services.room_control.resume(room):
        call.audit(AuditEvent.ROOM_RESUMED, room=room.id)
    return RoomAnswer.of(room.record, room)


@api.post("/api/broadcaster/rooms/{room}/password", problems=[*CHANGE, ProblemCode.BUSY])
async def change_password(call: Call, account: Account, body: PasswordChange) -> PasswordChanged:
    """Gives a room another password, or none."""
    room = own_room(call, account)
    password = None if body.password is None else read_password(body.password)
    dropped = await call.services.room_control.set_password(
        room, password, drop=body.drop_listeners
    )
    call.audit(
        AuditEvent.ROOM_PASSWORD_CHANGED,
        room=room.id,
        open=password is None,
        tokens_revoked=body.drop_listeners,
        dropped=dropped,
    )
    return PasswordChanged(room.id, password is None, dropped)


@api.get("/api/broadcaster/rooms/{room}/channels", problems=OWN_ROOM)
async def room_channels(call: Call, account: Account) -> Channels:
    """The channels that a room has now, and what came of each."""
    return _channels(own_room(call, account))


def _channels(room: Room) -> Channels:
    source, report = room.format, room.report
    if source is None:
        return Channels(room_id=room.id, live=False)
    names = source.channel_names
    none = (0,) * source.channels  # no report has come yet
    return Channels(
        room_id=room.id,
        live=room.is_live,
        stream=source.stream,
        sample_rate=source.sample_rate,
        encoding=source.encoding,
        frame_ms=source.frame_ms,
        buffer_ms=source.buffer_ms,
        channels=[
            Channel(
                index=index,
                name=(names[index] if index < len(names) else "") or None,
                received=(report.received if report else none)[index],
                late=(report.late if report else none)[index],
                duplicate=(report.duplicate if report else none)[index],
                lost=(report.lost if report else none)[index],
                concealed=(report.concealed if report else none)[index],
            )
            for index in range(source.channels)
        ],
    )
