"""Where a page ends: after so many rows, or after so much."""

from collections.abc import Iterator

import pytest

from mediad.store.pages import MAX_PAGE_BYTES, Page, Position, page_of

Row = dict[str, str]


def rows(count: int, size_bytes: int) -> list[Row]:
    """Return rows that have so much text each."""
    return [{"id": str(number), "text": "x" * size_bytes} for number in range(count)]


def position(row: Row) -> Position:
    return Position(0, row["id"])


def ids(page: Page[Row]) -> list[str]:
    return [row["id"] for row in page.items]


@pytest.mark.parametrize(
    ("count", "shown", "has_next"), [(2, 2, False), (3, 3, False), (4, 3, True)]
)
def test_a_page_ends_after_so_many_rows(count: int, shown: int, has_next: bool) -> None:
    page = page_of(rows(count, 10), 3, position)
    assert ids(page) == [str(number) for number in range(shown)]
    assert page.next_token == (Position(0, "2").token() if has_next else None)


def test_a_page_ends_after_so_much_and_the_next_goes_on_there() -> None:
    page = page_of(rows(10, MAX_PAGE_BYTES // 4), 500, position)
    assert ids(page) == ["0", "1", "2", "3"]
    assert page.next_token == Position(0, "3").token()


def test_a_page_has_one_row_however_large() -> None:
    page = page_of(rows(2, 3 * MAX_PAGE_BYTES), 500, position)
    assert ids(page) == ["0"]
    assert page.next_token is not None
    last = page_of(rows(1, 3 * MAX_PAGE_BYTES), 500, position)
    assert (ids(last), last.next_token) == (["0"], None)


def test_what_comes_after_a_page_is_not_asked_for() -> None:
    asked = []

    def arriving() -> Iterator[Row]:
        for row in rows(100, MAX_PAGE_BYTES):
            asked.append(row["id"])
            yield row

    page_of(arriving(), 500, position)
    assert asked == ["0", "1"]  # the second says that there is one
