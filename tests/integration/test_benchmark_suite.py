"""The benchmarks as a suite: what fails or is missing costs its own result, and no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from benchmarks import documents, report, runs
from benchmarks.child import ROOT


def result_of(scenario: str) -> dict[str, Any]:
    """A result without any figures."""
    return {"scenario": scenario, "summary": []}


def kept_in(folder: Path) -> list[str]:
    """The scenarios in the files there, each of which holds one."""
    files = [json.loads(path.read_text()) for path in folder.iterdir()]
    assert all(len(whole["results"]) == 1 for whole in files)
    return sorted(whole["results"][0]["scenario"] for whole in files)


@pytest.mark.parametrize("error", [RuntimeError("no compiler"), KeyError("no compiler")])
def test_a_scenario_that_fails_is_told_and_the_others_are_kept_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    kept_by_then: list[str] = []

    def failing() -> dict[str, Any]:
        kept_by_then.extend(kept_in(tmp_path))
        raise error

    scenarios = {
        "first": lambda: result_of("cpu"),
        "second": failing,
        "third": lambda: result_of("tls"),
    }
    with pytest.raises(SystemExit, match="failed: second"):
        runs.run_each(scenarios, json=True)
    assert kept_by_then == ["cpu"]
    assert kept_in(tmp_path) == ["cpu", "tls"]
    assert f"second failed: {error}" in capsys.readouterr().out


def test_results_so_far_are_together_in_the_file_that_was_asked_for(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    scenarios = {name: partial(result_of, name) for name in ("cpu", "tls")}
    runs.run_each(scenarios, json=False, output=kept)
    assert [r["scenario"] for r in json.loads(kept.read_text())["results"]] == ["cpu", "tls"]


def run_benchmarks(*arguments: str, env: dict[str, str] | None = None) -> str:
    """`python -m benchmarks`; what it printed."""
    environment = dict(os.environ if env is None else env)
    environment.pop("PYTEST_XDIST_WORKER", None)  # in workers pytest-benchmark measures nothing
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_can_not_be_started_is_left_out_with_a_remark(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    nothing = {k: v for k, v in os.environ.items() if k != "CXX"} | {"PATH": str(tmp_path)}
    command = ["cpu", "--subjects", "floor,relay,icecast,picows", "--listeners", "10"]
    command += ["--rounds", "1", "--seconds", "0.5", "--output", str(kept)]
    said = run_benchmarks(*command, env=nothing)
    reason = "there is no Icecast here (Debian's package icecast2)"
    assert f"left out: icecast, since {reason}" in said
    assert said.count("left out: icecast") == 1
    whole = json.loads(kept.read_text())
    (result,) = whole["results"]
    assert [row["subject"] for row in result["summary"]] == ["relay", "picows"]
    assert set(result["left_out"]) == {"floor", "icecast"}
    assert result["left_out"]["icecast"] == reason
    assert set(result["versions"]) == {"picows", "uvloop"}
    text = documents.full(whole, kept.name)
    assert f"Left out: Icecast (HTTP), since {reason}." in text
    assert f"With picows {result['versions']['picows']}, uvloop" in text


def test_micro_benchmarks_are_kept_as_all_results_are(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    run_benchmarks(
        "micro", "-k", "packet_parse or (interleave_to_int16 and 960)", "--output", str(kept)
    )
    whole = json.loads(kept.read_text())
    (result,) = whole["results"]
    assert result["rounds"] > 1
    names = [row["subject"] for row in result["summary"]]
    kernels = [f"interleave to int16, {channels} x 960" for channels in (16, 64)]
    assert names == ["codec: packet_parse", *kernels]
    assert all(row["seconds"] > 0 for row in result["summary"])
    assert {"NumPy", "copy"} == set(result["summary"][-1]["ratios"])
    assert len(result["samples"]) > len(names)
    assert all("data" not in sample["stats"] for sample in result["samples"])
    (table,) = report.tables(result)
    assert table.row_count == len(names)
    text = documents.full(whole, kept.name)
    assert f"Kernels with {result['simd']}" in text
    assert f"| {kernels[0]} | " in text
