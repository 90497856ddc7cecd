"""The WebSocket protocol of a running server: registration, tokens, close codes, rooms."""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from roomserver.auth.tokens import Keys, Tokens
from roomserver.protocol.codes import Role
from support.api_client import Api, RoomKeys, Socket, noise, source_wish
from support.peer import source_packet
from support.server import ServerProcess

LATE_S = 0.5  # how much later than at best a frame may come on a busy machine


@pytest.fixture
async def room(api: Api, access_token: str) -> RoomKeys:
    return await api.create_room(access_token)


def signer(server: ServerProcess, *, life_s: float = 3600, secret: bytes | None = None) -> Tokens:
    """Signs like the server, whose key lies in its data directory."""
    key = secret or (server.data_dir / "secret").read_text().strip().encode()
    return Tokens(Keys(key), access_s=life_s, room_s=life_s)


def unsigned(token: str) -> str:
    """The same claims under `alg=none`."""
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{header}.{token.split('.')[1]}."


async def refused(socket: Socket, code: int, error: str) -> None:
    """An `error` comes, and then the close."""
    answer = await socket.until("error")
    assert answer["code"] == error
    assert answer["message"]
    assert (await socket.closed()).code == code


async def test_the_first_message_is_the_configuration(api: Api) -> None:
    async with api.socket() as socket:
        (config,) = socket.texts()
    assert config["protocol"] == 1
    assert config["encodings"] == ["pcm_s16le", "pcm_f32le"]
    assert config["maxChannels"] == 64
    assert config["clientId"]
    assert abs(config["serverTime"] / 1e6 - time.time()) < 5


async def test_a_listener_is_told_the_room_and_its_subscription(api: Api, room: RoomKeys) -> None:
    token = await api.join(room.code, nickname="Ann")
    async with api.socket() as socket:
        await socket.say(
            "registerListener",
            roomId=room.code,
            roomToken=token,
            mode="mix",
            mix={"faders": [0.5], "solos": [True]},
            intervalMs=100,
        )
        answer = await socket.until("listenerRegistered")
        assert answer == {
            "type": "listenerRegistered",
            "roomId": room.id,
            "roomName": f"Room {room.code}",
            "clientId": socket.texts("config")[0]["clientId"],
            "state": "waiting",
            "hasBroadcaster": False,
            "listenerCount": 1,
            "mode": "mix",
            "channels": None,
            "encoding": "pcm_s16le",
            "intervalMs": 100,
            "levels": False,
            "mix": {
                "faders": [0.5],
                "pans": [],
                "mutes": [],
                "solos": [True],
                "master": 1.0,
            },
        }
        status = await socket.until("roomStatus")
        assert (status["state"], status["listenerCount"]) == ("waiting", 1)


async def test_a_pong_is_stamped_where_the_bytes_are_read_and_written(api: Api) -> None:
    async with api.socket() as socket:
        await socket.say("ping", t=17.25)
        pong = await socket.until("pong")
        assert pong["t"] == 17.25
        assert 0 <= pong["sent"] - pong["received"] < 1_000_000
        assert pong["received"] >= socket.texts("config")[0]["serverTime"]


async def test_a_listeners_token_registers_no_source(api: Api, room: RoomKeys) -> None:
    token = await api.join(room.code)
    async with api.socket() as socket:
        await socket.say("registerSource", **source_wish(room, roomToken=token))
        await refused(socket, 4403, "not_allowed")


@pytest.mark.parametrize("kind", ["registerSource", "registerListener"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("expired", "token_expired"),
        ("forged", "token_invalid"),
        ("alg=none", "token_invalid"),
        ("access token", "token_invalid"),
        ("garbage", "token_invalid"),
    ],
)
async def test_a_token_that_is_no_good_is_refused_with_4401(
    api: Api,
    room: RoomKeys,
    access_token: str,
    server: ServerProcess,
    kind: str,
    fault: str,
    error: str,
) -> None:
    good, _ = signer(server).issue_room(room.id, Role.BROADCASTER, user="u")
    tokens = {
        "expired": signer(server, life_s=-10).issue_room(room.id, Role.BROADCASTER)[0],
        "forged": signer(server, secret=b"x" * 40).issue_room(room.id, Role.BROADCASTER)[0],
        "alg=none": unsigned(good),
        "access token": access_token,
        "garbage": "not.a.token",
    }
    wish = source_wish(room)
    if kind == "registerListener":
        del wish["channels"]
    async with api.socket() as socket:
        await socket.say(kind, **wish | {"roomToken": tokens[fault]})
        await refused(socket, 4401, error)
    async with api.socket() as socket:  # the tokens of this test are good otherwise
        await socket.say(kind, **wish | {"roomToken": good})
        await socket.until("sourceRegistered", "listenerRegistered")


