"""Who changed what, and what it was before: written in the transaction that changes it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store.pages import DEFAULT_LIMIT, Page, Position, newest_first, page_of
from mediad.store.tables import audit_logs
from mediad.store.types import new_id, utc_now

__all__ = ["Entry", "list_entries", "record"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change."""

    customer_id: str
    action: str
    """create, update, delete; of webhooks also rotate_secret and test, of deliveries redeliver."""
    resource_type: str
    """What was changed: agent, call, …"""
    resource_id: str
    actor_id: str | None = None
    """Who changed it: an access key, or `mediad keys`; None is mediad itself."""
    before_state: Mapping[str, JsonValue] | None = None
    """The row as it was, None if there was none."""
    id: str = field(default_factory=new_id)
    tm_create: datetime = field(default_factory=utc_now)


async def record(connection: AsyncConnection, entries: Iterable[Entry]) -> None:
    """Write entries, by one statement."""
    if rows := [asdict(entry) for entry in entries]:
        await connection.execute(insert(audit_logs), rows)


async def list_entries(
    connection: AsyncConnection,
    customer_id: str,
    *,
    resource_id: str | None = None,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Entry]:
    """List a customer's entries, newest first; perhaps those of one thing only.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    table = audit_logs.c
    columns = [table[name] for name in Entry.__dataclass_fields__]
    query = select(*columns).where(table.customer_id == customer_id)
    if resource_id is not None:
        query = query.where(table.resource_id == resource_id)
    query = newest_first(query, table.tm_create, table.id, token, limit)
    result = await connection.execute(query)
    entries = (_entry(row) for row in result.mappings())
    return page_of(entries, limit, lambda entry: Position.at(entry.tm_create, entry.id))


def _entry(row: Mapping[Any, Any]) -> Entry:
    return Entry(**{str(name): value for name, value in row.items()})
