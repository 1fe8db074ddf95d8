"""Durable events: kept under a number that rises by one per customer, for readers that resume.

A number is taken under the lock of the customer's row in event_sequences, which is held until the
transaction ends: so when a number is visible, all smaller ones are. (An AUTO_INCREMENT is given out
before the commit; a reader that resumes after the highest number it saw misses the ones that commit
late.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.bus.events import Event
from mediad.store.heads import lock
from mediad.store.tables import event_sequences, events

__all__ = ["after", "append", "read"]

_MICROSECONDS = 1_000_000


async def append(connection: AsyncConnection, facts: Sequence[Event]) -> list[Event]:
    """Insert events in their order, and return them with their numbers. Those that are there
    already are left out.

    Do it last in a transaction: until its end nobody else can append for the same customers.
    """
    if not facts:
        return []
    rows = await lock(connection, event_sequences, (fact.customer_id for fact in facts), last=0)
    last = {customer_id: int(row["last"]) for customer_id, row in rows.items()}
    # Only now: whoever had the lock before may have inserted some of them.
    known = await _known(connection, [fact.event_id for fact in facts])
    new = {fact.event_id: fact for fact in facts if fact.event_id not in known}.values()
    numbered = []
    for fact in new:
        last[fact.customer_id] += 1
        numbered.append(replace(fact, sequence=last[fact.customer_id]))
    for customer_id in sorted({event.customer_id for event in numbered}):
        await connection.execute(
            update(event_sequences)
            .where(event_sequences.c.customer_id == customer_id)
            .values(last=last[customer_id])
        )
    if numbered:
        await connection.execute(insert(events), [_row(event) for event in numbered])
    return numbered


async def after(
    connection: AsyncConnection, customer_id: str, sequence: int, limit: int
) -> list[Event]:
    """Return the customer's events after a number, in order."""
    query = after_query(customer_id, sequence, limit)
    return [read(row) for row in (await connection.execute(query)).mappings()]


def after_query(customer_id: str, sequence: int, limit: int) -> Select[Any]:
    """Return the query of `after`."""
    return (
        select(*events.c)
        .where(events.c.customer_id == customer_id, events.c.sequence > sequence)
        .order_by(events.c.sequence)
        .limit(limit)
    )


async def _known(connection: AsyncConnection, ids: list[str]) -> set[str]:
    query = select(events.c.id).where(events.c.id.in_(ids))
    return set((await connection.execute(query)).scalars())


def _row(event: Event) -> dict[str, Any]:
    return {
        "id": event.event_id,
        "customer_id": event.customer_id,
        "sequence": event.sequence,
        "type": event.type,
        "call_id": event.call_id,
        "offset_us": round(event.offset_s * _MICROSECONDS),
        "data": dict(event.data),
        "tm_create": event.timestamp,
    }


def read(row: Mapping[Any, Any]) -> Event:
    """Return the event of a row."""
    return Event(
        type=row["type"],
        call_id=row["call_id"],
        offset_s=row["offset_us"] / _MICROSECONDS,
        data=row["data"],
        event_id=row["id"],
        customer_id=row["customer_id"],
        timestamp=row["tm_create"],
        sequence=row["sequence"],
    )
