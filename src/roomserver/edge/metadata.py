"""What of a room's metadata, which is the owner's own, can be kept."""

from __future__ import annotations

from typing import Any

import msgspec

from roomserver.edge.problems import Problem, ProblemCode

MAX_BYTES = 16_384
MAX_DEPTH = 16


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raises Problem (400) for what is too large, too deep, or nothing that PostgreSQL can hold."""
    if not _fits(metadata, MAX_DEPTH):
        raise Problem(
            ProblemCode.INVALID_REQUEST,
            f"metadata may be nested {MAX_DEPTH} deep, its integers have 64 bits, and it has no"
            " NUL characters",
        )
    if len(msgspec.json.encode(metadata)) > MAX_BYTES:
        raise Problem(ProblemCode.INVALID_REQUEST, f"metadata may have at most {MAX_BYTES} bytes")


def _fits(value: Any, depth: int) -> bool:
    match value:
        case dict():
            return depth > 0 and all(
                _fits(key, depth) and _fits(item, depth - 1) for key, item in value.items()
            )
        case list():
            return depth > 0 and all(_fits(item, depth - 1) for item in value)
        case str():
            return "\0" not in value
        case int():
            return -(2**63) <= value < 2**63
        case _:
            return True
