"""Long lists, page by page: newest first, and a cursor that says where the page before ended.

A query that is a `PageQuery` has `limit` and `cursor`; an answer has its items and `next`, the
cursor of the page that follows, null when there is none.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from roomserver.edge.problems import Problem, ProblemCode
from roomserver.store.records import Place

MOST = 100

T = TypeVar("T")


class PageQuery(Struct, rename="camel", kw_only=True):
    """Which page of a list."""

    limit: Annotated[int, Meta(ge=1, le=MOST)] = MOST
    cursor: Annotated[str, Meta(max_length=128)] | None = None

    @property
    def after(self) -> Place | None:
        """Where the page before ended; None: this is the first. Raises Problem (400)."""
        return None if self.cursor is None else _read(self.cursor)

    @property
    def fetch(self) -> int:
        """How many to ask the store for: one more than the page has tells whether that is all."""
        return self.limit + 1


def cut_page(
    query: PageQuery, found: Sequence[T], place: Callable[[T], Place]
) -> tuple[Sequence[T], str | None]:
    """The page out of the `query.fetch` items that were asked for, and its `next`."""
    page = found[: query.limit]
    return page, _write(place(page[-1])) if len(found) > len(page) else None


def _write(place: Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _read(cursor: str) -> Place:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(text, type=Place)
    except ValueError:  # base64's and msgspec's errors are
        raise Problem(
            ProblemCode.INVALID_REQUEST, "in the query: that cursor is not one of this list"
        ) from None
