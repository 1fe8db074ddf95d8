"""What the tables of things that change have in common: rows are found within one customer, deleted
by their ``tm_delete``, and no change is without its entry in the audit log.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue
from sqlalchemy import ColumnElement, Select, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import audit
from mediad.store.audit import Actor
from mediad.store.pages import Page, Position, newest_first, page_of
from mediad.store.types import NEVER, new_id, utc_now

__all__ = [
    "MAX_DEPTH",
    "MAX_OBJECT_BYTES",
    "Fields",
    "Object",
    "Row",
    "SmallObject",
    "add",
    "at_most",
    "change",
    "check_free_json",
    "deletion",
    "find",
    "find_locked",
    "list_rows",
    "mark_deleted",
    "remove",
    "select_rows",
]

MAX_OBJECT_BYTES = 16_384
"""Of an object without a form of its own, as JSON in UTF-8. A call's config goes into one of its
facts, where it may take three times as much and has to stay far below what a fact may have.
"""

MAX_DEPTH = 20
"""Objects and lists within each other, where there is no form of its own. MariaDB reads up to 32,
and a few go around these.
"""

_INT64 = range(-(2**63), 2**63)

T = TypeVar("T")

Object = dict[str, JsonValue]


def check_free_json(value: object) -> None:
    """Refuse JSON that not every database gives back as it was, or at all: MySQL makes larger
    integers floats, and the audit log's hashes would be wrong.

    Raises:
        ValueError: Then.
    """
    depth = 0
    outer: list[Any] = [value]
    while outer:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_DEPTH} levels of objects and lists")
        inner = [v for one in outer for v in (one.values() if isinstance(one, dict) else one)]
        if any(isinstance(v, int) and v not in _INT64 for v in inner):
            raise ValueError("it has an integer of more than 64 bits")
        outer = [v for v in inner if isinstance(v, dict | list)]


def at_most(size_bytes: int) -> AfterValidator:
    """Return the rule of JSON without a form of its own, which may have so much in UTF-8."""

    def check(value: T) -> T:
        check_free_json(value)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        # What is no text at all passes here: who checks the whole of a body tells of it.
        if (size := len(text.encode("utf-8", "surrogatepass"))) > size_bytes:
            raise ValueError(f"it has {size} bytes of JSON, and {size_bytes} are the most")
        return value

    return AfterValidator(check)


SmallObject = Annotated[Object, at_most(MAX_OBJECT_BYTES)]


class Row(BaseModel):
    """A row. What a newer mediad added to it is left out."""

    model_config = ConfigDict(frozen=True)

    id: str
    tm_create: datetime
    tm_update: datetime
    tm_delete: datetime
    """9999-01-01 while it is not deleted."""


class Fields(BaseModel):
    """What a person may set of a row, with the rules for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=Row)


def select_rows(table: Table, model: type[R], customer_id: str) -> Select[Any]:
    """Return a query of a customer's rows that are not deleted, with the model's columns."""
    columns = [table.c[name] for name in model.model_fields]
    query = select(*columns).where(_owner(table) == customer_id, table.c.tm_delete == NEVER)
    # MariaDB likes to go through everybody's rows in the order that a list wants, and finds a small
    # customer's late.
    everybodys = ", ".join(f"idx_{table.name}_{name}" for name in ("tm_create", "tm_delete"))
    return query.with_hint(table, f"IGNORE INDEX ({everybodys})", "mysql")


async def find(
    connection: AsyncConnection, table: Table, model: type[R], customer_id: str, id: str
) -> R | None:
    """Return a row; None if the customer has none of this id."""
    query = select_rows(table, model, customer_id).where(table.c.id == id)
    return await _one(connection, query, model)


async def find_locked(
    connection: AsyncConnection, table: Table, model: type[R], customer_id: str, id: str
) -> R | None:
    """Return a row that nobody else changes or deletes until the transaction ends; None if the
    customer has none of this id.
    """
    query = select_rows(table, model, customer_id).where(table.c.id == id)
    return await _one(connection, query.with_for_update(), model)


