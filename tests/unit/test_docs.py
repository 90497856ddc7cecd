"""The documentation is true: links and files exist, settings are complete, code runs."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import aiohttp
import msgspec
import numpy as np
import pytest
import typer

from roomserver.cli import app
from roomserver.config import Settings
from roomserver.edge.problems import ProblemCode
from roomserver.edge.routes import ENDPOINTS
from roomserver.protocol.client import ClientMessage
from roomserver.protocol.codes import CloseCode, ErrorCode, RoomCloseReason, RoomState
from roomserver.protocol.server import ServerMessage
from roomserver.store.records import AuditEvent

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EXAMPLE = ROOT / "docs" / "examples" / "relay_tone.py"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`([\w./-]+\.(?:h|cpp|pyx|pxi|pxd|pyi|py|toml|md|yml|map))`")


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of the page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    for named in NAMED_FILE.findall(prose(page)):
        found = (page.parent / named).exists() or (ROOT / named).exists()
        assert found or any(ROOT.glob(f"src/**/{named}")), f"{page.name} names {named}"


def test_the_conformance_page_tells_of_every_group_and_of_no_failure() -> None:
    rows = re.findall(
        r"^\| (\d+) \| .* \| (\d+) \| (\d+) \|$",
        (ROOT / "docs" / "conformance.md").read_text(),
        re.MULTILINE,
    )
    assert [group for group, *_ in rows] == ["1", "2", "3", "4", "5", "6", "7", "9", "10"]
    assert sum(int(ok) + int(informational) for _, ok, informational in rows) == 301


def words(page: str) -> set[str]:
    """Everything that the page sets in code, word by word."""
    spans = re.findall(r"`([^`]+)`", prose(ROOT / "docs" / page))
    return {word for span in spans for word in re.findall(r"\w+", span)}


def test_every_setting_is_documented() -> None:
    assert set(Settings.model_fields) <= words("operations.md")


def test_every_message_and_its_fields_are_documented() -> None:
    names: set[str] = set()
    for message in (*get_args(ClientMessage), *get_args(ServerMessage)):
        info = msgspec.inspect.type_info(message)
        assert isinstance(info, msgspec.inspect.StructType)
        names |= {str(info.tag)} | {field.encode_name for field in info.fields}
    assert names <= words("protocol.md")


def test_every_code_of_the_wire_is_documented() -> None:
    assert {*ErrorCode, *RoomCloseReason, *RoomState} <= words("protocol.md")
    numbers = set(re.findall(r"^\| (\d{4}) \|", prose(ROOT / "docs" / "protocol.md"), re.MULTILINE))
    assert numbers == {str(code.value) for code in CloseCode}


def test_every_route_and_error_of_http_is_documented() -> None:
    assert set(ProblemCode) <= words("http.md")
    assert set(AuditEvent) <= words("http.md")
    documented = (ROOT / "docs" / "http.md").read_text().replace("{roomId}", "{room}")
    for endpoint in ENDPOINTS:
        assert f"`{endpoint.method} {endpoint.path}`" in documented


def test_the_subcommands_are_counted_and_named() -> None:
    page = prose(ROOT / "docs" / "cli.md")
    commands = typer.main.get_group(app).commands
    numbers = ("eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen")
    assert f"one command with {numbers[len(commands) - 8]} subcommands" in page
    for name in commands:
        assert f"`{name}`" in page


@pytest.mark.parametrize("name", ["README.md", "docs/library.md"])
def test_python_in_the_documentation_runs(name: str) -> None:
    fences = FENCE.findall((ROOT / name).read_text())
    blocks = [code for language, code in fences if language == "python"]
    assert blocks
    scope: dict[str, object] = {"__name__": "documentation"}
    for block in blocks:  # each builds on those before it, as for a reader
        exec(compile(block, name, "exec"), scope)


@pytest.fixture
def tone_url() -> Iterator[str]:
    """Where the example serves its tone."""
    with subprocess.Popen(
        [sys.executable, EXAMPLE, "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.timeout(30)
async def test_the_example_relays_its_tone_to_websocket_clients(tone_url: str) -> None:
    async def listen() -> None:
        samples: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
        async with aiohttp.ClientSession() as session, session.ws_connect(tone_url) as client:
            started = await client.receive_json()
            while len(samples) < 10:
                message = await client.receive_bytes()
                header = struct.unpack_from("<BBBBHHIIQQ", message)
                assert header[:3] == (1, 2, 1), "a frame of float samples"
                assert header[8] >= started["timestamp"]
                if header[3] == 0:  # nothing concealed, no gap before it
                    samples.append(np.frombuffer(message, "<f4", offset=32))
        heard = np.concatenate(samples)
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
        assert np.argmax(spectrum) * 48_000 / len(heard) == pytest.approx(440, abs=2.5)
        assert np.abs(heard).max() == pytest.approx(1.0, abs=1e-3)

    await listen()
    await listen()


def test_the_example_is_as_short_as_the_guide_says() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
