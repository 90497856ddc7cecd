"""Options of the client commands: which are refused, what a mix becomes, what is documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from roomserver.cli import app
from roomserver.clients.wav import WavWriter
from roomserver.clients.wire import Encoding
from roomserver.commands.listen import mix_message

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"


@pytest.fixture
def wav(tmp_path: Path) -> str:
    path = tmp_path / "in.wav"
    WavWriter(path, 2, 48000, Encoding.S16LE).close()
    return str(path)


def refused(*arguments: str, code: int = 2) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert re.fullmatch(r"error: [^\n]+\n", result.output), result.output
    return result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--room"),
        (("--room", "X", "--channels", "0,a"), "whole numbers"),
        (("--room", "X", "--channels", "64"), "0 to 63"),
        (("--room", "X", "--channels", "1", "--mix"), "--mute and --solo"),
        (("--room", "X", "--fader", "3"), "CHANNEL=VALUE"),
        (("--room", "X", "--fader", "0=5"), "0 to 4"),
        (("--room", "X", "--pan", "0=-2"), "-1 to 1"),
        (("--room", "X", "--mute", "64"), "no channel 64"),
        (("--room", "X", "--master", "9"), "0 to 4"),
        (("--room", "X"), "no terminal"),
    ],
)
def test_listen_refuses(options: tuple[str, ...], words: str) -> None:
    assert words in refused("listen", *options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--create",), "--email"),
        (("--email", "a@b.c"), "either --room"),
        (("--email", "a@b.c", "--room", "X", "--create"), "either --room"),
        (("--email", "a@b.c", "--create", "--frame-ms", "7"), "5, 10, 20, 40 or 60"),
        (("--email", "a@b.c", "--create", "--packet-samples", "0"), "1 or more"),
        (("--email", "a@b.c", "--create", "--packet-samples", "x"), "whole numbers"),
        (("--email", "a@b.c", "--create"), "no terminal"),
    ],
)
def test_broadcast_refuses(wav: str, options: tuple[str, ...], words: str) -> None:
    assert words in refused("broadcast", wav, *options)


def test_broadcast_refuses_files_it_cannot_send(wav: str, tmp_path: Path) -> None:
    access = ("--email", "a@b.c", "--room", "X", "--account-password", "x")
    missing = str(tmp_path / "none.wav")
    assert "No such file" in refused("broadcast", missing, *access, code=1)
    assert "no audio" in refused("broadcast", wav, *access, "--loop", code=1)
    names = ("--channel-names", "a,b,c")
    assert "3 names for 2 channels" in refused("broadcast", wav, *access, *names)


def test_a_mix_is_written_as_the_protocol_has_it() -> None:
    assert mix_message([], [], [], [], None) == {}
    assert mix_message(["2=0.5", "0=2"], ["1=-1"], [1], [0, 2], 0.5) == {
        "faders": [2.0, 1.0, 0.5],
        "pans": [0.0, -1.0],
        "mutes": [False, True],
        "solos": [True, False, True],
        "master": 0.5,
    }


@pytest.mark.parametrize("name", ["broadcast", "listen", "demo"])
def test_every_option_is_documented_and_every_documented_option_exists(name: str) -> None:
    text = DOCUMENT.read_text()
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    shared = set(rows(sections["What the clients share"]))
    group: Any = typer.main.get_command(app)
    parameters = group.commands[name].params
    options = {o for parameter in parameters for o in parameter.opts if o.startswith("-")}
    own = set(rows(sections[name]))
    assert own <= options
    assert options - own - {"--help"} <= (set() if name == "demo" else shared)


def rows(section: str) -> Iterator[str]:
    """The options in the first column of a section's table."""
    found = re.findall(r"^\| (`-[^|]*) \|", section, re.MULTILINE)
    return iter([option for cell in found for option in re.findall(r"`(-[\w-]*)`", cell)])
