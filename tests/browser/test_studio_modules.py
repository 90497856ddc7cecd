"""What the pages of broadcasters make of numbers and texts, module by module, in a browser."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from support.browser import BLANK
from support.pages import opened, visitor
from support.server import ServerProcess

STUDIO, DASHBOARD = "/static/pages/studio/", "/static/pages/dashboard/"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(browser: Browser, server: ServerProcess) -> AsyncIterator[Page]:
    """A page of the server's origin on which nothing else runs."""
    blank_url = server.url + BLANK  # which names no icon, so that the browser asks in vain
    async with visitor(browser) as context, opened(context, blank_url, refusals=[404]) as blank:
        yield blank


async def result(page: Page, path: str, function: str, *arguments: Any) -> Any:
    """What a function of a module answers."""
    return await page.evaluate(
        "async ([path, name, given]) => (await import(path))[name](...given)",
        [path, function, list(arguments)],
    )


@pytest.mark.parametrize(
    ("cell", "kept"),
    [
        ("plain", "plain"),
        ("with, comma", "with, comma"),
        ('says "no"', 'says "no"'),
        ("two\nlines", "two\nlines"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("  =1", "'  =1"),
        ("|cmd", "'|cmd"),
        ("low-cut; -3 dB", "low-cut;' -3 dB"),
        ("low-cut, -3 dB", "low-cut, -3 dB"),
        ("％=1", "％=1"),
        (-1.5, "-1.5"),
        (None, ""),
        (False, "false"),
    ],
)
async def test_csv_is_read_as_it_was_and_runs_nothing(page: Page, cell: Any, kept: str) -> None:
    text = await result(page, STUDIO + "csv.js", "csv", ["a", "b"], [[cell, "end"]])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a", "b"], [kept, "end"]]


@pytest.mark.parametrize("separator", [";", "\t"])
async def test_csv_runs_nothing_either_where_other_things_separate(
    page: Page, separator: str
) -> None:
    cells = [
        f"a{separator}=1+1",
        f"a{separator}  +1",
        f'a{separator}"=1"',
        f"a{separator}{separator}@SUM(A1)",
        "two\n-lines",
        "two\r\n=lines",
        "\n=1",
    ]
    text = await result(page, STUDIO + "csv.js", "csv", ["a", "b"], [["x", each] for each in cells])
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    assert len(rows) > len(cells) + 1  # they did fall apart
    begins = {cell.lstrip(' "\r\n\t')[:1] for row in rows for cell in row}
    assert not begins & set("=+-@"), rows


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("", None),
        ("1", [0]),
        ("1, 3-4", [0, 2, 3]),
        ("4,2,2", [1, 3]),
        ("3-1", None),
        ("0", None),
        ("63-9999999999", [62, 63]),
        ("x", None),
    ],
)
async def test_channels_are_chosen_as_people_write_them(
    page: Page, text: str, channels: list[int] | None
) -> None:
    assert await result(page, STUDIO + "inputs.js", "readChannels", text) == channels


def status(**changes: Any) -> dict[str, Any]:
    """A `sourceStatus` of one channel with which nothing is wrong."""
    return {
        "fillMs": 60,
        "targetMs": 60,
        "jitterMs": 2,
        "driftPpm": 20,
        "received": [48_000],
        "late": [0],
        "duplicate": [0],
        "lost": [0],
        "concealed": [0],
        **changes,
    }


@pytest.mark.parametrize(
    ("now", "before", "level", "causes"),
    [
        (None, None, "unknown", []),
        (status(), None, "excellent", []),
        (status(jitterMs=10), None, "good", []),
        (status(jitterMs=80), None, "fair", ["jitter"]),
        (status(fillMs=5), None, "fair", ["empty"]),
        (status(driftPpm=-900), None, "fair", ["drift"]),
        (status(concealed=[100]), None, "fair", ["loss"]),
        (status(concealed=[4800]), None, "poor", ["loss"]),
        # What was lost long ago is not held against what comes now.
        (status(received=[96_000], concealed=[4800]), status(concealed=[4800]), "excellent", []),
        (status(), status(), "poor", ["silent"]),
        # Another order of the channels is another stream, which is counted from 0.
        (status(), status(received=[480_000]), "excellent", []),
        (status(concealed=[100]), status(received=[0], late=[96_000]), "fair", ["loss"]),
    ],
)
async def test_the_health_of_an_upload_is_told_with_its_causes(
    page: Page,
    now: dict[str, Any] | None,
    before: dict[str, Any] | None,
    level: str,
    causes: list[str],
) -> None:
    told = await result(page, STUDIO + "health.js", "uploadHealth", now, before)
    assert (told["level"], told["causes"]) == (level, causes)


