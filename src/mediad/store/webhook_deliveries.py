"""Deliveries: for each webhook and each event that it is told, how far that is. As people see them;
`mediad.store.outbox` is what they are made and sent from.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import audit, rows
from mediad.store.audit import Actor
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Row
from mediad.store.tables import webhook_deliveries
from mediad.store.types import NEVER, new_id, utc_now

__all__ = ["TEST", "Delivery", "DeliveryFilter", "add_test", "get", "list_deliveries", "redeliver"]

TEST = "test"
"""Type of the event that only a person's wish to see one brings about."""


class Delivery(Row):
    """A delivery."""

    customer_id: str
    status: str
    """pending, delivered or dead: given up."""
    webhook_id: str
    event_id: str
    event_type: str
    call_id: str
    sequence: int
    """Of the event."""
    attempts: int
    """Since it was made, or made again by hand."""
    attempt_log: list[dict[str, JsonValue]]
    """The last 24 attempts: time, status or error, duration in seconds, how the answer begins."""
    tm_next: datetime
    """When it is tried next, while it is pending."""


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; None is any."""

    webhook_id: str | None = None
    status: str | None = None


async def get(connection: AsyncConnection, customer_id: str, delivery_id: str) -> Delivery | None:
    """Return one of the customer's deliveries."""
    return await rows.find(connection, webhook_deliveries, Delivery, customer_id, delivery_id)


async def list_deliveries(
    connection: AsyncConnection,
    customer_id: str,
    which: DeliveryFilter = DeliveryFilter(),  # noqa: B008  # frozen
    *,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Delivery]:
    """List the customer's deliveries, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    table = webhook_deliveries
    conditions = []
    if which.webhook_id is not None:
        conditions.append(table.c.webhook_id == which.webhook_id)
    if which.status is not None:
        conditions.append(table.c.status == which.status)
    return await rows.list_rows(
        connection, table, Delivery, customer_id, *conditions, token=token, limit=limit
    )


async def redeliver(
    connection: AsyncConnection, customer_id: str, delivery_id: str, actor: Actor
) -> Delivery | None:
    """Make a delivery again, whatever became of it, with all its attempts before it; return it."""
    table = webhook_deliveries
    before = await rows.find_locked(connection, table, Delivery, customer_id, delivery_id)
    if before is None:
        return None
    now = utc_now()
    await connection.execute(
        update(table)
        .where(table.c.customer_id == customer_id, table.c.id == delivery_id)
        .values(status="pending", attempts=0, tm_next=now, tm_update=now)
    )
    after = await get(connection, customer_id, delivery_id)
    assert after is not None  # deliveries are not deleted
    states = (_state(before), _state(after))
    change = audit.Change(customer_id, "redeliver", "webhook_delivery", delivery_id, *states)
    await audit.record(connection, actor, [change])
    return after


async def add_test(
    connection: AsyncConnection, customer_id: str, webhook_id: str, actor: Actor
) -> Delivery:
    """Insert the delivery of an event that did not happen, and return it."""
    now = utc_now()
    values: dict[str, Any] = {
        "id": new_id(),
        "customer_id": customer_id,
        "status": "pending",
        "webhook_id": webhook_id,
        "event_id": new_id(),
        "event_type": TEST,
        "call_id": webhook_id,  # it is in no call's way
        "sequence": 0,
        "attempts": 0,
        "attempt_log": [],
        "tm_next": now,
        "tm_create": now,
        "tm_update": now,
        "tm_delete": NEVER,
    }
    await connection.execute(insert(webhook_deliveries), values)
    change = audit.Change(customer_id, "test", "webhook", webhook_id)
    await audit.record(connection, actor, [change])
    return Delivery.model_validate(values)


def _state(delivery: Delivery) -> dict[str, JsonValue]:
    """Return a delivery as the audit log has it."""
    return delivery.model_dump(mode="json", exclude={"attempt_log"})
