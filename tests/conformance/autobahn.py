"""`make conformance`: Autobahn's fuzzing client against `echo_server.py`.

The suite runs on Python 2.7 only, hence in a process and a folder of its own. Its exit code says
nothing; what it found stands in the index of its report. When every case is OK or informational,
a summary of it becomes docs/conformance.md; otherwise the cases that are not are printed and the
exit code is 1. The whole report, byte by byte, stays in build/conformance/report/index.html.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import relaycore

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "conformance"
REPORT = BUILD / "report"
SUMMARY = ROOT / "docs" / "conformance.md"
SUITE = "autobahntestsuite==25.10.1"
TIMEOUT_S = 900
# Without 8 (never written) and 12 and 13 (compression, which the relay never agrees to).
GROUPS = {
    "1": "Framing: lengths, cut anywhere",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Reserved opcodes",
    "5": "Fragmentation",
    "6": "UTF-8, valid and not, at every split",
    "7": "Close handshake and codes",
    "9": "Limits: messages to 16 MiB, a thousand at a time",
    "10": "Automatic fragmentation",
}
CASES = 301
GOOD = ("OK", "INFORMATIONAL")

Results = dict[str, dict[str, Any]]  # the suite's record of each case


def find_python() -> str:
    """$PYTHON27, else a Python 2.7 with pip from the PATH or from pyenv."""
    named = os.environ.get("PYTHON27")
    versions = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))
    for candidate in [named] if named else ["python2.7", "pypy", "pypy2", *map(str, versions)]:
        question = "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))"
        try:  # a version manager's shim may exist without a version behind it
            done = subprocess.run([candidate, "-c", question], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    sys.exit(
        (f"PYTHON27={named} is not a Python 2.7 with pip.\n" if named else "")
        + "The Autobahn test suite needs Python 2.7 with pip, which most systems have no more.\n"
        "Install one with pyenv (https://github.com/pyenv/pyenv):  pyenv install 2.7.18\n"
        "or name one that you have:  PYTHON27=/path/to/python2.7 make conformance"
    )


def install(python: str) -> Path:
    """The suite and what it stands on, in a folder of its own."""
    site = BUILD / SUITE
    if not (site / "installed").exists():
        print(f"installing {SUITE} for {python} ...", flush=True)
        shutil.rmtree(site, ignore_errors=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "install", "--target", site, SUITE],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"{SUITE} could not be installed:\n{done.stdout}")
        (site / "installed").touch()
    return site


def fuzz(python: str, site: Path) -> Results:
    """Runs the suite over a relay of our own."""
    shutil.rmtree(REPORT, ignore_errors=True)
    spec, log = BUILD / "spec.json", BUILD / "log.txt"
    # Not by PYTHONPATH: namespace packages of Python 2 need their .pth files.
    start = f"import site, sys; site.addsitedir({str(site)!r}); sys.argv[0] = 'wstest'"
    start += "; from autobahntestsuite.wstest import run; run()"
    with subprocess.Popen(
        [sys.executable, HERE / "echo_server.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        servers = [{"agent": "relaycore", "url": url, "options": {"version": 18}}]
        wanted = {"cases": [f"{group}.*" for group in GROUPS], "exclude-cases": []}
        spec.write_text(
            json.dumps(
                {"outdir": str(REPORT), "servers": servers, "exclude-agent-cases": {}, **wanted}
            )
        )
        try:
            with log.open("w") as out:
                subprocess.run(
                    [python, "-c", start, "-m", "fuzzingclient", "-s", spec],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=TIMEOUT_S,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            sys.exit(f"the suite did not end within {TIMEOUT_S} s; see {log}")
        finally:
            server.stdin.close()
            server.wait(30)
    if server.returncode != 0:
        sys.exit(f"the echo server ended with {server.returncode}")
    index = REPORT / "index.json"
    if not index.exists():
        sys.exit(f"the suite left no report; see {log}\n{log.read_text()[-2000:]}")
    results: Results = json.loads(index.read_text())["relaycore"]
    return results


def in_order(results: Results) -> list[str]:
    return sorted(results, key=lambda case: [int(part) for part in case.split(".")])


def judge(case: dict[str, Any]) -> str:
    """The worse of how it behaved and how it closed."""
    both: tuple[str, str] = (case["behavior"], case["behaviorClose"])
    bad = [how for how in both if how not in GOOD]
    return bad[0] if bad else max(both, key=GOOD.index)


def summary(results: Results, python: str) -> str:
    def row(*cells: object) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    lines = [row("cases", "of", "OK", "informational"), "|---|---|---:|---:|"]
    total: Counter[str] = Counter()
    for group, what in GROUPS.items():
        counts = Counter(judge(c) for i, c in results.items() if i.split(".")[0] == group)
        lines.append(row(group, what, *(counts[how] for how in GOOD)))
        total += counts
    lines.append(row("", "all", *(total[how] for how in GOOD)))
    informational = [i for i in in_order(results) if judge(results[i]) == "INFORMATIONAL"]
    version = subprocess.run(
        [python, "-c", "import platform as p; print(p.python_version())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    table = "\n".join(lines)
    return f"""\
# WebSocket conformance

The [Autobahn test suite](https://github.com/crossbario/autobahn-testsuite) plays a client that
breaks the rules of RFC 6455 in every way it can think of, against a program that echoes messages
through the public interface of `relaycore.Relay` (`tests/conformance/echo_server.py`).

{table}

Informational are cases in which the standard leaves open what is right: {", ".join(informational)}.
Left out are 12 and 13, about compression: audio does not deflate, and the relay agrees to no
extension.

Run on {datetime.now(UTC):%Y-%m-%d}: {SUITE.replace("==", " ")} on Python {version}, relaycore \
{relaycore.__version__} on Python
{platform.python_version()}, {platform.system()} {platform.machine()}.

`make conformance` runs it again and writes this page. It needs a Python 2.7 with pip
(`pyenv install 2.7.18`, or `PYTHON27=/path/to/python2.7`), which is why it is no part of
`make test`. What the suite checks is also checked there, by `tests/native/test_ws_codec.cpp` and
`tests/integration/relay/test_websocket_rules.py`.
"""


def main() -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    python = find_python()
    results = fuzz(python, install(python))
    failed = [case for case in in_order(results) if judge(results[case]) not in GOOD]
    for case in failed:
        found = results[case]
        print(f"{case}: {found['behavior']}, close {found['behaviorClose']}: {found['reportfile']}")
    print(f"{len(results)} cases, {len(failed)} failed; report: {REPORT / 'index.html'}")
    if failed:
        sys.exit(1)
    if len(results) != CASES:
        sys.exit(f"the suite should have run {CASES} cases")
    SUMMARY.write_text(summary(results, python))
    print(f"wrote {SUMMARY.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
