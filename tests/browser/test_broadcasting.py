"""A browser broadcasts, another listens: every channel in its place, and the mixer obeyed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from playwright.async_api import Browser

from roomserver.clients.wire import Frame
from support.browser import MICROPHONE_HZ, Heard, client_page
from support.client_rooms import broadcasting
from support.live import ROOM_PASSWORD
from support.server import ServerProcess
from support.severing import severable_url
from support.tones import wav_of_tones

TONES = [300.0 + 220 * channel for channel in range(8)]
AMPLITUDE = 0.1
LEVEL = -20.0
SILENT = -80.0


TONE = "() => broadcaster.addTone({ frequency: 700 })"
EIGHT_TONES = """([tones, amplitude]) => {
    const context = broadcaster.audioContext;
    const merger = new ChannelMergerNode(context, { numberOfInputs: tones.length });
    tones.forEach((frequency, channel) => {
        const tone = new OscillatorNode(context, { frequency });
        tone.connect(new GainNode(context, { gain: amplitude })).connect(merger, 0, channel);
        tone.start();
    });
    broadcaster.addNode(merger, tones.length, 'Stage');
}"""


def levels(heard: Heard, side: int) -> list[float]:
    return [heard.level(side, frequency) for frequency in TONES]


def is_at(heard: Heard, left: Sequence[float | None], right: Sequence[float | None]) -> bool:
    """Whether each tone has the level wanted, within half a decibel; None: it is not there."""
    for side, wanted in enumerate((left, right)):
        for level, want in zip(levels(heard, side), wanted, strict=True):
            if want is None and level > SILENT + 20:
                return False
            if want is not None and abs(level - want) > 0.5:
                return False
    return True


@pytest.mark.parametrize("mode", ["mix", "multichannel"])
async def test_eight_channels_arrive_in_their_places_and_obey_the_mixer(
    browser: Browser, server: ServerProcess, mode: str
) -> None:
    even = [LEVEL if channel % 2 == 0 else None for channel in range(8)]
    odd = [LEVEL if channel % 2 else None for channel in range(8)]
    pans = [-1 if channel % 2 == 0 else 1 for channel in range(8)]
    async with (
        broadcasting(browser, server, EIGHT_TONES, [TONES, AMPLITUDE]) as (room, _),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode=mode, mix={"pans": pans})
        await page.settled(lambda heard: is_at(heard, even, odd))

        faders = [1.0] * 8
        faders[2] = 10 ** (-12 / 20)
        faders[5] = 10 ** (6 / 20)
        await page.run("(faders) => listener.setMix({ faders })", faders)
        left, right = even.copy(), odd.copy()
        left[2], right[5] = LEVEL - 12, LEVEL + 6
        await page.settled(lambda heard: is_at(heard, left, right))

        mutes = [channel == 4 for channel in range(8)]
        await page.run("(mutes) => listener.setMix({ mutes })", mutes)
        left[4] = None
        await page.settled(lambda heard: is_at(heard, left, right))

        solos = [channel == 3 for channel in range(8)]
        await page.run("(solos) => listener.setMix({ solos })", solos)
        alone = [LEVEL if channel == 3 else None for channel in range(8)]
        await page.settled(lambda heard: is_at(heard, [None] * 8, alone))

        await page.run("() => listener.setMix({ solos: [], mutes: [], pans: [], faders: [] })")
        middle = [LEVEL - 3.01] * 8
        await page.settled(lambda heard: is_at(heard, middle, middle))
        assert (await page.statistics())["framesMissing"] == 0


async def test_a_microphone_is_heard_on_both_channels(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        broadcasting(browser, server, "() => broadcaster.addDevice('')") as (room, source),
        client_page(browser, server.url) as page,
    ):
        count = await source.run("() => broadcaster.inputs[0].channelCount")
        assert count == 2
        await page.listen(room.code, ROOM_PASSWORD, mix={"pans": [-1, 1]})
        await page.settled(
            lambda heard: (
                heard.loudness > -30
                and [heard.tone(0), heard.tone(1)] == pytest.approx(MICROPHONE_HZ, abs=2)
            )
        )
        peaks = await source.run("() => Array.from(broadcaster.levels().peak.slice(0, 2))")
        assert peaks == pytest.approx([-12, -12], abs=1.5)


async def test_a_file_plays_once_and_is_told_to_have_ended(
    browser: Browser, server: ServerProcess
) -> None:
    file = base64.b64encode(wav_of_tones([600.0, 900.0])).decode()
    add = """async (text) => {
        const { decode } = await import('/static/tests/arrays.js');
        const file = new File([decode(text)], 'tones.wav');
        await broadcaster.addFile(file);
        await broadcaster.addFile(file, { loop: false });
        window.refusal = await broadcaster.addFile(new Blob(['x'])).catch((error) => error.code);
    }"""
    async with (
        broadcasting(browser, server, add, file) as (room, source),
        client_page(browser, server.url) as page,
    ):
        assert await source.run("() => refusal") == "not_audio"
        await source.until("() => broadcaster.inputs[1].ended")
        assert await source.run("() => broadcaster.inputs[0].ended") is False
        names = await source.run("() => broadcaster.channelNames")
        assert names == ["tones.wav 1", "tones.wav 2"] * 2
        await page.listen(room.code, ROOM_PASSWORD, mix={"pans": [-1, 1]})
        await page.settled(
            lambda heard: (
                heard.loudness > -30
                and [heard.tone(0), heard.tone(1)] == pytest.approx([600, 900], abs=2)
            )
        )


async def test_gain_and_mute_of_an_input_and_sound_that_was_suspended(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        # So much that nothing comes late because a busy machine stood still.
        broadcasting(browser, server, TONE, bufferMs=1000) as (room, source),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD)
        await source.run("() => { broadcaster.inputs[0].gain = 0.5; }")
        wanted = LEVEL - 3.01 - 6.02
        await page.settled(lambda heard: abs(heard.level(0, 700) - wanted) < 0.5)
        await source.run("() => { broadcaster.inputs[0].muted = true; }")
        await page.settled(lambda heard: heard.loudness < SILENT)
        await source.run("() => { broadcaster.inputs[0].muted = false; }")
        await source.run(
            """() => {
                window.audio = [];
                broadcaster.addEventListener('audio', (e) => audio.push(e.detail.running));
                return broadcaster.audioContext.suspend();
            }"""
        )
        await page.until("() => listener.state === 'buffering'")
        await source.run("() => broadcaster.audioContext.resume()")
        await page.settled(lambda heard: abs(heard.level(0, 700) - wanted) < 0.5)
        assert await source.run("() => audio") == [False, True]
        # Its timeline went on with time, so that nothing came late.
        await source.until("() => broadcaster.status !== null")
        assert await source.run("() => broadcaster.status.late") == [0]


async def test_a_microphone_that_was_unplugged_is_opened_again_when_it_is_back(
    browser: Browser, server: ServerProcess
) -> None:
    add = """async () => {
        window.opened = [];
        const devices = navigator.mediaDevices;
        const open = devices.getUserMedia.bind(devices);
        devices.getUserMedia = async (wish) => {
            opened.push(await open(wish));
            return opened.at(-1);
        };
        await broadcaster.addDevice('');
    }"""
    async with (
        broadcasting(browser, server, add) as (room, source),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD)
        await page.settled(lambda heard: heard.loudness > -30)
        # The fake microphone has no plug: what the browser would say is said for it.
        await source.run(
            """() => {
                const [track] = opened[0].getAudioTracks();
                track.stop();
                track.dispatchEvent(new Event('ended'));
            }"""
        )
        assert await source.run("() => broadcaster.inputs[0].ended") is True
        await page.settled(lambda heard: heard.loudness < SILENT)
        await source.run("() => navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
        await page.settled(lambda heard: heard.loudness > -30)
        assert await source.run("() => [opened.length, broadcaster.inputs[0].ended]") == [2, False]


async def test_a_microphone_is_opened_again_as_it_was_and_no_more_often_than_needed(
    browser: Browser, server: ServerProcess
) -> None:
    add = """async () => {
        window.opened = [];
        window.gate = Promise.resolve();
        const devices = navigator.mediaDevices;
        const open = devices.getUserMedia.bind(devices);
        devices.getUserMedia = async (wish) => {
            const stream = await open(wish);
            opened.push({ wish, track: stream.getAudioTracks()[0] });
            await gate;
            return stream;
        };
        // The fake microphone has no plug: what the browser would say is said for it.
        window.unplug = () => {
            opened.at(-1).track.stop();
            opened.at(-1).track.dispatchEvent(new Event('ended'));
        };
        window.plug = () => devices.dispatchEvent(new Event('devicechange'));
        broadcaster.addTone({ frequency: 700 });
        await broadcaster.addDevice('', { echoCancellation: true });
    }"""
    async with broadcasting(browser, server, add) as (_, source):
        await source.run("() => { unplug(); plug(); plug(); plug(); }")
        await source.until("() => !broadcaster.inputs[1].ended")
        # Once more, and it is removed while the browser opens it.
        await source.run(
            """() => {
                unplug();
                window.gate = new Promise((open) => { window.open = open; });
                plug();
            }"""
        )
        await source.until("() => opened.length === 3")
        await source.run("() => { broadcaster.removeInput(broadcaster.inputs[1]); open(); }")
        await source.until("() => opened[2].track.readyState === 'ended'")
        wishes = await source.run("() => opened.map(({ wish }) => wish.audio.echoCancellation)")
        assert wishes == [True] * 3


async def test_what_a_tab_shares_ends_with_the_input(
    browser: Browser, server: ServerProcess
) -> None:
    # Nobody is there to choose a tab.
    add = """() => {
        const { audioContext } = broadcaster;
        navigator.mediaDevices.getDisplayMedia = async () => {
            const picture = document.createElement('canvas');
            picture.getContext('2d');
            window.shared = picture.captureStream(1);
            if (window.withSound) {
                const sound = new MediaStreamAudioDestinationNode(audioContext);
                shared.addTrack(sound.stream.getAudioTracks()[0]);
            }
            return shared;
        };
        broadcaster.addTone({ frequency: 700 });
    }"""
    states = "() => shared.getTracks().map((track) => track.readyState)"
    async with broadcasting(browser, server, add) as (_, source):
        refusal = await source.run("() => broadcaster.addTab().catch((error) => error.code)")
        assert refusal == "no_audio"
        assert await source.run(states) == ["ended"]
        kept = """async () => {
            window.withSound = true;
            await broadcaster.addTab();
            window.tracks = shared.getTracks();
            return tracks.map((track) => track.kind).sort();
        }"""
        assert await source.run(kept) == ["audio", "video"]
        await source.run("() => broadcaster.removeInput(broadcaster.inputs[1])")
        assert await source.run("() => tracks.map((t) => t.readyState)") == ["ended", "ended"]


async def test_without_its_last_input_a_broadcast_goes_on_silent(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        broadcasting(browser, server, TONE) as (room, source),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD)
        await page.settled(lambda heard: heard.tone(0) == pytest.approx(700, abs=1))
        await source.run("() => broadcaster.removeInput(broadcaster.inputs[0])")
        await page.settled(lambda heard: heard.loudness < SILENT)
        assert await source.run("() => [broadcaster.state, errors]") == ["live", []]
        await source.run("() => broadcaster.addTone({ frequency: 1100 })")
        await page.settled(lambda heard: heard.level(0, 1100) > LEVEL - 4)
        await page.until("() => listener.format.channelNames[0] === '1100 Hz'")


async def test_two_starts_are_one_and_a_stop_ends_one(
    browser: Browser, server: ServerProcess
) -> None:
    async with broadcasting(browser, server, TONE) as (_, source):
        told = await source.run(
            """async () => {
                await broadcaster.stop();
                const made = [];
                window.Worker = class extends Worker {
                    constructor(...given) {
                        super(...given);
                        made.push(this);
                    }
                };
                await Promise.all([broadcaster.start(), broadcaster.start()]);
                const live = broadcaster.state;
                await broadcaster.stop();
                const stopped = broadcaster.start().catch((error) => error.code);
                await broadcaster.stop();
                return [made.length, live, await stopped, broadcaster.state];
            }"""
        )
        assert told == [1, "live", "stopped", "idle"]


async def test_what_clipped_is_remembered_until_it_is_reset(
    browser: Browser, server: ServerProcess
) -> None:
    loud = "() => broadcaster.addTone({ frequency: 700, level: 6 })"
    clipped = "() => broadcaster.levels().clipped[0]"
    async with broadcasting(browser, server, loud) as (_, source):
        await source.until("() => broadcaster.levels().clipped[0] === 1")
        await source.run("() => { broadcaster.inputs[0].gain = 0.1; }")
        await source.until("() => broadcaster.levels().peak[0] < -10")
        assert await source.run(clipped) == 1
        await source.run("() => broadcaster.resetClipped(0)")
        await source.run(
            """() => new Promise((go) => {
                broadcaster.addEventListener('statistics', go, { once: true });
            }).then(() => {})"""
        )
        assert await source.run(clipped) == 0


async def test_presets_and_modes_keep_the_mix(browser: Browser, server: ServerProcess) -> None:
    async with (
        broadcasting(browser, server, EIGHT_TONES, [TONES[:2], AMPLITUDE]) as (room, _),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode="multichannel")
        await page.run(
            """async () => {
                listener.setMix({ faders: [0.5, 2], pans: [-1, 1] });
                await listener.savePreset('wide');
                listener.setMix({ faders: [1, 1], pans: [0, 0] });
            }"""
        )
        assert await page.run("() => listener.listPresets()") == ["wide"]
        loaded = await page.run("() => listener.loadPreset('wide')")
        assert (loaded["faders"], loaded["pans"]) == ([0.5, 2], [-1, 1])
        for mode in ("mix", "multichannel"):
            await page.run("(mode) => listener.setMode(mode)", mode)
            heard = await page.settled(
                lambda heard: abs(heard.level(1, TONES[1]) - LEVEL - 6.02) < 0.5
            )
            assert heard.level(0, TONES[0]) == pytest.approx(LEVEL - 6.02, abs=0.5)
        assert await page.run("() => listener.loadPreset('none').catch((e) => e.code)") == (
            "preset_not_found"
        )
        assert await page.run("() => listener.deletePreset('wide')") is None


async def test_an_input_more_is_another_stream_for_the_same_listeners(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        broadcasting(browser, server, TONE) as (room, source),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD)
        await page.settled(lambda heard: heard.tone(0) == pytest.approx(700, abs=1))
        await source.until("() => broadcaster.status?.listenerCount === 1")
        status = await source.run("() => broadcaster.status")
        assert abs(status["captureOffsetUs"]) < 500_000
        await source.run("() => broadcaster.addTone({ frequency: 1100 })")
        await page.until("() => listener.format.channelCount === 2")
        await page.settled(lambda heard: heard.level(0, 1100) > LEVEL - 4)
        assert (await page.statistics())["reconnects"] == 0
        assert await source.run("() => broadcaster.channelNames") == ["700 Hz", "1100 Hz"]


async def test_another_order_is_another_stream_and_no_sample_is_in_the_wrong_one(
    browser: Browser, server: ServerProcess
) -> None:
    # A frame of 10 ms has a whole number of periods of both.
    add = """() => {
        broadcaster.addTone({ frequency: 700, name: 'Low' });
        broadcaster.addTone({ frequency: 1100, name: 'High' });
    }"""
    async with (
        broadcasting(browser, server, add) as (room, source),
        room.listen(encoding="pcm_f32le") as capture,
    ):
        await capture.wait_frames(20)
        for _ in range(3):
            stream = capture.frames[-1].stream
            await source.run("() => broadcaster.reorderChannels([1, 0])")
            first = await capture.wait_until(
                lambda message: isinstance(message, Frame) and message.stream > stream  # noqa: B023
            )
            await capture.wait_frames(50, after=first)
        assert await source.run("() => [broadcaster.state, errors]") == ["live", []]
        for not_an_order in ([0], [0, 0], [1, 2]):
            refusal = await source.run(
                """(order) => {
                    try {
                        broadcaster.reorderChannels(order);
                    } catch (error) {
                        return error.name;
                    }
                }""",
                not_an_order,
            )
            assert refusal == "RangeError"
    registered = capture.connection.registered
    started = [registered, *capture.texts("streamStarted")]
    names = {each["stream"]: each["channelNames"] for each in started if "stream" in each}
    heard = {"Low": 700, "High": 1100}
    wrong: list[float] = []
    for before, frame in pairwise(capture.frames):
        if frame.concealed or before.concealed or frame.stream != before.stream:
            continue  # made up, or blended from what was
        spectrum = np.abs(np.fft.rfft(frame.samples, axis=0))
        bins = {name: hertz // 100 for name, hertz in heard.items()}
        for channel, name in enumerate(names[frame.stream]):
            (other,) = heard.keys() - {name}
            wrong.append(spectrum[bins[other], channel] / spectrum[bins[name], channel])
    assert len(wrong) > 100
    assert max(wrong) < 0.01


async def test_fields_that_change_while_it_registers_are_registered_at_once(
    browser: Browser, server: ServerProcess
) -> None:
    async with client_page(browser, server.url) as page:
        told = await page.run(
            """async () => {
                const { Connection } = await import('/static/client/connection.js');
                const sockets = [];
                window.WebSocket = class {
                    constructor() {
                        this.said = [];
                        sockets.push(this);
                    }
                    send(text) {
                        this.said.push(JSON.parse(text));
                    }
                    close(code) {
                        queueMicrotask(() => this.onclose?.({ code }));
                    }
                    hear(type) {
                        this.onmessage({ data: JSON.stringify({ type }) });
                    }
                };
                const fields = { channels: 1 };
                const told = [];
                const connection = new Connection(
                    'registerSource',
                    { server: location.origin, roomId: 'room', roomToken: 'token' },
                    {
                        fields: () => fields,
                        connecting: (error) => told.push(error?.code ?? 'connecting'),
                        registered: () => told.push(connection.isRegistered),
                        closed: (error) => told.push(error.code),
                    },
                );
                const opened = async (count) => {
                    while (sockets.length < count) await new Promise((go) => setTimeout(go));
                    return sockets.at(-1);
                };
                void connection.run();
                const first = await opened(1);
                first.hear('config');
                fields.channels = 2;
                connection.restart();
                first.hear('sourceRegistered');
                const second = await opened(2);
                second.hear('config');
                second.hear('sourceRegistered');
                connection.close();
                return [sockets.map(({ said }) => said[0].channels), told];
            }"""
        )
        assert told == [[1, 2], ["connecting", "connecting", True]]


async def test_a_source_returns_after_its_network_was_cut(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        severable_url(server.url) as (link, url),
        broadcasting(browser, server, TONE, url=url) as (room, source),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD)
        link.cut()
        await source.until("() => broadcaster.state === 'reconnecting'")
        await page.until("() => listener.state === 'suspended'")
        link.mend()
        await source.until("() => broadcaster.state === 'live'")
        await page.settled(lambda heard: heard.tone(0) == pytest.approx(700, abs=1))


async def test_over_a_slow_uplink_whole_packets_are_left_out(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        severable_url(server.url) as (link, url),
        broadcasting(browser, server, EIGHT_TONES, [TONES, AMPLITUDE], url=url) as (room, source),
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mix={"mutes": [False, *[True] * 7]})
        link.hold()
        await source.until("() => broadcaster.statistics.droppedPackets > 0")
        link.go_on()
        dropped = "() => broadcaster.statistics.droppedPackets"
        await source.until("() => broadcaster.statistics.bufferedBytes === 0")
        before = await source.run(dropped)
        await page.settled(lambda heard: heard.tone(0) == pytest.approx(TONES[0], abs=1))
        assert await source.run(dropped) - before < 20  # it goes on