@pytest.mark.parametrize(
    ("report", "before", "level"),
    [
        (None, None, "unknown"),
        ({"latencyMs": 100, "bufferMs": 60, "jitterMs": 2, "lost": 0}, None, "excellent"),
        ({"latencyMs": 200, "bufferMs": 60, "jitterMs": 2, "lost": 0}, None, "good"),
        ({"latencyMs": 400, "bufferMs": 60, "jitterMs": 2, "lost": 0}, None, "fair"),
        ({"latencyMs": 700, "bufferMs": 60, "jitterMs": 2, "lost": 0}, None, "poor"),
        # Players count from their start.
        ({"latencyMs": 100, "bufferMs": 60, "jitterMs": 2, "lost": 500}, None, "excellent"),
        ({"latencyMs": 100, "bufferMs": 60, "jitterMs": 2, "lost": 12}, 0, "poor"),
        ({"latencyMs": 100, "bufferMs": 60, "jitterMs": 2, "lost": 2}, 0, "fair"),
    ],
)
async def test_how_a_listener_hears_is_told_of_what_its_player_says(
    page: Page,
    report: dict[str, Any] | None,
    before: int | None,
    level: str,
) -> None:
    earlier = None if before is None or report is None else report | {"lost": before, "at": 0}
    now = None if report is None else report | {"at": 2_000_000}
    assert await result(page, STUDIO + "health.js", "listenerQuality", now, earlier) == level


async def test_a_change_that_was_refused_does_not_stand_before_what_the_server_has(
    page: Page,
) -> None:
    told = await page.evaluate(
        """async (path) => {
            const { RemoteMix } = await import(path);
            let refuse;
            const ask = (method) => method === 'GET'
                ? Promise.resolve({ mix: { master: 0.5 } })
                : new Promise((_, no) => { refuse = no; });
            const remote = new RemoteMix(ask, 1);
            await remote.load();
            const refused = remote.change({ master: 2 }).catch((error) => error.message);
            await remote.change({ master: 3 }); // while the first one is under way
            refuse(new Error('away'));
            const why = await refused;
            const now = performance.now.bind(performance);
            performance.now = () => now() + 60_000; // nobody's hand is on it any more
            await remote.load();
            performance.now = now;
            return [why, remote.mix.master];
        }""",
        STUDIO + "mix.js",
    )
    assert told == ["away", 0.5]


def stay(joined: int, left: int | None, role: str = "listener") -> dict[str, Any]:
    """Times in s."""
    return {
        "role": role,
        "joinedAt": joined * 1_000_000,
        "leftAt": None if left is None else left * 1_000_000,
        "durationS": None if left is None else left - joined,
    }


@pytest.mark.parametrize(
    ("stays", "times", "counts"),
    [
        ([], [], []),
        ([stay(1, 3)], [1, 3], [1, 0]),
        ([stay(1, 3), stay(2, None), stay(3, 4)], [1, 2, 4], [1, 2, 1]),
        ([stay(1, 9, "broadcaster")], [], []),
    ],
)
async def test_listeners_over_time_are_counted_from_stays(
    page: Page,
    stays: list[dict[str, Any]],
    times: list[int],
    counts: list[int],
) -> None:
    found = await result(page, DASHBOARD + "occupancy.js", "occupancy", stays)
    assert found == {"times": times, "counts": counts}


async def test_days_without_anybody_are_in_the_chart(page: Page) -> None:
    day = {"date": "2026-03-01", "peakListeners": 3, "totalListenMinutes": 4.5}
    module = DASHBOARD + "occupancy.js"
    days = await result(page, module, "everyDay", [day], "2026-02-28", "2026-03-02")
    assert [(each["date"], each["peakListeners"]) for each in days] == [
        ("2026-02-28", 0),
        ("2026-03-01", 3),
        ("2026-03-02", 0),
    ]
