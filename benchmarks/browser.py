"""The scenario `browser`: 64 channels in a page, bare and with the mixer of the listener's page."""

from __future__ import annotations

import math
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from playwright.sync_api import CDPSession, Page, ViewportSize, sync_playwright

from benchmarks import machine
from benchmarks.child import ChildError
from benchmarks.scenarios import SPARE_S, Progress, Spread
from benchmarks.subjects import PASSWORD, RunningServer, post, running_server
from benchmarks.workload import Workload

SUBJECTS: Final = ("bare", "bare-mix", "page", "page-moved", "page-mix")
"""A page with the client alone, or the listener's page; mixed by itself or by the server (`-mix`);
`-moved`: while somebody moves a fader."""
WORKLOAD: Final = Workload(1, 64, 48_000, "pcm_s16le", 20)
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
)
SIZE: Final = ViewportSize(width=1280, height=900)
BLANK: Final = "/static/client/relay-client.d.ts"
"""A page of the server's origin on which nothing else runs."""
SETTLE_S: Final = 5.0
MOVES_PER_S: Final = 60
MOVED_PX: Final = 60
LISTEN: Final = """async ([roomCode, password, mode]) => {
    const { Listener, joinRoom } = await import('/static/client/relay-client.js');
    const joined = await joinRoom(location.origin, { roomCode, password });
    window.listening = new Listener({ ...joined, mode });
    // As a page with meters does: levels are asked for with every picture.
    const draw = () => { listening.levels(); requestAnimationFrame(draw); };
    draw();
    await listening.start();
}"""
WATCH: Final = """() => {
    window.watched = { pictures: 0, longestMs: 0 };
    const count = () => { watched.pictures += 1; requestAnimationFrame(count); };
    requestAnimationFrame(count);
    new PerformanceObserver((found) => {
        for (const { duration } of found.getEntries()) {
            watched.longestMs = Math.max(watched.longestMs, duration);
        }
    }).observe({ type: 'longtask' });
}"""
"""Counts pictures, and the longest of the tasks that take more than 50 ms."""


@dataclass(frozen=True, slots=True)
class BrowserSample:
    """What a listener in a browser took and missed in an interval."""

    subject: str
    seconds: float
    main_thread_s: float
    script_s: float
    style_s: float
    layout_s: float
    browser_cpu_s: float
    pictures: int
    longest_ms: float
    """Of the page's tasks; 0 when none took 50 ms."""
    moves: int
    frames: int
    missing: int
    underruns: int
    concealed: int
    latency_ms: float
    buffer_ms: float


