"""Chromium in a test: pages of a real server, and what is heard at a listener's output.

async with player(browser, server.url) as page:
    await page.listen(room, mode="multichannel")
    heard = await page.hear()
    assert heard.tone(0) == pytest.approx(440, abs=1)
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.async_api import Browser, ConsoleMessage, Page, Playwright, Request, Route

TIMEOUT_MS = 20_000
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What a test answers in the server's place would be of no known network, and kept from it.
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
    "--host-resolver-rules=MAP relay.test 127.0.0.1",
)
# Nobody is there to allow a microphone, nor is one.
FAKE_MEDIA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
# Else a page may not sound before somebody pressed something in it.
AUTOPLAY = "--autoplay-policy=no-user-gesture-required"
#: What the microphone of the tests' browser hears: left and right.
MICROPHONE_HZ = (500.0, 800.0)
# A page of the server's origin, with all its headers, on which nothing else runs.
BLANK = "/static/client/relay-client.d.ts"
MODULE = "/static/client/relay-client.js"
#: What tests run in a page, and where it finds them.
SCRIPTS = Path(__file__).parents[1] / "browser" / "scripts"
SCRIPTS_ROUTE = "/static/tests/"


async def launch(
    playwright: Playwright,
    microphone: Path | None = None,
    *,
    autoplay: bool = True,
    shared_tab: str | None = None,
) -> Browser:
    """Chromium. Raises if there is none.

    microphone: a WAV file that it hears, over and over.
    autoplay: whether pages may sound without a press, which browsers do not allow by themselves.
    shared_tab: title of the tab that is chosen when a page asks for one; what it plays is real, and
        so there is no microphone.
    """
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    assert executable is not None, "the tests of the pages need Debian's package chromium"
    flags = [*FLAGS, *([AUTOPLAY] if autoplay else [])]
    if shared_tab is None:
        flags += FAKE_MEDIA
    else:
        flags.append(f"--auto-select-tab-capture-source-by-title={shared_tab}")
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}")
    return await playwright.chromium.launch(
        executable_path=executable,
        args=flags,
        # Playwright mutes browsers without a window, and a tab that is muted shares silence.
        ignore_default_args=["--mute-audio"] if shared_tab is not None else None,
    )


def encoded(array: NDArray[Any]) -> str:
    """Bytes of an array on their way into a page (scripts/arrays.js)."""
    return base64.b64encode(array.tobytes()).decode()


def decoded(text: str) -> NDArray[np.float32]:
    """An array that comes out of a page."""
    return np.frombuffer(base64.b64decode(text), np.float32)


@dataclass(frozen=True)
class Heard:
    """A stretch of stereo sound, shape (2, samples)."""

    samples: NDArray[np.float32]
    rate: float

    def spectrum(self, side: int) -> NDArray[np.float64]:
        """Amplitude by frequency; a sine of amplitude 1 is 1."""
        window = np.hanning(self.samples.shape[1])
        spectrum = np.abs(np.fft.rfft(self.samples[side] * window))
        amplitudes: NDArray[np.float64] = spectrum * 2 / window.sum()
        return amplitudes

    def tone(self, side: int) -> float:
        """Frequency of the loudest tone in Hz, between the bins."""
        spectrum = np.log(self.spectrum(side) + 1e-12)
        peak = int(np.argmax(spectrum[1:-1])) + 1
        below, at, above = spectrum[peak - 1 : peak + 2]
        offset = 0.5 * (below - above) / (below - 2 * at + above)
        return float((peak + offset) * self.rate / self.samples.shape[1])

    def level(self, side: int, frequency: float) -> float:
        """Level of a sine of this frequency in dB; 0 is amplitude 1."""
        at = frequency * self.samples.shape[1] / self.rate
        near = self.spectrum(side)[max(0, round(at) - 2) : round(at) + 3]
        # The window spreads a sine over three bins; their energy does not depend on where it is.
        return float(10 * np.log10(np.sum(near**2) / 1.5 + 1e-20))

    @property
    def loudness(self) -> float:
        """RMS of both sides in dB."""
        return float(10 * np.log10(np.mean(self.samples.astype(np.float64) ** 2) + 1e-20))


class ClientPage:
    """A page that uses the client module; `window.client` is the module."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _console(self, message: ConsoleMessage) -> None:
        where = message.location["url"] if message.location else ""
        # The browser logs a connection that a test breaks, and that plain http isolates nothing;
        # the blank page has no icon.
        known = (
            "WebSocket connection" in message.text
            or "URL's origin was untrustworthy" in message.text
            or where.endswith("/favicon.ico")
        )
        if message.type in ("error", "warning") and not known:
            self.problems.append(f"{message.text} ({where})")

    async def run(self, script: str, argument: Any = None) -> Any:
        """Evaluates a function, an async one too, with its argument."""
        return await self.page.evaluate(script, argument)

    async def call(self, script: str, function: str, *arguments: Any) -> Any:
        """What a function of one of the tests' scripts returns."""
        return await self.page.evaluate(
            "async ([script, name, args]) => (await import(script))[name](...args)",
            [SCRIPTS_ROUTE + script, function, arguments],
        )

    async def until(self, condition: str, argument: Any = None, *, timeout_s: float = 20) -> None:
        """Waits until a function is true."""
        await self.page.wait_for_function(
            condition, arg=argument, timeout=timeout_s * 1000, polling=50
        )

    async def listen(self, room: str, password: str | None, **options: Any) -> None:
        """Joins with `window.listener`, starts it, and waits until it is live."""
        await self.begin(room, password, **options)
        await self.until("() => listener.state === 'live'")

    async def begin(self, room: str, password: str | None, **options: Any) -> None:
        """As `listen`, without waiting."""
        await self.start(room, password, **options)
        await self.put_on_ears()

    async def start(self, room: str, password: str | None, **options: Any) -> None:
        """As `begin`, where nothing is to be heard: it may fail at once."""
        await self.run(
            """async ([roomCode, password, options]) => {
                const join = () => client.joinRoom(location.origin, { roomCode, password });
                const joined = await join();
                window.listener = new client.Listener({ ...joined, rejoin: join, ...options });
                window.states = [];
                window.errors = [];
                listener.addEventListener('statechange', (e) => states.push(e.detail.state));
                listener.addEventListener('error', (e) => errors.push(e.detail.error.code));
                listener.addEventListener('closed', (e) => { window.refused = e.detail; });
                await listener.start();
            }""",
            [room, password, options],
        )

    async def put_on_ears(self, listener: str = "listener") -> None:
        """From now on `hear` hears this expression's listener, which has been started."""
        await self.page.route(f"**{SCRIPTS_ROUTE}*", _script)  # it may be a page of another kind
        await self.run(
            f"""() => {{
                window.listener = {listener};
                const context = listener.audioContext;
                const split = new ChannelSplitterNode(context, {{ numberOfOutputs: 2 }});
                listener.output.connect(split);
                window.analysers = [0, 1].map((side) => {{
                    const analyser = new AnalyserNode(context, {{ fftSize: 32768 }});
                    split.connect(analyser, side);
                    return analyser;
                }});
            }}"""
        )

    async def hear(self, seconds: float = 0.5) -> Heard:
        """What comes out of `window.listener` from now on, for so long (at most 0.6 s)."""
        texts, rate = await self.run(
            """async (seconds) => {
                const context = listener.audioContext;
                const end = context.currentTime + seconds;
                while (context.currentTime < end) await new Promise((go) => setTimeout(go, 20));
                const count = Math.floor(seconds * context.sampleRate);
                const { encode } = await import('/static/tests/arrays.js');
                const texts = analysers.map((analyser) => {
                    const samples = new Float32Array(analyser.fftSize);
                    analyser.getFloatTimeDomainData(samples);
                    return encode(samples.slice(-count));
                });
                return [texts, context.sampleRate];
            }""",
            seconds,
        )
        return Heard(np.stack([decoded(text) for text in texts]), rate)

    async def settled(self, wanted: Callable[[Heard], bool], *, timeout_s: float = 15) -> Heard:
        """Listens until what is heard is as wanted; fails with what was heard last."""
        for _ in range(int(timeout_s / 0.5)):
            heard = await self.hear()
            if wanted(heard):
                return heard
        raise AssertionError(
            f"heard {[heard.tone(side) for side in (0, 1)]} Hz, loudness {heard.loudness:.1f} dB"
        )

    async def statistics(self) -> dict[str, Any]:
        """The next ones that `window.listener` tells."""
        told: dict[str, Any] = await self.run(
            "() => new Promise((tell) => listener.addEventListener("
            "'statistics', (event) => tell(event.detail), { once: true }))"
        )
        return told


