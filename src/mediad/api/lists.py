"""What the resources have in common: lists page by page, and what is wrong with a body."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel, ValidationError

from mediad.api.errors import ApiError, ErrorBody, invalid, not_found
from mediad.store.pages import MAX_LIMIT, Page

__all__ = [
    "ID_PATTERN",
    "INVALID",
    "NOT_FOUND",
    "Id",
    "ListOf",
    "PageSize",
    "PageToken",
    "check_json",
    "checking",
    "found",
]

T = TypeVar("T")

ID_PATTERN = "[^ ]$"
"""MariaDB would find what has the same id without the spaces at the end."""

Id = Annotated[str, Path(min_length=1, max_length=36, pattern=ID_PATTERN)]
PageToken = Annotated[
    str | None, Query(max_length=200, description="next_page_token of the page before.")
]
PageSize = Annotated[int, Query(ge=1, le=MAX_LIMIT)]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody}}
INVALID: dict[int | str, dict[str, Any]] = {422: {"model": ErrorBody}}


class ListOf(BaseModel, Generic[T]):
    """A page of a list, newest first: of so many rows, fewer if they are large."""

    result: list[T]
    next_page_token: str | None
    """Gives the next page; null on the last."""

    @classmethod
    def of(cls, page: Page[T]) -> "ListOf[T]":
        """Return a page as it is answered."""
        return cls(result=page.items, next_page_token=page.next_token)


def check_json(fields: BaseModel) -> None:
    """Refuse what no database keeps, though it passes for JSON: NaN, and halves of characters.

    Raises:
        ApiError: 422 then.
    """
    try:
        json.dumps(fields.model_dump(), allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise ApiError(422, "invalid", "the body has a number or a text that JSON has not") from exc


@contextmanager
def checking() -> Iterator[None]:
    """Answer 422 for what the store calls wrong."""
    try:
        yield
    except ValidationError as exc:
        raise invalid(exc.errors(include_url=False)) from exc
    except ValueError as exc:
        raise ApiError(422, "invalid", str(exc)) from exc


def found(row: T | None, what: str, id: str) -> T:
    """Return a row.

    Raises:
        ApiError: 404 if there is none.
    """
    if row is None:
        raise not_found(what, id)
    return row
