"""Lists page by page. A token says where the last page ended, not how many rows came before: it
stays right while rows are added, and the hundredth page costs what the first does.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from pydantic_core import to_json
from sqlalchemy import ColumnElement, Select, or_

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "MAX_PAGE_BYTES",
    "Page",
    "Position",
    "ascending",
    "newest_first",
    "page_of",
]

DEFAULT_LIMIT = 50
"""Rows of a page that nobody asked a size for."""

MAX_LIMIT = 500
"""Most rows of a page."""

MAX_PAGE_BYTES = 1_000_000
"""Of JSON, after which a page ends; so it has one row at least. No other thread runs while a page
is made into JSON, 5 ms for one of this size.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_ID = 36

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list."""

    items: list[T]
    next_token: str | None
    """Gives the page after this one; None on the last."""


@dataclass(frozen=True, slots=True)
class Position:
    """A row's place in a list: what the list is sorted by, and its id among equals."""

    key: int
    id: str

    @classmethod
    def at(cls, time: datetime, id: str) -> "Position":
        """Return the place of a row in a list that is sorted by time."""
        return cls((time - _EPOCH) // _MICROSECOND, id)

    @property
    def time(self) -> datetime:
        """The key as the time that it is.

        Raises:
            ValueError: If it is none.
        """
        try:
            return _EPOCH + self.key * _MICROSECOND
        except OverflowError as exc:
            raise ValueError("the page token is not one of this list") from exc

    def token(self) -> str:
        """Return the token that continues after this row."""
        return base64.urlsafe_b64encode(f"{self.key} {self.id}".encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> "Position":
        """Return what a token says.

        Raises:
            ValueError: If it is no token.
        """
        try:
            text = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True).decode()
            key, _, id = text.partition(" ")
            position = cls(int(key), id)
        except (binascii.Error, ValueError) as exc:
            raise ValueError("the page token is none that was given out") from exc
        if not 0 < len(id) <= _MAX_ID or abs(position.key) >> 63:
            raise ValueError("the page token is none that was given out")
        return position


def newest_first(
    query: Select[Any],
    time: ColumnElement[datetime],
    id: ColumnElement[str],
    token: str | None,
    limit: int,
) -> Select[Any]:
    """Sort a query by time, newest first, and cut a page out of it, with one row more.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    if token is not None:
        last = Position.parse(token)
        # Not (time, id) < (…, …): MySQL reads the whole index for that.
        query = query.where(time <= last.time, or_(time < last.time, id < last.id))
    return query.order_by(time.desc(), id.desc()).limit(_check(limit) + 1)


def ascending(
    query: Select[Any],
    key: ColumnElement[int],
    id: ColumnElement[str],
    token: str | None,
    limit: int,
) -> Select[Any]:
    """Sort a query by a number and cut a page out of it, with one row more.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    if token is not None:
        last = Position.parse(token)
        query = query.where(key >= last.key, or_(key > last.key, id > last.id))
    return query.order_by(key, id).limit(_check(limit) + 1)


def page_of(items: Iterable[T], limit: int, position: Callable[[T], Position]) -> Page[T]:
    """Return the page that a query above gave, or less of it if its rows are large; one row more
    says that there is a next page. What comes after that is not asked for.
    """
    shown: list[T] = []
    size_bytes = 0
    for item in items:
        if len(shown) == limit or size_bytes > MAX_PAGE_BYTES:
            return Page(shown, position(shown[-1]).token())
        shown.append(item)
        size_bytes += len(to_json(item))
    return Page(shown, None)


def _check(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"a page has 1 to {MAX_LIMIT} rows, not {limit}")
    return limit
