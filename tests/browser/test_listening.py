"""A room that a browser listens to: what comes out of it, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import Browser, Route
from playwright.async_api import Error as PlaywrightError

from support.api_client import Api
from support.browser import ClientPage, Heard, client_page
from support.client_rooms import playing, room_of_tones
from support.live import ROOM_PASSWORD, live_room
from support.restarting import restartable
from support.server import ServerProcess
from support.severing import Link, severable_url

DOCS = Path(__file__).parents[2] / "docs"
TONES = [440.0, 1000.0]
SIDES = {"pans": [-1, 1]}


def hears(tones: list[float]) -> Callable[[Heard], bool]:
    """Says whether left and right are these tones."""

    def check(heard: Heard) -> bool:
        loud = heard.loudness > -25
        return loud and [heard.tone(0), heard.tone(1)] == pytest.approx(tones, abs=1)

    return check


def beside(heard: Heard, tone: float) -> float:
    """What is loudest at the left besides a tone, against that."""
    spectrum = heard.spectrum(0)
    at = round(tone * heard.samples.shape[1] / heard.rate)
    loudest = max(spectrum[: at - 40].max(), spectrum[at + 40 :].max())
    return float(loudest / spectrum[at - 2 : at + 3].max())


@pytest.mark.parametrize("mode", ["mix", "multichannel"])
@pytest.mark.parametrize("isolated", [True, False])
async def test_a_listener_hears_the_tones_of_the_room(
    browser: Browser, server: ServerProcess, mode: str, isolated: bool
) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url, isolated=isolated) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode=mode, mix=SIDES)
        await page.settled(hears(TONES))
        await page.until("() => listener.statistics.latencyMs > 0")
        told = await page.statistics()
        assert 0 < told["bufferMs"] < 200
        assert told["bufferMs"] < told["latencyMs"] < 1000
        levels = await page.run("() => Array.from(listener.levels().channels.peak.slice(0, 3))")
        assert levels[:2] == pytest.approx([-12, -12], abs=0.5)


async def test_over_plain_http_from_another_host_the_server_mix_plays(
    browser: Browser, server: ServerProcess
) -> None:
    url = f"http://relay.test:{urlsplit(server.url).port}"
    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode="multichannel", mix=SIDES)
        # Nothing but the tone, or the buffers would not adjoin.
        await page.settled(lambda heard: hears(TONES)(heard) and beside(heard, TONES[0]) < 1e-3)
        told = await page.run("() => ({ mode: listener.mode, ...listener.capabilities })")
        assert (told["mode"], told["worklet"]) == ("mix", False)
        assert told["fallback"] == "buffer-sources"
        assert told["missing"] == ["secure_context", "audio_worklet"]
        refusal = await page.run("() => listener.setMode('multichannel').catch((e) => e.code)")
        assert refusal == "not_supported"


@pytest.mark.parametrize("way", ["shared memory", "message port", "plain http"])
async def test_sound_returns_after_the_network_was_cut(
    browser: Browser, server: ServerProcess, way: str
) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        severable_url(server.url) as (link, local),
    ):
        url = local.replace("127.0.0.1", "relay.test") if way == "plain http" else local
        async with client_page(browser, url, isolated=way != "message port") as page:
            await page.listen(room.code, ROOM_PASSWORD, mode="multichannel", mix=SIDES)
            assert await page.run("() => listener.capabilities.worklet") == (way != "plain http")
            await page.settled(hears(TONES))
            await check_returns(page, lambda: cut(link))


async def cut(link: Link) -> None:
    link.cut()
    await asyncio.sleep(5)  # what the outage lasts, not a wait
    link.mend()


async def check_returns(page: ClientPage, disturb: Callable[[], Awaitable[None]]) -> None:
    """Sound returns by itself after something has happened, and the delay with it."""
    await page.until("() => listener.statistics.latencyMs > 0")
    before = await page.statistics()
    await disturb()
    await page.until(
        "(n) => listener.state === 'live' && listener.statistics.reconnects > n",
        before["reconnects"],
    )
    await page.settled(hears(TONES))
    assert "reconnecting" in await page.run("() => states")
    await check_delay_is_back(page, before)


async def check_delay_is_back(page: ClientPage, before: dict[str, Any]) -> None:
    """The delay is at its target again, and that is about what it was."""
    # What came late when it returned is forgotten after half a minute.
    await page.until(
        """(before) => {
            const { bufferMs, targetMs, latencyMs, quality } = listener.statistics;
            return Math.abs(bufferMs - targetMs) < 20 && quality !== 'unknown'
                && targetMs < before.targetMs + 50 && latencyMs < before.latencyMs + 80;
        }""",
        before,
        timeout_s=45,
    )


async def test_sound_returns_after_the_server_was_restarted(browser: Browser) -> None:
    async with (
        restartable() as server,
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode="mix", mix=SIDES)
        await page.settled(hears(TONES))
        await check_returns(page, server.restart)


async def test_sound_returns_with_the_source(browser: Browser, server: ServerProcess) -> None:
    async with live_room(server.url) as room, client_page(browser, server.url) as page:
        await page.begin(room.code, ROOM_PASSWORD, mode="multichannel", mix=SIDES)
        await page.until("() => listener.state === 'waiting'")
        async with playing(room, TONES, killed=True):
            await page.settled(hears(TONES))
            await page.until("() => listener.statistics.latencyMs > 0")
            before = await page.statistics()
        await page.until("() => listener.state === 'suspended'")
        async with playing(room, list(reversed(TONES))):
            await page.settled(hears(list(reversed(TONES))))
            await check_delay_is_back(page, before)
        told = await page.statistics()
        assert told["reconnects"] == 0
        assert await page.run("() => states.includes('reconnecting')") is False


async def test_after_the_browser_suspended_the_sound_it_is_live_at_once(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode="multichannel", mix=SIDES)
        await page.settled(hears(TONES))
        await page.run("() => listener.audioContext.suspend()")
        await page.until("() => listener.state === 'buffering'")
        await page.statistics()  # a second passes, and nobody plays what comes
        await page.run("() => listener.audioContext.resume()")
        await page.settled(hears(TONES))
        await page.until("() => listener.statistics.bufferMs < listener.statistics.targetMs + 60")


async def test_a_worker_that_does_not_load_is_told(browser: Browser, server: ServerProcess) -> None:
    async with live_room(server.url) as room, client_page(browser, server.url) as page:
        await page.page.route("**/session-worker.js", lambda route: route.abort())
        await page.start(room.code, ROOM_PASSWORD)
        await page.until("() => window.refused !== undefined")
        told = await page.run("() => [refused.code, listener.state]")
        assert told == ["worker_failed", "closed"]
        page.problems.clear()  # the browser complains about what the test kept from it


async def test_a_worklet_that_does_not_load_is_told(
    browser: Browser, server: ServerProcess
) -> None:
    async with live_room(server.url) as room, client_page(browser, server.url) as page:
        # Tests can't come between the browser and a worklet's modules.
        await page.run(
            "() => { AudioWorklet.prototype.addModule = () => Promise.reject(new Error('no')); }"
        )
        with pytest.raises(PlaywrightError, match="the audio worklet did not load"):
            await page.begin(room.code, ROOM_PASSWORD)
        assert await page.run("() => listener.state") == "idle"


async def test_the_page_of_the_documentation_plays(browser: Browser, server: ServerProcess) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url) as page,
    ):
        example = (DOCS / "examples" / "listen.html").read_text()
        # Its script stands in it; pages of this server may not have that.
        await page.page.route(
            "**/example", lambda route: route.fulfill(body=example, content_type="text/html")
        )
        await page.page.goto(server.url + "/example")
        await page.page.fill("#code", room.code)
        await page.page.fill("#password", ROOM_PASSWORD)
        await page.page.click("#play")
        await page.until("() => document.getElementById('state').value === 'live'")


async def test_a_token_is_asked_for_again_while_nobody_can_say(
    browser: Browser, server: ServerProcess
) -> None:
    troubles = ["busy", "unreachable"]

    async def join(route: Route) -> None:
        match troubles.pop(0) if troubles else None:
            case "busy":
                problem = {"code": "database_away", "detail": "in a while"}
                await route.fulfill(status=503, headers={"Retry-After": "1"}, json=problem)
            case "unreachable":
                await route.abort()
            case None:
                await route.continue_()

    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode="multichannel", mix=SIDES)
        await page.page.route("**/auth/room/join", join)
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            token = (await api.login())["accessToken"]
            path = f"/api/broadcaster/rooms/{room.code}/password"
            change = {"password": ROOM_PASSWORD, "dropListeners": True}
            assert (await api.call("POST", path, token=token, json=change)).status == 200
        await page.until("() => errors.length >= 3 && listener.state === 'live'")
        await page.settled(hears(TONES))
        assert (await page.run("() => errors"))[1:3] == ["database_away", "unreachable"]
        page.problems.clear()  # the browser complains about what the test answered


async def test_a_mode_that_is_chosen_while_it_registers_is_in_force(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url) as page,
    ):
        # The server has answered, and the page does not know it yet.
        await page.run(
            """() => {
                window.Worker = class extends Worker {
                    set onmessage(hear) {
                        super.onmessage = (event) => {
                            if (event.data.type === 'registered') listener.setMode('multichannel');
                            hear(event);
                        };
                    }
                };
            }"""
        )
        await page.listen(room.code, ROOM_PASSWORD, mode="mix", mix=SIDES)
        await page.until("() => listener.levels().channels.peak[1] > -20")
        assert await page.run("() => listener.mode") == "multichannel"
        await page.settled(hears(TONES))


async def test_a_mix_that_changes_before_it_is_registered_is_sent_then(
    browser: Browser, server: ServerProcess
) -> None:
    async with client_page(browser, server.url) as page:
        sent = await page.run(
            """async () => {
                const { MixState } = await import('/static/client/mix-state.js');
                const sent = [];
                const mix = new MixState({}, (change) => sent.push(change), () => {});
                mix.registered();
                mix.lost();
                mix.change({ master: 0.5 });
                mix.flush();
                mix.change({ pans: [1] });
                mix.flush();
                sent.push('registered');
                mix.registered();
                return sent;
            }"""
        )
        assert sent == ["registered", {"master": 0.5, "pans": [1]}]


async def test_levels_of_the_server_end_with_the_connection(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        severable_url(server.url) as (link, url),
        client_page(browser, url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD, mode="mix")
        await page.until("() => listener.levels().channels.peak[0] > -20")
        link.cut()
        await page.until("() => Number.isNaN(listener.levels().channels.peak[0])")
        link.mend()
        await page.until("() => listener.levels().channels.peak[0] > -20")


async def test_who_is_stopped_while_it_starts_stays_stopped(
    browser: Browser, server: ServerProcess
) -> None:
    async with live_room(server.url) as room, client_page(browser, server.url) as page:
        await page.begin(room.code, ROOM_PASSWORD)
        told = await page.run(
            """async () => {
                await listener.stop();
                const started = listener.start();
                await listener.stop();
                await started;
                return [listener.state, listener.audioContext];
            }"""
        )
        assert told == ["idle", None]


async def test_who_is_kicked_is_told_and_does_not_return(
    browser: Browser, server: ServerProcess
) -> None:
    async with (
        room_of_tones(server.url, TONES) as room,
        client_page(browser, server.url) as page,
    ):
        await page.listen(room.code, ROOM_PASSWORD)
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            token = (await api.login())["accessToken"]
            path = f"/api/broadcaster/rooms/{room.code}"
            answer = await api.call("GET", f"{path}/participants?live=true", token=token)
            (listener,) = [p for p in answer.body["participants"] if p["role"] == "listener"]
            whom = {"participantId": listener["participantId"]}
            assert (await api.call("POST", f"{path}/kick", token=token, json=whom)).status == 200
        await page.until("() => window.refused !== undefined")
        assert await page.run("() => [refused.code, listener.state]") == ["kicked", "closed"]


async def test_a_preset_that_is_refused_is_refused_at_once(
    browser: Browser, server: ServerProcess
) -> None:
    async with live_room(server.url) as room, client_page(browser, server.url) as page:
        await page.begin(room.code, ROOM_PASSWORD)
        await page.until("() => listener.state === 'waiting'")
        refusal = await page.run("() => listener.savePreset('').catch((error) => error.code)")
        assert refusal == "invalid_message"
        # It was no mix's refusal: nobody is told of it besides whoever asked.
        assert await page.run("() => errors") == []
        told = await page.run(
            """async () => {
                const { Presets } = await import('/static/client/presets.js');
                const presets = new Presets(() => {
                    queueMicrotask(() => presets.heard({ type: 'error', code: 'internal' }));
                });
                return presets.ask({ type: 'listPresets' }, 'presets').catch((e) => e.code);
            }"""
        )
        assert told == "internal"
