"""What becomes of kept results in the documents: pictures and guidance, of made-up results."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import columns, documents, guidance, plots, report
from benchmarks.capacity import STREAMS, CapacityResult
from benchmarks.listeners import STREAMS as RAMPED
from benchmarks.listeners import ListenersResult
from benchmarks.ramp import Ramps, Step
from benchmarks.workload import Workload

SVG = "{http://www.w3.org/2000/svg}"


def step(subject: str, listeners: int, *, number: int = 0, p99_ms: float = 20.0) -> Step:
    """A step in which all frames came."""
    due = listeners * 200
    return Step(
        subject,
        number,
        listeners,
        due,
        150.0,
        frames=due,
        fewest=200,
        p50_ms=p99_ms / 2,
        p99_ms=p99_ms,
        max_ms=p99_ms * 2,
        server=listeners * 1e-4,
        client=0.2,
        others=0.1,
        resident=40_000_000 + listeners * 2000,
        tcp_buffers=listeners * 4000,
    )


def ramps() -> dict[str, Any]:
    """Three ramps of the server and one of a peer, as they are kept."""
    steps = [
        *(step("server", 1000, number=n, p99_ms=p99) for n, p99 in enumerate((20.0, 90.0, 30.0))),
        step("server", 2000, number=0, p99_ms=400.0),
        step("server", 2000, number=0, p99_ms=110.0),  # tried again
        step("server", 2000, number=1, p99_ms=120.0),
        step("server", 2000, number=2, p99_ms=300.0),
        step("server", 4000, number=0, p99_ms=500.0),
        replace(step("server", 4000, number=1), frames=0),
        step("server-no-realtime", 1000),
        step("server-no-realtime", 2000, p99_ms=300.0),
        step("ws", 1000, p99_ms=60.0),
        step("ws", 2000, p99_ms=3000.0),
    ]
    result = ListenersResult(RAMPED["stereo"], 4.0, Ramps(steps)).as_json()
    kept = json.loads(json.dumps(result))
    assert isinstance(kept, dict)
    return kept


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder with the documents that results are put into."""
    for name in ("README.md", "docs/benchmarks.md", "docs/capacity.md"):
        page = tmp_path / name
        page.parent.mkdir(exist_ok=True)
        page.write_text("<!-- measured:begin -->\n<!-- measured:end -->\n")
    return tmp_path


def test_a_point_is_the_median_of_ramps_and_a_step_counts_as_it_was_at_the_end() -> None:
    one, two, four = plots.curve(ramps(), "server")
    assert (one.listeners, one.kept_up, one.p99_ms) == (1000, True, 30.0)
    assert (two.listeners, two.kept_up, two.p99_ms) == (2000, True, 120.0)
    assert (four.listeners, four.kept_up, four.p99_ms) == (4000, False, 500.0)
    assert one.server == pytest.approx(0.1)
    assert one.resident_mb == pytest.approx(42.0)
    assert one.tcp_mb == pytest.approx(4.0)
    assert [p.kept_up for p in plots.curve(ramps(), "ws")] == [True, False]


def test_the_same_results_are_drawn_the_same_and_small() -> None:
    picture = plots.against_listeners(ramps())
    assert picture == plots.against_listeners(ramps())
    assert len(picture) < 100_000
    texts = {"".join(e.itertext()).strip() for e in ET.fromstring(picture).iter(f"{SVG}text")}
    assert {panel.title for panel in plots.PANELS} <= texts
    assert {"the whole roomserver", "ws on Node", "in time: 150 ms"} <= texts
    assert {"1,000", "2,000"} <= texts
    assert re.search(r"\b20\d\d-\d\d-\d\d", picture) is None, "it says when it was drawn"


def test_results_of_ramps_have_a_picture_each_and_lines_in_the_documents(pages: Path) -> None:
    kept = report.save([ramps(), ramps() | {"stream": "voice"}, ramps()], pages / "result.json")
    images = [f"listeners-{name}.svg" for name in ("stereo", "voice", "stereo-2")]
    changed = documents.update([kept], pages)
    assert {pages / "docs" / "images" / name for name in images} <= set(changed)
    text = (pages / "docs" / "benchmarks.md").read_text()
    assert [text.count(f"](images/{name})") for name in images] == [1, 1, 1]
    assert (
        "- **2,000 listeners** of one relay thread get every frame (median of 3 ramps of each): "
        "3872-byte frames every 20 ms (48 kHz, 2 ch, pcm_s16le), 99 % within 150 ms; without "
        "SCHED_FIFO, as peers run, 1,000; the best peer, `ws` on Node, serves 1,000; without "
        "SCHED_FIFO it is **1.0 × as many** (a ramp goes up by 20 %)."
    ) in (pages / "README.md").read_text()
    assert "a ramp goes up by 20 %, and a limit may be higher by that" in text
    assert documents.update([kept], pages) == []


