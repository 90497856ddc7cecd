"""What a browser sends when its sound is held up, its clock is set, its file is long."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from roomserver.clients.wire import Frame
from support.browser import client_page
from support.client_rooms import broadcasting
from support.live import ROOM_PASSWORD
from support.pages import check_looks, opened, sign_in, visitor
from support.server import ServerProcess
from support.severing import severable_url
from support.studio import add_tone, confirm, go_live, make_room
from support.tones import wav_of_tones

# Keeps what the page makes: what systems do to it is done to it here.
SPY = """
    window.contexts = [];
    window.AudioContext = class extends AudioContext {
        constructor(options) {
            super(options);
            contexts.push(this);
        }
    };
    window.streams = [];
    const open = MediaDevices.prototype.getUserMedia;
    MediaDevices.prototype.getUserMedia = async function (wish) {
        const stream = await open.call(this, wish);
        streams.push(stream);
        return stream;
    };
    window.silence = (muted) => {
        const [track] = streams.at(-1).getAudioTracks();
        Object.defineProperty(track, 'muted', { value: muted, configurable: true });
        track.dispatchEvent(new Event(muted ? 'mute' : 'unmute'));
    };
"""


async def test_sound_that_the_browser_stopped_is_told_and_a_press_lets_it_go_on(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    async with visitor(browser) as context:
        await context.add_init_script(SPY)
        async with opened(context, studio.url + "/broadcast") as page:
            await sign_in(page, "engineer@example.org")
            await make_room(page, "Called")
            await add_tone(page, 440)
            await go_live(page)
            state = page.locator(".transport .on-air")
            alert = page.get_by_role("alert")
            await expect(state).to_have_text("On air")
            await expect(alert).to_have_count(0)
            await page.evaluate("contexts.at(-1).suspend()")
            await expect(alert).to_contain_text("The browser has stopped the sound")
            await expect(state).to_have_text("On air, without sound")
            await check_looks(page, pictures, "silenced")
            await page.get_by_role("button", name="Let it go on").click()
            await expect(alert).to_have_count(0)
            await expect(state).to_have_text("On air")
            await page.get_by_role("button", name="Stop").click()
            await expect(state).to_have_text("Off air")


async def test_an_input_that_the_system_silenced_says_so(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context:
        await context.add_init_script(SPY)
        async with opened(context, studio.url + "/broadcast") as page:
            await sign_in(page, "engineer@example.org")
            await make_room(page, "Switched off")
            await page.get_by_role("button", name="Device", exact=True).click()
            await confirm(page, "Add")
            card = page.locator(".input-card")
            await expect(card).to_contain_text("Device")
            await page.evaluate("silence(true)")
            await expect(card).to_contain_text("Silenced by the device or the system")
            await expect(page.locator("#announcer")).to_contain_text("Silenced by the device")
            await page.evaluate("silence(false)")
            await expect(card).not_to_contain_text("Silenced")


async def test_why_a_broadcast_reconnects_is_told(browser: Browser, studio: ServerProcess) -> None:
    async with (
        severable_url(studio.url) as (link, url),
        visitor(browser) as context,
        opened(context, url + "/broadcast", outage=True) as page,
    ):
        await sign_in(page, "engineer@example.org")
        await make_room(page, "Torn")
        await add_tone(page, 440)
        await go_live(page)
        lost = page.get_by_text("The connection to the server was lost")
        link.cut()
        await expect(lost).to_contain_text("The server does not answer")
        link.mend()
        await expect(page.locator(".transport .on-air")).to_have_text("On air")
        await expect(lost).to_have_count(0)


MOST_STALLS = 20  # with more of them nothing is found out

# Between the audio thread and the worker: a step of the clock on the wall is what the one would say
# to the other.
STEP = """() => {
    const post = MessagePort.prototype.postMessage;
    window.stepMs = 0;
    window.stood = 0; // how often the sound itself stood still, as on a busy machine
    MessagePort.prototype.postMessage = function (message, transfer) {
        if (message?.type !== 'blocks') return post.call(this, message, transfer);
        const { port1, port2 } = new MessageChannel();
        const worker = message.port;
        port2.onmessage = ({ data }) => {
            if (data.stoppedMs > 0) window.stood++;
            data.stoppedMs += stepMs;
            window.stepMs = 0;
            worker.postMessage(data, [data.planes.buffer]);
        };
        worker.onmessage = ({ data }) => port2.postMessage(data, [data.buffer]);
        return post.call(this, { ...message, port: port1 }, [port1]);
    };
    broadcaster.addTone({ frequency: 700 });
}"""


async def test_a_clock_that_is_set_makes_no_hole(browser: Browser, server: ServerProcess) -> None:
    async with (
        broadcasting(browser, server, STEP) as (room, source),
        room.listen() as capture,
    ):
        await capture.wait_frames(25)

        async def has_hole(step_ms: int) -> bool:
            before = len(capture.messages)
            await source.run("(ms) => { window.stepMs = ms; }", step_ms)
            await source.until("() => stepMs === 0")
            # More than the server holds, and than it waits before it believes another position.
            await capture.wait_frames(75, after=before)
            since = capture.messages[before:]
            return any(isinstance(each, Frame) and each.discontinuity for each in since)

        excused = 0
        for step_ms in (300, 3_600_000):
            while await has_hole(step_ms):
                # Sound that did stand still leaves a hole, and the clock has to be set once more.
                stood = await source.run("() => stood")
                assert excused < stood < MOST_STALLS
                excused = stood


def wav(tones: list[float]) -> str:
    """A second of a tone on each channel, on its way into a page."""
    return base64.b64encode(wav_of_tones(tones)).decode()


async def test_a_file_is_played_as_it_is_read_with_all_its_channels(
    browser: Browser, server: ServerProcess
) -> None:
    tones = [500.0 + 300 * channel for channel in range(7)]
    add = """async (texts) => {
        const { decode } = await import('/static/tests/arrays.js');
        // Whole in memory an hour would be more than a browser has.
        window.whole = 0;
        for (const [type, name] of [[Blob, 'arrayBuffer'], [BaseAudioContext, 'decodeAudioData']]) {
            const real = type.prototype[name];
            type.prototype[name] = function (...given) {
                window.whole++;
                return real.apply(this, given);
            };
        }
        window.elements = new Set();
        const play = HTMLMediaElement.prototype.play;
        HTMLMediaElement.prototype.play = function () {
            elements.add(this);
            return play.call(this);
        };
        for (const text of texts) await broadcaster.addFile(new File([decode(text)], 'take.wav'));
    }"""
    async with (
        broadcasting(browser, server, add, [wav(tones[:6]), wav(tones[6:])]) as (room, source),
        client_page(browser, server.url) as page,
    ):
        assert await source.run("() => whole") == 0
        counts = await source.run("() => broadcaster.inputs.map((input) => input.channelCount)")
        assert counts == [6, 1]
        for channel, tone in enumerate(tones):
            solos = [each == channel for each in range(7)]
            if channel == 0:
                await page.listen(room.code, ROOM_PASSWORD, mix={"solos": solos})
            else:
                await page.run("(solos) => listener.setMix({ solos })", solos)
            heard = await page.settled(
                lambda heard: heard.tone(0) == pytest.approx(tone, abs=2)  # noqa: B023
            )
            assert heard.loudness > -30
        await source.run("() => elements.forEach((element) => element.pause())")  # as a key does
        await source.until("() => [...elements].every((element) => !element.paused)")
        # As when the disk that it is read from is pulled out.
        await source.run(
            "() => elements.forEach((element) => element.dispatchEvent(new Event('error')))"
        )
        assert await source.run("() => broadcaster.inputs.every(({ ended }) => ended)")


async def test_an_input_that_is_silenced_from_the_start_is_told_with_that(
    browser: Browser, server: ServerProcess
) -> None:
    add = """async () => {
        Object.defineProperty(MediaStreamTrack.prototype, 'muted', { get: () => true });
        window.told = [];
        broadcaster.addEventListener('inputs', ({ detail }) => told.push(detail[0].silenced));
        await broadcaster.addDevice('');
    }"""
    async with broadcasting(browser, server, add) as (_, source):
        assert (await source.run("() => told"))[0] is True


async def test_why_a_file_does_not_play_is_told(browser: Browser, server: ServerProcess) -> None:
    async with client_page(browser, server.url) as page:
        told = await page.run(
            """async (text) => {
                const { decode } = await import('/static/tests/arrays.js');
                const refusal = async () => {
                    const broadcaster = new client.Broadcaster({ roomId: '', roomToken: '' });
                    const file = new File([decode(text)], 'take.wav');
                    const { code } = await broadcaster.addFile(file).catch((error) => error);
                    await broadcaster.close();
                    return code;
                };
                const { play } = HTMLMediaElement.prototype;
                const early = new DOMException('press first', 'NotAllowedError');
                HTMLMediaElement.prototype.play = () => Promise.reject(early);
                const codes = [await refusal()];
                HTMLMediaElement.prototype.play = play;
                AudioWorklet.prototype.addModule = () => Promise.reject(new Error('no'));
                return [...codes, await refusal()];
            }""",
            wav([440.0]),
        )
    assert told == ["gesture_needed", "not_supported"]
