"""Customers: everything else belongs to one. Its own id is what the other tables call
``customer_id``.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import audit, rows
from mediad.store.audit import Actor
from mediad.store.numbers import Number
from mediad.store.pages import DEFAULT_LIMIT, Page, Position, newest_first, page_of
from mediad.store.rows import Fields, Row
from mediad.store.tables import customers, numbers
from mediad.store.types import NEVER, new_id

__all__ = ["Customer", "CustomerFields", "create", "delete", "get", "list_customers", "update"]


class CustomerFields(Fields):
    """What a person says of a customer."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    detail: Annotated[str, Field(max_length=10_000)] = ""
    status: Literal["active", "inactive"] = "active"


class Customer(Row):
    """A customer."""

    name: str
    detail: str
    status: str
    total_calls: int = 0
    """All calls that it ever had."""


async def create(connection: AsyncConnection, fields: CustomerFields, actor: Actor) -> Customer:
    """Insert a customer and return it."""
    return await rows.add(connection, customers, Customer, new_id(), fields, actor)


async def get(connection: AsyncConnection, customer_id: str) -> Customer | None:
    """Return a customer."""
    return await rows.find(connection, customers, Customer, customer_id, customer_id)


async def list_customers(
    connection: AsyncConnection, *, token: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[Customer]:
    """List all customers, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    columns = [customers.c[name] for name in Customer.model_fields]
    query = select(*columns).where(customers.c.tm_delete == NEVER)
    query = newest_first(query, customers.c.tm_create, customers.c.id, token, limit)
    result = await connection.execute(query)
    found = (Customer.model_validate(dict(row)) for row in result.mappings())
    return page_of(found, limit, lambda row: Position.at(row.tm_create, row.id))


async def update(
    connection: AsyncConnection,
    customer_id: str,
    changes: Mapping[str, object],
    actor: Actor,
) -> Customer | None:
    """Change a customer's `CustomerFields` and return it.

    Raises:
        ValueError: If a change is wrong.
    """
    return await rows.change(
        *(connection, customers, Customer, customer_id, customer_id),
        *(CustomerFields, changes, actor),
    )


async def delete(
    connection: AsyncConnection, customer_id: str, actor: Actor
) -> list[Number] | None:
    """Delete a customer and its numbers, which nobody else could have then; return these. What else
    belongs to it stays. None if there is no such customer.
    """
    found = await rows.mark_deleted(connection, customers, Customer, customer_id)
    if not found:
        return None
    freed = await rows.mark_deleted(connection, numbers, Number, customer_id)
    changes = [rows.deletion(customers, customer_id, before) for before, _ in found]
    changes += [rows.deletion(numbers, customer_id, before) for before, _ in freed]
    await audit.record(connection, actor, changes)
    return [number for _, number in freed]