def test_peers_that_serve_as_many_are_named_alike(pages: Path) -> None:
    result = ramps()
    [peer] = [row for row in result["summary"] if row["subject"] == "ws"]
    result["summary"].append(peer | {"subject": "bun"})
    documents.update([report.save([result], pages / "result.json")], pages)
    told = "the best peers, `ws` on Node and Bun (uWebSockets), serve 1,000;"
    assert told in (pages / "README.md").read_text()


def test_results_stand_in_the_order_of_the_layouts_and_those_with_most_subjects_first(
    pages: Path,
) -> None:
    many = ramps()
    few = many | {"summary": many["summary"][:1], "stream": "voice"}
    capacity = many | {"scenario": "capacity", "summary": []}
    files = [
        report.save([result], pages / f"{name}.json")
        for name, result in (("capacity", capacity), ("few", few), ("many", many))
    ]
    documents.update(files, pages)
    text = (pages / "docs" / "benchmarks.md").read_text()
    assert text.index("many.json") < text.index("few.json") < text.index("capacity.json")


def test_a_server_that_was_not_ramped_to_its_limit_serves_at_least_so_many_times_as_many(
    pages: Path,
) -> None:
    result = ramps()
    [own] = [row for row in result["summary"] if row["subject"] == "server-no-realtime"]
    own["open"] = True
    documents.update([report.save([result], pages / "result.json")], pages)
    told = "SCHED_FIFO it is **at least 1.0 × as many** (a ramp goes up by 20 %)."
    assert told in (pages / "README.md").read_text()


def test_without_results_nothing_is_rewritten(pages: Path) -> None:
    with pytest.raises(ValueError, match="no results"):
        documents.update([], pages)


def test_a_peer_that_was_not_ramped_to_its_limit_has_no_ratio(pages: Path) -> None:
    steps = [step(name, 1000) for name in ("server", "ws")]
    kept = report.save(
        [ListenersResult(RAMPED["stereo"], 4.0, Ramps(steps)).as_json()], pages / "r.json"
    )
    documents.update([kept], pages)
    text = (pages / "README.md").read_text()
    assert "- **At least 1,000 listeners** of one relay thread" in text
    assert "the best peer, `ws` on Node, serves at least 1,000.\n" in text


def test_a_result_of_an_unknown_scenario_is_refused(pages: Path) -> None:
    kept = report.save([ramps() | {"scenario": "nothing"}], pages / "result.json")
    with pytest.raises(ValueError, match="nothing, which is unknown"):
        documents.update([kept], pages)


def test_what_a_core_serves_is_told_by_bitrate_and_interval(pages: Path) -> None:
    steps = [step("stereo", 9000, p99_ms=140.0), step("stereo-100", 9000, p99_ms=240.0)]
    steps = [replace(s, most_p99_ms=STREAMS[s.subject].most_p99_ms) for s in steps]
    kept = report.save([CapacityResult(4.0, Ramps(steps)).as_json()], pages / "result.json")
    documents.update([kept], pages)
    text = (pages / "docs" / "capacity.md").read_text()
    stereo = "| 48 kHz, 2 ch, pcm_s16le | 1,549"
    assert f"{stereo} | 20 ms | ≥ 9,000 | 0.90 | 10,000 | 70 / 140 | 0.20 | 0.10 |" in text
    assert f"{stereo} | 100 ms | ≥ 9,000 | 0.90 | 10,000 | 120 / 240 | 0.20 | 0.10 |" in text


def test_what_was_not_measured_is_a_dash_in_a_table() -> None:
    kept = json.loads('{"some": {"median": 1, "low": 0.5, "high": 2}, "none": null}')
    nothing = json.loads('{"median": NaN, "low": NaN, "high": NaN}')
    assert columns.spread("some", 1)(kept) == "1.0 (0.5–2.0)"
    assert columns.spread("none")(kept) == "–"
    assert columns.spread("some")({"some": nothing}) == "–"


def test_who_was_lost_is_told_beside_what_was_delivered() -> None:
    assert columns.delivered({"delivered": 1.0, "lost": 0}) == "100.0%"
    assert columns.delivered({"delivered": 0.75, "lost": 50}) == "75.0%, 50 lost"


@pytest.mark.parametrize("path", sorted(report.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_what_is_kept_can_still_be_shown(path: Path) -> None:
    whole = json.loads(path.read_text())
    text = documents.full(whole, path.name)
    for result in whole["results"]:
        assert result["title"] in text
        assert sum(table.row_count for table in report.tables(result)) >= len(result["summary"])


def test_bandwidth_counts_every_header() -> None:
    voice = Workload(channels=1, sample_rate=8000)
    # 352 bytes of message and 4 of WebSocket in one segment; five of them in two.
    assert guidance.wire_bits_per_s(voice, below_ip=False) == (356 + 52) * 8 * 50
    assert guidance.wire_bits_per_s(voice) == (356 + 52 + 38) * 8 * 50
    assert guidance.wire_bits_per_s(voice, grouped_ms=100) == (5 * 356 + 2 * 90) * 8 * 10
    assert guidance.websocket_bytes(125) == 127
    assert guidance.websocket_bytes(65_536) == 65_546
    assert guidance.wire_bits_per_s(Workload()) == (3876 + 3 * 90) * 8 * 50
