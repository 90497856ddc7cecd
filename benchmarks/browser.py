"""The scenario `browser`: 64 channels in one page of a browser, mixed there."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from playwright.sync_api import CDPSession, Page, sync_playwright

from benchmarks import machine
from benchmarks.child import ChildError
from benchmarks.scenarios import SPARE_S, Progress, Spread
from benchmarks.subjects import PASSWORD, RunningServer, running_server
from benchmarks.workload import Workload

MODES: Final = ("multichannel", "mix")
WORKLOAD: Final = Workload(1, 64, 48_000, "pcm_s16le", 20)
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
)
BLANK: Final = "/static/client/relay-client.d.ts"
"""A page of the server's origin on which nothing else runs."""
SETTLE_S: Final = 5.0
LISTEN: Final = """async ([roomCode, password, mode]) => {
    const { Listener, joinRoom } = await import('/static/client/relay-client.js');
    const joined = await joinRoom(location.origin, { roomCode, password });
    window.listener = new Listener({ ...joined, mode });
    // As a page with meters does: levels are asked for with every picture.
    const draw = () => { listener.levels(); requestAnimationFrame(draw); };
    draw();
    await listener.start();
}"""


@dataclass(frozen=True, slots=True)
class BrowserSample:
    """What a listener in a browser took and missed in an interval."""

    mode: str
    seconds: float
    main_thread_s: float
    browser_cpu_s: float
    frames: int
    missing: int
    underruns: int
    concealed: int
    latency_ms: float
    buffer_ms: float


@dataclass(frozen=True, slots=True)
class BrowserResult:
    """Listeners in a browser, by who mixes."""

    workload: Workload
    version: str
    samples: list[BrowserSample] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """The summary: one row for each mode; medians and ranges of the rounds."""

        def row(mode: str, samples: Sequence[BrowserSample]) -> dict[str, Any]:
            return {
                "mode": mode,
                "main": asdict(Spread.of([s.main_thread_s / s.seconds for s in samples])),
                "cpu": asdict(Spread.of([s.browser_cpu_s / s.seconds for s in samples])),
                "latency_ms": asdict(Spread.of([s.latency_ms for s in samples])),
                "missing": sum(s.missing for s in samples),
                "underruns": sum(s.underruns for s in samples),
                "seconds": statistics.fmean(s.seconds for s in samples),
            }

        modes = dict.fromkeys(s.mode for s in self.samples)
        return [row(mode, [s for s in self.samples if s.mode == mode]) for mode in modes]

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
    modes: Sequence[str],
    workload: Workload = WORKLOAD,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> BrowserResult:
    """Lets a page hear the stream, mixed here or by the server, in turns.

    Raises ChildError when there is no browser.
    """
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise ChildError("there is no chromium")
    steps = rounds * len(modes)
    max_seconds = round(2 * SPARE_S + steps * (seconds + 4 * SETTLE_S))
    with running_server(workload, max_seconds) as running, ExitStack() as stack:
        others = machine.descendants(os.getpid())
        chromium = stack.enter_context(
            stack.enter_context(sync_playwright()).chromium.launch(
                executable_path=executable, args=list(FLAGS)
            )
        )
        result = BrowserResult(workload, chromium.version)
        for number in range(steps):
            mode = modes[number % len(modes)]
            progress(mode, number / steps)
            page = chromium.new_page()
            result.samples.append(_measure(page, running, mode, seconds, others))
            page.close()
    progress("done", 1.0)
    return result


def _measure(
    page: Page, running: RunningServer, mode: str, seconds: float, others: Sequence[int]
) -> BrowserSample:
    page.goto(running.url.rstrip("/") + BLANK)
    page.evaluate(LISTEN, [running.room["roomCode"], PASSWORD, mode])
    page.wait_for_function("() => listener.state === 'live'", timeout=30_000)
    page.wait_for_timeout(SETTLE_S * 1000)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    processes = [pid for pid in machine.descendants(os.getpid()) if pid not in others]
    before = _figures(page)
    busy, cpu, began = _main_thread_s(session), machine.cpu_seconds(processes), time.monotonic()
    page.wait_for_timeout(seconds * 1000)
    after = _figures(page)
    elapsed = time.monotonic() - began
    return BrowserSample(
        mode,
        elapsed,
        _main_thread_s(session) - busy,
        machine.cpu_seconds(processes) - cpu,
        after["framesReceived"] - before["framesReceived"],
        after["framesMissing"] - before["framesMissing"],
        after["underruns"] - before["underruns"],
        after["concealedSamples"] - before["concealedSamples"],
        after["latencyMs"],
        after["bufferMs"],
    )


def _figures(page: Page) -> dict[str, Any]:
    """The next statistics that the listener tells."""
    told: dict[str, Any] = page.evaluate(
        "() => new Promise((tell) => listener.addEventListener("
        "'statistics', (event) => tell(event.detail), { once: true }))"
    )
    return told


def _main_thread_s(session: CDPSession) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))