async def test_a_room_that_is_not_there_is_4404(
    api: Api, room: RoomKeys, access_token: str
) -> None:
    """And one that is, or was, but not of the token: nobody learns which there are."""
    other, gone = [await api.create_room(access_token) for _ in range(2)]
    path = f"/api/broadcaster/rooms/{gone.id}"
    assert (await api.call("DELETE", path, token=access_token)).status == 204
    told = []
    for name in ("NNNNNN", other.code, other.id, gone.code, gone.id):
        async with api.socket() as socket:
            await socket.say("registerListener", roomId=name, roomToken=room.token)
            await refused(socket, 4404, "room_not_found")
            told.append(socket.texts("error"))
    assert told == [told[0]] * len(told)


async def test_a_room_that_was_closed_is_4410(api: Api, room: RoomKeys, access_token: str) -> None:
    async with api.source(room) as source, api.listener(room) as listener:
        path = f"/api/broadcaster/rooms/{room.id}"
        assert (await api.call("DELETE", path, token=access_token)).status == 204
        for socket in (source, listener):
            closed = await socket.until("roomClosed")
            assert closed == {
                "type": "roomClosed",
                "roomId": room.id,
                "reason": "closed_by_owner",
            }
            assert (await socket.closed()).code == 4410
    async with api.socket() as socket:
        await socket.say("registerListener", roomId=room.id, roomToken=room.token)
        await refused(socket, 4410, "room_closed")


async def test_whoever_does_not_register_in_time_is_closed_with_4408(api: Api) -> None:
    async with api.socket() as socket:
        assert (await socket.closed()).code == 4408


async def test_a_source_from_which_nothing_comes_is_closed_with_4408(tmp_path: Path) -> None:
    options = ("--source-timeout-s", "1", "--silence-timeout-s", "0.3")
    with ServerProcess.start(tmp_path, *options) as server:
        server.add_user()
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            room = await api.create_room((await api.login())["accessToken"])
            async with api.listener(room) as listener, api.socket(autoping=False) as source:
                await source.say("registerSource", **source_wish(room))
                await listener.until("roomSuspended")
                pinged = 0
                while (message := await source.ws.receive(10)).type is not aiohttp.WSMsgType.CLOSE:
                    pinged += message.type is aiohttp.WSMsgType.PING
                assert message.data == 4408
                assert pinged


async def test_binary_before_the_registration_is_4400(api: Api) -> None:
    async with api.socket() as socket:
        await socket.ws.send_bytes(b"\x01" * 40)
        assert (await socket.closed()).code == 4400


async def test_a_malformed_packet_is_4400(api: Api, room: RoomKeys) -> None:
    async with api.source(room) as socket:
        await socket.ws.send_bytes(b"\xff" * 40)
        assert (await socket.closed()).code == 4400


async def test_binary_from_a_listener_is_1003(api: Api, room: RoomKeys) -> None:
    async with api.listener(room) as socket:
        await socket.ws.send_bytes(source_packet(noise(1, 10), 0))
        assert (await socket.closed()).code == 1003


async def test_text_that_is_not_utf8_is_1007(api: Api) -> None:
    async with api.socket() as socket:
        await raw_frame(socket, 0x1, b'{"type":"\xff"}')
        assert (await socket.closed()).code == 1007


async def test_a_text_over_the_limit_is_1009(api: Api) -> None:
    async with api.socket() as socket:
        await socket.say("ping", t=1, padding="x" * 5000)
        assert (await socket.closed()).code == 1009


async def test_text_that_is_no_message_is_4400(api: Api) -> None:
    for text in ("", "{", "[]", '"x"', "{}"):
        async with api.socket() as socket:
            await socket.ws.send_str(text)
            await refused(socket, 4400, "malformed")


async def test_an_unknown_type_is_told_and_forgiven(api: Api) -> None:
    async with api.socket() as socket:
        await socket.say("sing", song="x")
        assert (await socket.until("error"))["code"] == "unknown_type"
        await socket.say("ping", t=1)
        await socket.until("pong")


