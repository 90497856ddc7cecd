"""Pages of a list: together they are the list, and a cursor is what a page gave."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest

from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.problems import Problem
from roomserver.store.records import Place

PLACES = [Place(1_700_000_000_000_000 + n // 2, UUID(int=n)) for n in reversed(range(10))]


@pytest.mark.parametrize("limit", [1, 3, 5, 9, 10, 100])
def test_pages_together_are_the_list(limit: int) -> None:
    seen: list[Place] = []
    cursor = None
    while True:
        query = PageQuery(limit=limit, cursor=cursor)
        after = query.after
        rest = [place for place in PLACES if after is None or place < after]
        page, cursor = cut_page(query, rest[: query.fetch], lambda place: place)
        assert 0 < len(page) <= limit
        seen += page
        if cursor is None:
            break
    assert seen == PLACES


def test_an_empty_list_is_one_page() -> None:
    page, following = cut_page(PageQuery(), list[Place](), lambda place: place)
    assert (page, following) == ([], None)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "%%%", "bnVsbA", base64.urlsafe_b64encode(b'[-1,"a"]').decode(), "[]", "W10"],
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Problem) as refused:
        _ = PageQuery(cursor=cursor).after
    assert refused.value.status == 400
