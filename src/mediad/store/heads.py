"""Rows of which each customer has one, locked to take what comes next: the number of an event, the
place of an entry in the audit log. The lock is held until the transaction ends, so that whoever
sees a number sees all smaller ones.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import RowMapping, Table, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["lock"]


async def lock(
    connection: AsyncConnection, table: Table, customer_ids: Iterable[str], **first: Any
) -> dict[str, RowMapping]:
    """Lock the customers' rows, in the order that all use, and return them by customer. One that is
    missing is made, with the values of ``first``.
    """
    ids = sorted(set(customer_ids))
    key = table.c.customer_id
    query = select(table).where(key.in_(ids)).order_by(key).with_for_update()
    found = await connection.execute(query)
    rows = {row["customer_id"]: row for row in found.mappings()}
    if missing := [id for id in ids if id not in rows]:
        values = [{"customer_id": id, **first} for id in missing]
        await connection.execute(_insert_missing(table, connection.dialect.name), values)
        found = await connection.execute(query)
        rows = {row["customer_id"]: row for row in found.mappings()}
    return rows


def _insert_missing(table: Table, dialect: str) -> Any:
    """Return an insert that does nothing where somebody else was quicker."""
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return mysql.insert(table).on_duplicate_key_update(customer_id=table.c.customer_id)