async def list_rows(
    connection: AsyncConnection,
    table: Table,
    model: type[R],
    customer_id: str,
    *conditions: ColumnElement[bool],
    token: str | None,
    limit: int,
) -> Page[R]:
    """List a customer's rows, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    query = select_rows(table, model, customer_id).where(*conditions)
    query = newest_first(query, table.c.tm_create, table.c.id, token, limit)
    result = await connection.execute(query)
    rows = (model.model_validate(dict(row)) for row in result.mappings())
    return page_of(rows, limit, lambda row: Position.at(row.tm_create, row.id))


async def add(
    connection: AsyncConnection,
    table: Table,
    model: type[R],
    customer_id: str,
    fields: Fields,
    actor: Actor,
    **others: str | int,
) -> R:
    """Insert a row and return it.

    Args:
        others: Columns that no person sets. What is not in the model, as secrets are not, is not
            told to the audit log.
    """
    now = utc_now()
    ids = {"id": new_id(), _owner(table).name: customer_id}  # the second may be the first
    times = {"tm_create": now, "tm_update": now, "tm_delete": NEVER}
    row = model.model_validate({**fields.model_dump(mode="json"), **others, **ids, **times})
    await connection.execute(insert(table), others | row.model_dump())
    change = audit.Change(customer_id, "create", _type(table), row.id, after=_state(row))
    await audit.record(connection, actor, [change])
    return row


async def change(
    connection: AsyncConnection,
    table: Table,
    model: type[R],
    customer_id: str,
    id: str,
    fields: type[Fields],
    changes: Mapping[str, object],
    actor: Actor,
) -> R | None:
    """Change a row and return it as it is now; None if the customer has none of this id.

    Raises:
        ValueError: If the row may not be like that.
    """
    before = await find_locked(connection, table, model, customer_id, id)
    if before is None:
        return None
    now = before.model_dump(include=set(fields.model_fields))
    checked = fields.model_validate({**now, **changes})
    values = checked.model_dump(mode="json", include=set(changes)) | {"tm_update": utc_now()}
    after = model.model_validate(before.model_dump() | values)
    where = (_owner(table) == customer_id, table.c.id == id)
    await connection.execute(update(table).where(*where).values(values))
    states = (_state(before), _state(after))
    done = audit.Change(customer_id, "update", _type(table), id, *states)
    await audit.record(connection, actor, [done])
    return after


async def remove(
    connection: AsyncConnection,
    table: Table,
    model: type[R],
    customer_id: str,
    id: str,
    actor: Actor,
) -> R | None:
    """Delete a row and return it; None if the customer has none of this id."""
    found = await mark_deleted(connection, table, model, customer_id, table.c.id == id)
    await audit.record(
        connection, actor, [deletion(table, customer_id, before) for before, _ in found]
    )
    return found[0][1] if found else None


async def mark_deleted(
    connection: AsyncConnection,
    table: Table,
    model: type[R],
    customer_id: str,
    *conditions: ColumnElement[bool],
) -> list[tuple[R, R]]:
    """Delete a customer's rows; return each as it was and as it is. `audit.record` is still to be
    told of each `deletion`, once nothing else is to be locked.
    """
    query = select_rows(table, model, customer_id).where(*conditions).with_for_update()
    result = await connection.execute(query)
    before = [model.model_validate(dict(row)) for row in result.mappings()]
    now = utc_now()
    times = {"tm_delete": now, "tm_update": now}
    # By their ids: what came since is not among those that are told.
    ids = [row.id for row in before]
    await connection.execute(update(table).where(table.c.id.in_(ids)).values(times))
    return [(row, row.model_copy(update=times)) for row in before]


def deletion(table: Table, customer_id: str, before: Row) -> audit.Change:
    """Return what the audit log is told of a deleted row."""
    return audit.Change(customer_id, "delete", _type(table), before.id, _state(before))


async def _one(connection: AsyncConnection, query: Select[Any], model: type[R]) -> R | None:
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else model.model_validate(dict(row))


def _state(row: Row) -> dict[str, JsonValue]:
    """Return a row as the audit log has it: without what its model has not."""
    return row.model_dump(mode="json")


def _type(table: Table) -> str:
    return table.name.removesuffix("s")


def _owner(table: Table) -> ColumnElement[str]:
    """Return the column with the customer: of customers, the row itself."""
    return table.c.customer_id if "customer_id" in table.c else table.c.id