async def test_presets_are_kept_without_a_database_too(api: Api, room: RoomKeys) -> None:
    async with api.listener(room) as socket:
        await socket.say("savePreset", name="mine")
        assert (await socket.until("presetSaved"))["name"] == "mine"
        await socket.say("listPresets")
        assert (await socket.until("presets"))["names"] == ["mine"]


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose limits are soon reached."""
    limits = {
        "max-packets-per-s": 100,
        "max-room-listeners": 1,
        "max-unregistered-per-address": 3,
        "evict-after-s": 1,
        "room-token-s": 4,
        "log-level": "debug",
    }
    options = [f"--{name}={value}" for name, value in limits.items()]
    with ServerProcess.start(tmp_path_factory.mktemp("strict"), *options) as server:
        server.add_user()
        yield server


@pytest.fixture
async def strict(strict_server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(strict_server.url, session)


@pytest.fixture
async def strict_room(strict: Api) -> RoomKeys:
    return await strict.create_room((await strict.login())["accessToken"])


async def test_tokens_renewed_after_another_password_go_on_to_work_until_one_that_drops(
    strict: Api, strict_room: RoomKeys
) -> None:
    access_token = (await strict.login())["accessToken"]
    path = f"/api/broadcaster/rooms/{strict_room.id}"

    async def change_password(password: str, *, drop: bool) -> None:
        body = {"password": password, "dropListeners": drop}
        answer = await strict.call("POST", path + "/password", token=access_token, json=body)
        assert answer.status == 200, answer

    async with strict.listener(strict_room) as listener:
        await change_password("another", drop=False)
        for _ in range(2):
            token = (await listener.until("roomToken"))["roomToken"]
    async with asyncio.timeout(10):  # until the one that left makes room
        described = functools.partial(strict.call, "GET", path, token=access_token)
        while (await described()).body["listenerCount"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with strict.socket() as back:
        await back.say("registerListener", roomId=strict_room.id, roomToken=token)
        await back.until("listenerRegistered")
        token = (await back.until("roomToken"))["roomToken"]
        await change_password("a third", drop=True)
        await refused(back, 4401, "token_invalid")
    async with strict.socket() as again:
        await again.say("registerListener", roomId=strict_room.id, roomToken=token)
        await refused(again, 4401, "token_invalid")


async def test_too_many_packets_a_second_are_4429(strict: Api, strict_room: RoomKeys) -> None:
    async with strict.source(strict_room) as source:
        for number in range(500):
            await source.ws.send_bytes(source_packet(noise(1, 1), number, sequence=number))
        assert (await source.closed()).code == 4429


async def test_a_full_room_is_4429(strict: Api, strict_room: RoomKeys) -> None:
    token = await strict.join(strict_room.code)
    async with strict.listener(strict_room), strict.socket() as second:
        await second.say("registerListener", roomId=strict_room.id, roomToken=token)
        await refused(second, 4429, "room_full")


async def test_a_listener_that_takes_nothing_is_reset_and_recorded_as_too_slow(
    strict: Api, strict_room: RoomKeys, strict_server: ServerProcess
) -> None:
    async with (
        strict.source(strict_room, channels=64, sampleRate=96000) as source,
        strict.listener(strict_room) as listener,
    ):
        transport = listener.ws._response.connection.transport  # type: ignore[union-attr]
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        playing = asyncio.create_task(source.play(noise(64, 96000 * 3), rate=96000))
        await asyncio.to_thread(
            strict_server.wait_for_event,
            "room_left",
            where=lambda event: event["reason"] == "too_slow" and event["code"] == 4413,
            timeout=20,
        )
        playing.cancel()
        transport.abort()


async def test_a_player_that_says_it_lags_is_paused_and_goes_on_at_live(
    api: Api, room: RoomKeys
) -> None:
    async with api.source(room) as source, api.listener(room) as listener:
        playing = asyncio.create_task(source.play(noise(2, 48_000 * 20), rate=48_000))

        async def report() -> None:
            while True:
                await listener.say("stats", latencyMs=1100, bufferMs=100)
                await asyncio.sleep(0.7)

        reporting = asyncio.create_task(report())
        frames = await listener.frames(1)
        async with asyncio.timeout(20):
            while len(frames) < 2 or frames[-1].sequence == frames[-2].sequence + 1:
                frames += await listener.frames(1)
        last, first = frames[-2:]
        assert 40 <= first.sequence - last.sequence - 1 <= 60, "latency less buffer: a second"
        # Nothing was said meanwhile, and what came then was of that moment, which it stays with.
        at = next(i for i, message in enumerate(listener.seen) if message is last)
        assert listener.seen[at + 1] is first
        frames += await listener.frames(20)
        delays = [frame.received_s - frame.time_us / 1e6 for frame in frames]
        assert max(delays[-21:]) < min(delays) + LATE_S
        for task in (playing, reporting):
            task.cancel()
            await asyncio.wait({task})


async def test_unregistered_connections_of_an_address_are_limited(
    strict: Api, strict_room: RoomKeys
) -> None:
    token = await strict.join(strict_room.code)
    async with strict.socket() as first, strict.socket(), strict.socket():
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with strict.socket():
                pass
        assert caught.value.status == 429
        await first.say("registerListener", roomId=strict_room.id, roomToken=token)
        await first.until("listenerRegistered")
        async with strict.socket():
            pass


async def test_a_new_token_comes_before_the_old_one_expires(
    strict: Api, strict_room: RoomKeys
) -> None:
    async with strict.listener(strict_room) as listener, strict.source(strict_room) as source:
        renewed = await listener.until("roomToken")
        assert renewed["expiresAt"] / 1e6 > time.time()
        await source.until("roomToken")
        await listener.until("roomToken")
    async with strict.socket() as socket:
        await socket.say("registerListener", roomId=strict_room.id, roomToken=renewed["roomToken"])
        assert (await socket.until("listenerRegistered"))["roomId"] == strict_room.id


async def test_the_owner_takes_over_and_nobody_else(
    api: Api, room: RoomKeys, access_token: str, server: ServerProcess
) -> None:
    stranger, _ = signer(server).issue_room(room.id, Role.BROADCASTER, user="somebody else")
    path = f"/api/broadcaster/rooms/{room.id}/token"
    own = (await api.call("POST", path, token=access_token)).body["roomToken"]
    async with api.source(room) as first, api.listener(room) as listener:
        async with api.socket() as other:
            await other.say("registerSource", **source_wish(room, roomToken=stranger))
            await refused(other, 4403, "source_exists")
        async with api.socket() as second:
            await second.say("registerSource", **source_wish(room, roomToken=own))
            assert (await second.until("sourceRegistered"))["stream"] == 2
            await refused(first, 4409, "source_taken_over")
            await second.say("unregisterSource")
            await listener.until("roomSuspended")
        assert len(listener.texts("roomSuspended")) == 1


async def test_a_room_is_suspended_resumed_and_closed_after_the_grace_period(
    api: Api, room: RoomKeys
) -> None:
    async with api.listener(room) as listener:
        async with api.source(room):
            status = await listener.until("roomStatus")
            while status["state"] != "active":
                status = await listener.until("roomStatus")
            assert status["hasBroadcaster"]
            assert status["buffering"]
        suspended = await listener.until("roomSuspended")
        assert suspended["roomId"] == room.id
        left_s = suspended["suspendedUntil"] / 1e6 - time.time()
        assert 0.5 < left_s < 2
        async with api.source(room):
            assert await listener.until("roomResumed") == {
                "type": "roomResumed",
                "roomId": room.id,
            }
        await listener.until("roomSuspended")
        closed = await listener.until("roomClosed")
        assert closed["reason"] == "source_gone"
        assert (await listener.closed()).code == 4410
    statuses = [message["state"] for message in listener.texts("roomStatus")]
    assert "suspended" in statuses


async def test_a_token_serves_several_connections(api: Api, room: RoomKeys) -> None:
    token = await api.join(room.code)
    async with api.socket() as first, api.socket() as second:
        for number, socket in enumerate((first, second), 1):
            await socket.say("registerListener", roomId=room.id, roomToken=token)
            assert (await socket.until("listenerRegistered"))["listenerCount"] == number


async def test_a_burst_of_texts_is_answered_in_order(api: Api, room: RoomKeys) -> None:
    async with api.listener(room) as listener:
        for number in range(500):
            await listener.say("setMix", master=number % 5)
            await listener.say("ping", t=number)
        for number in range(500):
            assert (await listener.until("mixChanged"))["master"] == number % 5
            assert (await listener.until("pong"))["t"] == number


async def test_what_clients_say_never_reaches_the_log_when_it_is_secret(
    api: Api, room: RoomKeys, server: ServerProcess, access_token: str
) -> None:
    token = await api.join(room.code)
    async with api.socket() as socket:
        await socket.say("registerListener", roomId="NNNNNN", roomToken=token)
        await socket.closed()
    output = server.output()
    assert token not in output
    assert room.token not in output
    assert access_token not in output


async def raw_frame(socket: Socket, opcode: int, payload: bytes) -> None:
    """A frame that aiohttp would not send."""
    key = os.urandom(4)
    body = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    assert len(payload) < 126
    frame = struct.pack(">BB", 0x80 | opcode, 0x80 | len(payload)) + key + body
    transport: Any = socket.ws._writer.transport
    transport.write(frame)
