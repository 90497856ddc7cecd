"""Patterns of texts in requests and messages: what they say of the end is meant."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Annotated, Any, get_args

import msgspec
import pytest

from roomserver.edge.routes import ENDPOINTS
from roomserver.protocol.client import ClientMessage

TEXTS = (str(uuid.uuid4()), "a name")


def patterns(schema: Any) -> Iterator[str]:
    """Those in a JSON schema, at any depth."""
    if isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from patterns(part)


REQUESTS = {kind for each in ENDPOINTS for kind in (each.body, each.query) if kind}
_, SCHEMAS = msgspec.json.schema_components([*REQUESTS, *get_args(ClientMessage)])
PATTERNS = sorted(set(patterns(SCHEMAS)))


def takes(pattern: str, text: str) -> bool:
    try:
        msgspec.convert(text, Annotated[str, msgspec.Meta(pattern=pattern)])
    except msgspec.ValidationError:
        return False
    return True


def test_there_are_patterns_to_look_at() -> None:
    assert len(PATTERNS) >= 2


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_line_break_at_the_end_is_not_overlooked(pattern: str) -> None:
    taken = [text for text in TEXTS if takes(pattern, text)]
    assert taken
    assert not [text for text in taken if takes(pattern, text + "\n")]
