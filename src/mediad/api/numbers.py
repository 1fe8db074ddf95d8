"""Numbers that can be called, and which agent or flow answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from mediad.api.access import Admin, Viewer
from mediad.api.errors import ApiError, ErrorBody
from mediad.api.lists import (
    INVALID,
    NOT_FOUND,
    Id,
    ListOf,
    PageSize,
    PageToken,
    check_json,
    checking,
    found,
)
from mediad.api.services import ServicesOf
from mediad.store import numbers
from mediad.store.numbers import Number, NumberFields, NumberTaken, UnknownTarget
from mediad.store.pages import DEFAULT_LIMIT

__all__ = ["router"]

router = APIRouter(prefix="/numbers", tags=["numbers"])

_TAKEN: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody}}


class NewNumber(NumberFields):
    """What is to be made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"number": "+4930123456", "name": "bakery"}]}
    )


class NumberChanges(NumberFields):
    """What is to be another way; what is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "front desk", "tags": ["berlin"]}]}
    )

    number: str = Field(default_factory=str, pattern=r"^(\+[1-9][0-9]{1,14}|[0-9]{2,8})$")


@router.post("", status_code=201, responses=INVALID | _TAKEN)
async def create_number(new: NewNumber, access: Admin, services: ServicesOf) -> Number:
    """Make a number, and say which agent answers it. Agent and flow must be yours; a number belongs
    to one customer only.
    """
    check_json(new)
    with _checking():
        async with services.database.write() as connection:
            await numbers.check_targets(connection, access.customer_id, new.model_dump())
            row = await numbers.create(connection, access.customer_id, new, access.actor)
    await services.reads.forget(row)
    return row


@router.get("", responses=INVALID)
async def list_numbers(
    access: Viewer,
    services: ServicesOf,
    status: Literal["active", "inactive"] | None = None,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[Number]:
    """List your numbers, newest first, with what answers each."""
    with checking():
        async with services.database.read() as connection:
            page = await numbers.list_numbers(
                connection, access.customer_id, status=status, token=page_token, limit=page_size
            )
    return ListOf[Number].of(page)


@router.get("/{number_id}", responses=NOT_FOUND)
async def get_number(number_id: Id, access: Viewer, services: ServicesOf) -> Number:
    """Return a number with the agent or the flow that answers it."""
    async with services.database.read() as connection:
        row = await numbers.get(connection, access.customer_id, number_id)
    return found(row, "number", number_id)


@router.patch("/{number_id}", responses=NOT_FOUND | INVALID | _TAKEN)
async def change_number(
    number_id: Id, changes: NumberChanges, access: Admin, services: ServicesOf
) -> Number:
    """Change a number, as which agent answers. Calls that it is on keep what they began with."""
    check_json(changes)
    values = changes.model_dump(mode="json", exclude_unset=True)
    with _checking():
        async with services.database.write() as connection:
            before = await numbers.get(connection, access.customer_id, number_id)
            before = found(before, "number", number_id)  # whatever its agent shall be
            await numbers.check_targets(connection, access.customer_id, values, before)
            row = await numbers.update(
                connection, access.customer_id, number_id, values, access.actor
            )
    row = found(row, "number", number_id)
    await services.reads.forget(before, row)
    return row


@router.delete("/{number_id}", status_code=204, responses=NOT_FOUND)
async def delete_number(number_id: Id, access: Admin, services: ServicesOf) -> Response:
    """Delete a number: calls to it are refused, and anybody may make it again."""
    async with services.database.write() as connection:
        row = await numbers.delete(connection, access.customer_id, number_id, access.actor)
    await services.reads.forget(found(row, "number", number_id))
    return Response(status_code=204)


@contextmanager
def _checking() -> Iterator[None]:
    """Answer 409 for a number that is taken, and 422 for what the store calls wrong."""
    try:
        with checking():
            yield
    except ApiError as exc:
        match exc.__cause__:
            case NumberTaken() as taken:
                raise ApiError(409, "number_taken", str(taken)) from exc
            case UnknownTarget(what=what) as unknown:
                raise ApiError(422, f"unknown_{what}", str(unknown)) from exc
        raise