@asynccontextmanager
async def client_page(
    browser: Browser, url: str, *, isolated: bool = True
) -> AsyncIterator[ClientPage]:
    """A new page of the server at `url` with the module loaded; it must end without complaints.

    isolated: with the headers that allow shared memory, as the server sends them.
    """
    context = await browser.new_context(permissions=["microphone"])
    context.set_default_timeout(TIMEOUT_MS)
    try:
        page = await context.new_page()
        client = ClientPage(page)
        if not isolated:
            await page.route("**/*", _without_isolation)
        await page.route(f"**{SCRIPTS_ROUTE}*", _script)
        await page.goto(url + BLANK)
        assert await page.evaluate("crossOriginIsolated") == (isolated and "relay.test" not in url)
        await page.evaluate(f"import('{MODULE}').then((module) => {{ window.client = module; }})")
        yield client
        assert not client.problems, client.problems
    finally:
        await context.close()


async def _script(route: Route, request: Request) -> None:
    name = request.url.rpartition("/")[2]
    await route.fulfill(path=SCRIPTS / name, content_type="text/javascript")


async def _without_isolation(route: Route, request: Request) -> None:
    response = await route.fetch()
    headers = {
        name: value
        for name, value in response.headers.items()
        if not name.startswith("cross-origin-")
    }
    await route.fulfill(response=response, headers=headers)
