"""Customers: everything else belongs to one. Its own id is what the other tables call
``customer_id``.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import rows
from mediad.store.pages import DEFAULT_LIMIT, Page, Position, newest_first, page_of
from mediad.store.rows import Fields, Row
from mediad.store.tables import customers
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


async def create(
    connection: AsyncConnection, fields: CustomerFields, actor_id: str | None
) -> Customer:
    """Insert a customer and return it."""
    return await rows.add(connection, customers, Customer, new_id(), fields, actor_id)


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
    actor_id: str | None,
) -> Customer | None:
    """Change a customer's `CustomerFields` and return it.

    Raises:
        ValueError: If a change is wrong.
    """
    return await rows.change(
        *(connection, customers, Customer, customer_id, customer_id),
        *(CustomerFields, changes, actor_id),
    )


async def delete(
    connection: AsyncConnection, customer_id: str, actor_id: str | None
) -> Customer | None:
    """Delete a customer and return it. What belongs to it stays; so do its numbers, which nobody
    else can have then: see `numbers.delete_all`.
    """
    return await rows.remove(connection, customers, Customer, customer_id, customer_id, actor_id)
