"""Who calls the REST interface in the tests of all routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

OWNER, STRANGER, ADMIN = "owner@example.org", "stranger@example.org", "admin@example.org"


@dataclass(frozen=True)
class Keys:
    """Access tokens of three accounts, and rooms of the first: one open, one closed."""

    owner: str
    stranger: str
    admin: str
    room: str
    closed: str


def smallest(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A body with the fields that it must have, each as small as it may be."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {f.encode_name: _smallest(f.type) for f in info.fields if f.required}


def _smallest(kind: inspect.Type) -> Any:
    match kind:
        case inspect.StrType(min_length=length):
            return "x" * (length or 1)
        case inspect.IntType(ge=least) | inspect.FloatType(ge=least):
            return least or 0
        case inspect.BoolType():
            return False
        case inspect.DictType():
            return {}
        case inspect.UnionType(types=types):
            return _smallest(types[0])
        case inspect.EnumType(cls=cls):
            return next(iter(cls)).value
        case inspect.LiteralType(values=values):
            return values[0]
        case (
            inspect.VarTupleType(item_type=item, min_length=length)
            | inspect.ListType(item_type=item, min_length=length)
        ):
            return [_smallest(item)] * (length or 0)
        case inspect.StructType(cls=struct):
            return smallest(struct)
    raise AssertionError(f"no smallest value of {kind}")
