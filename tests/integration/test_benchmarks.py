"""The scenarios run, on a small scale: nothing is said about speed here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import (
    browser,
    capacity,
    columns,
    documents,
    guidance,
    joins,
    listeners,
    machine,
    mixes,
    outbox,
    overload,
    pacing,
    peers,
    ramp,
    reconnect,
    report,
    scenarios,
    scrape,
    soak,
    stalled,
    tls,
    unheard,
    versions,
)
from benchmarks.child import ROOT
from benchmarks.workload import Workload

LISTENERS = 20
SMALL = Workload(listeners=LISTENERS, channels=1, sample_rate=8000)


def quiet(what: str, done: float) -> None:
    assert 0 <= done <= 1
    assert what


def test_cpu_per_frame_of_every_subject_is_compared_with_the_floor() -> None:
    subjects = ["floor", "relay", "server"]
    result = scenarios.cpu(SMALL, subjects, rounds=1, seconds=1.0, progress=quiet)
    assert [s.subject for s in result.samples] == ["relay", "floor", "server"]
    assert [row.subject for row in result.rows()] == subjects
    for sample in result.samples:
        assert sample.joined.connections == LISTENERS
        assert sample.measured.lost == 0
        assert sample.measured.frames > LISTENERS
        assert sample.cpu_us_per_frame > 0
        assert 0 <= sample.measured.delay_ms.p50 < 1000
    for subject in subjects:
        ratio = result.ratio(subject)
        assert ratio is not None
        assert ratio.low <= ratio.median <= ratio.high


@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_sends_every_listener_every_frame(name: str) -> None:
    result = scenarios.cpu(SMALL, [name], rounds=1, seconds=3.0, progress=quiet, known=peers.PEERS)
    (sample,) = result.samples
    assert sample.joined.connections == LISTENERS
    assert (sample.measured.lost, sample.measured.missing) == (0, 0)
    # An interval begins and ends anywhere between two frames, and a busy machine is late.
    due = SMALL.frames_per_s * sample.measured.seconds
    assert abs(sample.measured.frames_fewest - due) < 0.2 * due
    # Where a server knows no frames, one may have begun before the interval.
    assert sample.measured.bytes > 0.95 * sample.measured.frames * SMALL.message_bytes
    assert 0 <= sample.measured.delay_ms.p50 < 1000
    found = versions.of(result.as_json())
    assert found
    assert all(number[0].isdigit() for number in found.values()), found


def test_ramps_of_several_subjects_tell_who_serves_most() -> None:
    stream = listeners.Stream("small", SMALL, 10_000.0)
    result = listeners.listeners(
        stream,
        ["group-floor", "relay", "picows"],
        rounds=1,
        seconds=0.5,
        progress=quiet,
        first=10,
        most=20,
        growth=2.0,
    )
    first = {s.subject: s for s in result.ramps.steps if s.listeners == 10}
    assert set(first) == {"group-floor", "relay", "picows"}
    floor = first["group-floor"]
    assert (floor.missing, floor.lost, floor.failure) == (0, 0, "")
    # Half a second has 25 frames, of which the edges of the interval may take one of each.
    assert floor.frames >= floor.due - floor.listeners
    assert all(s.frames > 0 for s in result.ramps.steps)
    check_tables(result.as_json(), "picows on uvloop", "99 % within 10000 ms")


def test_the_server_is_ramped_with_each_stream() -> None:
    result = capacity.capacity(
        ["voice", "voice-100"], rounds=1, seconds=0.5, progress=quiet, first=10, most=10
    )
    assert {(s.subject, s.listeners) for s in result.ramps.steps} == {
        ("voice", 10),
        ("voice-100", 10),
    }
    last = {step.subject: step for step in result.ramps.steps}
    # Held back for up to 80 ms, to go together.
    assert last["voice-100"].p50_ms > last["voice"].p50_ms + 20
    check_tables(result.as_json(), "| 8 kHz, 1 ch, pcm_s16le | 141 | 100 ms |")


def test_memory_is_the_slope_between_two_numbers_of_listeners() -> None:
    result = scenarios.memory(SMALL, ["relay", "server"], rounds=1, progress=quiet, base=5)
    assert [(s.subject, s.listeners) for s in result.samples] == [
        ("relay", 5),
        ("relay", LISTENERS),
        ("server", 5),
        ("server", LISTENERS),
    ]
    assert all(s.resident > 0 for s in result.samples)
    assert all(
        (s.database > 0, s.buffers > 0) == (s.subject == "server",) * 2 for s in result.samples
    )
    assert len(result.per_connection("server", "resident")) == 1


def test_joins_are_compared_with_handshakes_and_a_full_house_costs_one_bcrypt() -> None:
    subjects = ["handshake", "join-same"]
    result = joins.joins(subjects, count=400, house=60, rounds=1, house_rounds=1, progress=quiet)
    for sample in result.samples:
        assert sample.count == 400  # PostgreSQL's CPU is told in hundredths of a second
        assert sample.per_s > 0
        assert sample.cpu_us > 0
    handshake, join = result.rows()
    assert handshake["ratio"]["median"] == 1
    assert join["ratio"]["median"] > 0
    assert join["database_us"] > 0
    (house,) = result.house
    assert (house.joined.connections, house.bcrypts) == (60, 1)
    check_tables(result.as_json(), "a full join over one connection", "with 1 bcrypt")


def test_everyone_comes_back_after_a_restart() -> None:
    house = replace(reconnect.WORKLOAD, listeners=LISTENERS)
    result = reconnect.reconnect(house, rounds=2, progress=quiet)
    for sample in result.samples:
        assert sample.rejoined.connections == LISTENERS
        assert sample.rejoined.silence_ms.count == LISTENERS
        assert 0 < sample.rejoined.open_s < sample.rejoined.joined_s <= sample.rejoined.heard_s
    check_tables(result.as_json(), "20 listeners, 992-byte frames", "| all hear, s |")


def test_events_are_counted_where_they_arrive() -> None:
    result = outbox.outbox(["alone", "joins"], events=1000, rounds=1, progress=quiet, joins=400)
    alone, meanwhile = result.samples
    assert alone.events >= 1000
    assert meanwhile.events > 0
    assert 0 < meanwhile.joins <= 400  # the flood may be over first
    check_tables(result.as_json(), "| 200 a second |", "| nobody |")


def test_scrapes_are_measured_with_one_room_and_with_many() -> None:
    result = scrape.scrape(5, rounds=2, progress=quiet)
    assert [s.rooms for s in result.samples] == [1, 1, 5, 5]
    assert result.samples[-1].bytes > result.samples[0].bytes
    assert all(s.wall_ms > 0 and s.longest_other_ms > 0 for s in result.samples)
    check_tables(result.as_json(), "A scrape of /metrics", "| 5 |")


def test_listeners_that_read_are_measured_beside_those_that_stopped() -> None:
    told: list[str] = []

    def tell(what: str, done: float) -> None:
        quiet(what, done)
        told.append(what)

    # What is sent until it is found that they lag has to be more than their kernel takes for them.
    large = replace(SMALL, channels=16, sample_rate=48000)
    result = stalled.stalled(large, rounds=2, seconds=4.0, progress=tell, reset_s=1.0)
    turns = [(1, 0), (1, 2), (2, 2), (2, 0)]
    assert told == [*(f"round {n} of 2: {stopped} stall" for n, stopped in turns), "done"]
    for sample in result.samples:
        assert sample.without.listeners == sample.beside.listeners == LISTENERS * 9 // 10
        assert sample.without.frames > 0
        assert sample.beside.missing == sample.beside.lost == 0
        assert sample.reset == 2, "the server gives up who reads nothing"
    check_tables(result.as_json(), "10% of them stop reading", "| nobody stalls |", "| 4 of 4 |")


def test_mixes_of_ones_own_are_compared_with_one_for_all() -> None:
    workload = replace(SMALL, channels=4)
    result = mixes.mixes(workload, rounds=1, seconds=0.5, progress=quiet)
    shared, own = result.samples
    assert shared.interval.frames > LISTENERS
    assert own.interval.frames > LISTENERS
    check_tables(result.as_json(), "| one for all |", "stereo mixes of 4 channels")


def test_too_much_is_given_and_taken_back() -> None:
    beyond = replace(SMALL, channels=4)
    result = overload.overload(SMALL, beyond, seconds=0.5, progress=quiet)
    assert [s.phase for s in result.samples] == list(overload.PHASES)
    for sample in result.samples:
        assert sample.interval.frames > LISTENERS
        for answers in (sample.answers, sample.logins, sample.entries):
            assert answers.asked > 0
            assert answers.failed == 0
    asked = sample.answers.asked + sample.logins.asked + sample.entries.asked
    check_tables(result.as_json(), "| as in the beginning, later |", f"| 0 of {asked} |")


def test_rooms_that_nobody_hears_are_compared_with_receiving() -> None:
    result = unheard.unheard(SMALL, rooms=3, rounds=1, seconds=0.5, progress=quiet)
    assert [s.subject for s in result.samples] == ["floor", "server"]
    assert all(s.packets >= 3 for s in result.samples)
    check_tables(result.as_json(), "3 sources", "| a loop of `recv()` |")


def test_those_that_are_cut_off_in_a_soak_come_back() -> None:
    result = soak.soak(SMALL, hours=6 / 3600, step_s=3.0, progress=quiet)
    first, last = result.samples
    assert 0 < first.returned < last.returned <= last.cut == 4
    assert last.lost == 0
    assert all(s.descriptors > LISTENERS for s in result.samples)
    check_tables(result.as_json(), "| descriptors |")


def test_a_page_is_measured_that_listens() -> None:
    workload = replace(browser.WORKLOAD, channels=4)
    subjects = ["bare", "page-moved"]
    result = browser.browser(subjects, workload, rounds=1, seconds=1, progress=quiet)
    assert [sample.subject for sample in result.samples] == subjects
    for sample in result.samples:
        assert sample.frames > 20
        assert 0 < sample.main_thread_s < sample.seconds
        assert sample.browser_cpu_s > 0
        assert sample.pictures > 0
    assert [sample.moves > 0 for sample in result.samples] == [False, True]
    check_tables(result.as_json(), "4 channels in Chromium", "| the client alone, mixing |")


def check_tables(result: dict[str, Any], *words: str) -> None:
    """The result has its table in the terminal, and in the documents one with these words."""
    kept = json.loads(json.dumps(result))
    (table,) = report.tables(kept)
    assert table.row_count == len(result["summary"])
    text = documents.full(machine.describe() | {"results": [kept]}, "result.json")
    for word in words:
        assert word in text


def test_what_the_kernel_does_in_threads_of_its_own_is_the_subjects_and_nobody_elses() -> None:
    used = machine.CpuSnapshot({}, machine=5.0, softirq_threads=0.5)
    cores = used.cores(server_s=1.5, client_s=1.0, seconds=2.0)
    assert cores == machine.Cores(server=1.0, client=0.5, others=1.0)
    # Ticks of the whole machine are coarser than the clocks of processes.
    assert used.cores(server_s=4.0, client_s=1.0, seconds=2.0).others == 0


def test_quantiles_of_ranges_are_the_bounds_of_those_they_lie_in() -> None:
    ranges = {1.0: 0, 2.0: 500, 5.0: 490, 8.0: 9, 10.0: 0, 40.0: 1, math.inf: 0}
    assert pacing.Lateness.of(ranges) == pacing.Lateness(1000, 5.0, 8.0, 40.0, 40.0)
    rounds = [pacing.Lateness(10, p50, 3.0, 4.0, worst) for p50, worst in ((2, 9), (1, 5), (9, 7))]
    assert pacing.Lateness.over(rounds) == pacing.Lateness(30, 2, 3.0, 4.0, 9)
    assert pacing.Lateness.of({}) == pacing.Lateness(0, 0.0, 0.0, 0.0, 0.0)


def test_the_command_prints_a_table_and_keeps_raw_results(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "cpu", "--listeners", "10", "--rounds", "1"]
    command += ["--seconds", "0.5", "--subjects", "floor", "--output", str(kept)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "10 listeners, 3872-byte frames" in done.stdout
    whole = json.loads(kept.read_text())
    assert {"when", "commit", "machine", "versions", "results"} <= set(whole)
    (result,) = whole["results"]
    assert result["scenario"] == "cpu"
    assert result["samples"][0]["measured"]["frames"] > 0


def test_the_command_needs_no_higher_limit_of_descriptors_than_there_may_be(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    command = ["prlimit", "--nofile=60:", sys.executable, "-m", "benchmarks", "cpu"]
    command += ["--listeners", "100", "--channels", "1", "--sample-rate", "8000", "--rounds", "1"]
    command += ["--seconds", "0.5", "--subjects", "picows", "--output", str(kept)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (sample,) = json.loads(kept.read_text())["results"][0]["samples"]
    assert sample["joined"]["connections"] == 100


def test_pacing_puts_lateness_of_ticks_beside_that_of_a_bare_timer(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "pacing", "--quick", "--listeners", "10"]
    command += ["--conditions", "quiet,bcrypt", "--seconds", "0.5", "--output", str(kept)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Pacing: 10 listeners" in done.stdout
    (result,) = json.loads(kept.read_text())["results"]
    for sample in result["samples"]:
        assert sample["granted"] in columns.SCHEDULING
        for what in ("ticks", "floor"):
            assert sum(count for _, count in sample[what]) >= 20
        assert sum(count for _, count in sample["arrival"]) == sample["measured"]["frames"] > 10
        assert sample["condition"] == "quiet" or sample["torture"]["hashes"] > 0
    shown = [(row["scheduling"], row["condition"]) for row in result["summary"]]
    assert shown == [(s, c) for s in pacing.SCHEDULING for c in ("quiet", "bcrypt", "all")]
    pages = write_pages(tmp_path)
    assert sorted(documents.update([kept], tmp_path)) == pages
    assert "99.9 % of ticks" in pages[0].read_text()
    assert "burst of bcrypt" in pages[1].read_text()


def write_pages(root: Path) -> list[Path]:
    (root / "docs").mkdir()
    pages = [root / "README.md", root / "docs" / "benchmarks.md", root / "docs" / "capacity.md"]
    for page in pages:
        page.write_text("above\n<!-- measured:begin (x) -->\nold\n<!-- measured:end -->\nbelow\n")
    return pages


def test_kept_results_replace_those_in_the_documents_and_nothing_else(tmp_path: Path) -> None:
    cpu = scenarios.cpu(SMALL, ["floor"], rounds=1, seconds=0.5, progress=quiet)
    kept = report.save([cpu.as_json()], tmp_path / "result.json")
    pages = write_pages(tmp_path)
    assert sorted(documents.update([kept], tmp_path)) == pages
    for page in pages:
        text = page.read_text()
        assert text.startswith("above\n<!-- measured:begin (x) -->\n")
        assert text.endswith("\n<!-- measured:end -->\nbelow\n")
        assert "old" not in text
    assert str(SMALL) in pages[1].read_text()
    assert "Bandwidth of one listener" in pages[2].read_text()
    assert documents.update([kept], tmp_path) == []


def test_tls_is_compared_with_plain_and_with_a_floor_and_has_a_limit() -> None:
    names = ["floor", "plain", "tls", "nginx"]
    result = tls.tls(
        SMALL, names, rounds=1, limit_rounds=1, seconds=0.5, most=30, growth=1.5, progress=quiet
    )
    assert [row.subject for row in result.cost_rows()] == names
    for sample in result.cost.samples:
        assert sample.joined.connections == LISTENERS
        assert sample.measured.lost == 0
        assert sample.measured.frames > 0
        assert sample.cpu_us_per_frame > 0
    for row in result.cost_rows():
        assert row.over_plain is not None
        assert row.over_floor is not None
        # It and the server are told apart.
        assert (0 < row.front_us_per_frame < row.us_per_frame) == (row.subject == "nginx")
    # Whether so few listeners got everything in half a second depends on what else runs here.
    assert [row.subject for row in result.limit_rows()] == ["tls", "nginx"]
    assert all(step.listeners == 30 for step in result.ramps.steps)
    assert all(step.lost == 0 for step in result.ramps.steps)
    assert all(step.frames > 0 and step.server > 0 for step in result.ramps.steps)


def step(
    subject: str,
    listeners: int,
    *,
    frames: int,
    missing: int = 0,
    lost: int = 0,
    fewest: int | None = None,
) -> ramp.Step:
    return ramp.Step(
        subject,
        0,
        listeners,
        1000,
        150.0,
        frames,
        frames // listeners if fewest is None else fewest,
        missing,
        lost,
        server=0.1,
    )


def test_the_limit_is_the_last_number_at_which_all_frames_due_came() -> None:
    steps = [
        step("tls", 100, frames=998),
        step("tls", 110, frames=1000, missing=1),  # once, and not when it was tried again
        step("tls", 110, frames=1000),
        step("tls", 121, frames=1000, lost=1),
        step("tls", 121, frames=980),
        step("nginx", 100, frames=1001),
        step("starved", 100, frames=1000),
        step("starved", 110, frames=995, fewest=0),  # one of them heard nothing, and so no gap
        replace(step("late", 100, frames=1000), p99_ms=150.0),
        replace(step("late", 110, frames=1000), p99_ms=150.1),
    ]
    result = tls.TlsResult(scenarios.CpuResult(SMALL, 1.0), ramp.Ramps(steps))
    limits = {row.subject: (row.limit.median, row.open) for row in result.limit_rows()}
    assert limits == {
        "tls": (110, False),
        "nginx": (100, True),
        "starved": (100, False),
        "late": (100, False),
    }


def test_the_document_tells_cost_and_limit_over_tls(tmp_path: Path) -> None:
    cost = scenarios.cpu(
        SMALL, ["plain"], rounds=1, seconds=0.5, progress=quiet, known=tls.SUBJECTS
    )
    result = tls.TlsResult(cost, ramp.Ramps([step("tls", 100, frames=998)]))
    kept = report.save([result.as_json()], tmp_path / "result.json")
    whole = json.loads(kept.read_text())
    text = documents.full(whole, kept.name)
    assert "| `roomserver` without TLS |" in text
    assert "| `roomserver` with TLS in process | ≥ 100 |" in text
    assert "**Listener limit over TLS.** 352-byte frames" in text
    fine = "a ramp goes up by 15 %, and a limit may be higher by that"
    assert text.count(fine) == 1
    assert fine in guidance.tables([whole])
    (row,) = whole["results"][0]["summary"]
    row |= {"subject": "nginx", "us_per_frame": 30.0, "front_us_per_frame": 20.0}
    assert "behind it | 30.0 | 20.0 |" in documents.full(whole, kept.name)
    row["front_us_per_frame"] = 0.0  # there is nothing in front
    assert "behind it | 30.0 | – |" in documents.full(whole, kept.name)
