"""Every access to an atomic of the native core says its memory order, and why that one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src" / "relaycore"
FILES = sorted([*SOURCES.glob("include/relaycore/*.h"), *SOURCES.glob("native/*.[ch]*")])
ORDER = re.compile(r"\bmemory_order_(\w+)")
LINES_BEFORE = 6
# An order stands for those that it is made of.
PARTS = {"acq_rel": ("acquire", "release")}


def argued(order: str, comments: str) -> bool:
    return order in comments or any(part in comments for part in PARTS.get(order, ()))


def without_argument(text: str) -> list[tuple[int, str]]:
    """Line numbers, and orders that no comment there or up to six lines before names."""
    lines = text.splitlines()
    comments = [line.partition("//")[2] for line in lines]
    return [
        (number + 1, order)
        for number, line in enumerate(lines)
        for order in ORDER.findall(line.partition("//")[0])
        if not argued(order, " ".join(comments[max(0, number - LINES_BEFORE) : number + 1]))
    ]


def atomics(text: str) -> set[str]:
    """Names of the variables that are atomic, or arrays of atomics."""
    return set(re.findall(r"std::atomic<[^;{]*>\s+(\w+)\s*(?:\[\w*\])?\s*[{;]", text))


NAMES = set().union(*(atomics(path.read_text()) for path in FILES))


NAMED = "|".join(sorted(NAMES))
VERB = r"load|store|exchange|wait|fetch_\w+|compare_exchange_\w+"
ACCESS = re.compile(rf"\b(?:{NAMED})(?:\[[^]]*\])?\.(?:{VERB})\(([^;]*);")


def without_order(text: str) -> list[int]:
    """Lines with an access to an atomic that leaves the order to the default."""
    return [
        text.count("\n", 0, access.start()) + 1
        for access in ACCESS.finditer(text)
        if "memory_order_" not in access.group(1)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_memory_order_is_argued_beside_it(path: Path) -> None:
    assert without_argument(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_access_leaves_its_memory_order_to_the_default(path: Path) -> None:
    assert without_order(path.read_text()) == []


def test_what_is_missing_is_found() -> None:
    assert {"refs_", "index", "head_", "task_signalled_", "words_"} <= NAMES
    bare = "\n" * 9 + "refs_.fetch_add(1, std::memory_order_relaxed);\n"
    assert without_argument(bare) == [(10, "relaxed")]
    assert without_argument("// acquire: why\n" + "\n" * 7 + bare) == [(18, "relaxed")]
    assert without_argument("// relaxed: why\n" + bare.strip()) == []
    assert without_order("\nrefs_.fetch_add(1);\n") == [2]
    assert without_order("words_[i].load();") == [1]
    assert without_order("refs_.load(std::memory_order_acquire);") == []