@dataclass(frozen=True, slots=True)
class BrowserResult:
    """Listeners in a browser, by the page and by who mixes."""

    workload: Workload
    version: str
    samples: list[BrowserSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row for each subject; medians and ranges of the rounds."""

        def row(subject: str, samples: Sequence[BrowserSample]) -> dict[str, Any]:
            return {
                "subject": subject,
                "main": asdict(Spread.of([s.main_thread_s / s.seconds for s in samples])),
                "cpu": asdict(Spread.of([s.browser_cpu_s / s.seconds for s in samples])),
                "pictures": asdict(Spread.of([s.pictures / s.seconds for s in samples])),
                "longest_ms": max(s.longest_ms for s in samples),
                "latency_ms": asdict(Spread.of([s.latency_ms for s in samples])),
                "missing": sum(s.missing for s in samples),
                "underruns": sum(s.underruns for s in samples),
                "seconds": statistics.fmean(s.seconds for s in samples),
            }

        subjects = dict.fromkeys(s.subject for s in self.samples)
        return [row(name, [s for s in self.samples if s.subject == name]) for name in subjects]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        return {
            "scenario": "browser",
            "title": f"{self.workload.channels} channels in Chromium {self.version}",
            "rounds": len(self.samples) // max(1, len(self.rows())),
            "workload": asdict(self.workload) | {"message_bytes": self.workload.message_bytes},
            "summary": self.rows(),
            "samples": [asdict(s) for s in self.samples],
        }


def browser(
    subjects: Sequence[str],
    workload: Workload = WORKLOAD,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> BrowserResult:
    """Lets pages hear the stream in turns.

    Raises ChildError when there is no browser.
    """
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise ChildError("there is no Chromium here (Debian's package chromium)")
    steps = rounds * len(subjects)
    max_seconds = round(2 * SPARE_S + steps * (seconds + 4 * SETTLE_S))
    with running_server(workload, max_seconds) as running, ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        others = machine.descendants(os.getpid())
        chromium = stack.enter_context(
            playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        )
        result = BrowserResult(workload, chromium.version)
        invite = _invite(running)
        for number in range(steps):
            subject = subjects[number % len(subjects)]
            progress(subject, number / steps)
            # Nothing is kept from one page to the next: the mode, the mix.
            with chromium.new_context(viewport=SIZE) as context:
                page = context.new_page()
                _open(page, running, subject, invite)
                result.samples.append(_measure(page, subject, seconds, others))
    progress("done", 1.0)
    return result


def _invite(running: RunningServer) -> str:
    """The address of the listener's page with which nobody is asked for the password."""
    path = f"/api/broadcaster/rooms/{running.room['roomId']}/invites"
    answer = post(running.url, path, {}, {"Authorization": f"Bearer {running.access}"})
    return str(answer["link"])


def _open(page: Page, running: RunningServer, subject: str, invite: str) -> None:
    """Until it is live and everything is drawn."""
    mode = "mix" if subject.endswith("-mix") else "multichannel"
    if subject.startswith("bare"):
        page.goto(running.url.rstrip("/") + BLANK)
        page.evaluate(LISTEN, [running.room["roomCode"], PASSWORD, mode])
    else:
        page.goto(invite)
        page.get_by_role("button", name="Play", exact=True).click()
        page.locator(f'label:has(input[name="mode"][value="{mode}"])').click()
        page.locator(".strips .strip").last.wait_for()
    page.wait_for_function("() => listening?.state === 'live'", timeout=30_000)
    page.wait_for_timeout(SETTLE_S * 1000)
    page.evaluate(WATCH)


def _measure(page: Page, subject: str, seconds: float, others: Sequence[int]) -> BrowserSample:
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    processes = [pid for pid in machine.descendants(os.getpid()) if pid not in others]
    before, watched = _figures(page), page.evaluate("watched")
    busy, cpu = _performance(session), machine.cpu_seconds_of_live_threads(processes)
    began = time.monotonic()
    if subject.endswith("-moved"):
        moves = _move_fader(page, session, began + seconds)
    else:
        moves = 0
        page.wait_for_timeout(seconds * 1000)
    after, watched_after = _figures(page), page.evaluate("watched")
    elapsed = time.monotonic() - began
    busy_after = _performance(session)
    took = {name: busy_after[name] - busy[name] for name in busy}
    return BrowserSample(
        subject=subject,
        seconds=elapsed,
        main_thread_s=took["TaskDuration"],
        script_s=took["ScriptDuration"],
        style_s=took["RecalcStyleDuration"],
        layout_s=took["LayoutDuration"],
        browser_cpu_s=machine.cpu_seconds_of_live_threads(processes) - cpu,
        pictures=watched_after["pictures"] - watched["pictures"],
        longest_ms=watched_after["longestMs"],
        moves=moves,
        frames=after["framesReceived"] - before["framesReceived"],
        missing=after["framesMissing"] - before["framesMissing"],
        underruns=after["underruns"] - before["underruns"],
        concealed=after["concealedSamples"] - before["concealedSamples"],
        latency_ms=after["latencyMs"],
        buffer_ms=after["bufferMs"],
    )


def _move_fader(page: Page, session: CDPSession, until: float) -> int:
    """Drags the first fader up and down, as often as a picture is drawn; how often it moved."""
    box = page.locator("relay-fader").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def mouse(kind: str, by: float = 0) -> None:
        # Playwright's own mouse runs scripts in the page at every move of a drag.
        where = {"type": kind, "x": x, "y": y + by, "button": "left", "buttons": 1, "clickCount": 1}
        session.send("Input.dispatchMouseEvent", where)

    mouse("mousePressed")
    moves = 0
    began = time.monotonic()
    while time.monotonic() < until:
        moves += 1
        mouse("mouseMoved", MOVED_PX * math.sin(2 * math.pi * moves / MOVES_PER_S))
        page.wait_for_timeout(max(0.0, began + moves / MOVES_PER_S - time.monotonic()) * 1000)
    mouse("mouseReleased")
    return moves


def _figures(page: Page) -> dict[str, Any]:
    """The next statistics that the listener tells."""
    told: dict[str, Any] = page.evaluate(
        "() => new Promise((tell) => listening.addEventListener("
        "'statistics', (event) => tell(event.detail), { once: true }))"
    )
    return told


def _performance(session: CDPSession) -> dict[str, float]:
    """Seconds that the page's main thread was busy so far, and with what."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    wanted = ("TaskDuration", "ScriptDuration", "RecalcStyleDuration", "LayoutDuration")
    return {m["name"]: float(m["value"]) for m in metrics if m["name"] in wanted}
