"""Where webhooks are sent from: deliveries are made from numbered events, found when they are due,
and told what became of them. Over all customers: every row carries its own.

A webhook's ``last_sequence`` moves in the transaction that makes the deliveries, so a crash makes
none of them twice and leaves none out.
"""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    CursorResult,
    Integer,
    Select,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.bus.events import Event
from mediad.bus.public import NOBODY, Parties
from mediad.store import events as events_store
from mediad.store.tables import (
    calls,
    customers,
    event_sequences,
    events,
    webhook_deliveries,
    webhooks,
)
from mediad.store.types import NEVER, new_id

__all__ = [
    "MAX_LOG",
    "Due",
    "Made",
    "Result",
    "Target",
    "Waiting",
    "due",
    "has_new",
    "has_webhooks",
    "make",
    "parties_of",
    "record",
    "targets",
    "waiting",
    "with_due",
]

MAX_LOG = 24
"""Attempts that are kept of one delivery: the last ones."""

_MAX_RESULTS = 500  # in one statement
_MAX_DUE = 20  # webhooks in one statement
_MAX_BEHIND = 100  # webhooks in one transaction of `make`
_MAX_EVENTS = 200  # of one customer in it

_deliveries = webhook_deliveries.c
_is_owner = customers.c.id == webhooks.c.customer_id


class Made(NamedTuple):
    """What `make` has made."""

    webhook_ids: set[str]
    """Which have new deliveries."""
    is_all: bool
    """Whether nothing more is to be made."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an active webhook is told."""

    url: str
    secrets: tuple[str, ...] = field(repr=False)
    """The newest first."""


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery whose time has come, with all of an attempt but its `Target`."""

    id: str
    webhook_id: str
    call_id: str
    event_id: str
    event: Event | None
    """None of a test."""
    parties: Parties
    customer_id: str
    attempts: int
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt changes."""

    id: str
    updated: datetime
    """As it was when the attempt was begun: of what was asked for again meanwhile only the log
    changes.
    """
    status: str
    attempts: int
    entry: dict[str, Any]
    """For the log."""
    tm_next: datetime


class Waiting(NamedTuple):
    """What has not been delivered."""

    number: int
    oldest: datetime | None


async def has_webhooks(connection: AsyncConnection) -> bool:
    """Whether there ever was one."""
    return (await connection.execute(select(webhooks.c.id).limit(1))).first() is not None


async def has_new(connection: AsyncConnection) -> bool:
    """Whether `make` has anything to do."""
    return (await connection.execute(_behind_query().limit(1))).first() is not None


async def make(connection: AsyncConnection, now: datetime) -> Made:
    """Insert the deliveries of events that have happened since the last time, in a transaction."""
    behind = (await connection.execute(_behind_query())).all()
    is_all = len(behind) < _MAX_BEHIND
    by_customer: dict[str, list[Any]] = {}
    for webhook in behind:
        by_customer.setdefault(webhook.customer_id, []).append(webhook)
    new: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for customer_id, theirs in by_customer.items():
        first = min(webhook.last_sequence for webhook in theirs)
        happened = await events_store.after(connection, customer_id, first, _MAX_EVENTS)
        is_all = is_all and len(happened) < _MAX_EVENTS
        for webhook in theirs:
            later = [e for e in happened if (e.sequence or 0) > webhook.last_sequence]
            if later:
                moved.append({"key": webhook.id, "last": later[-1].sequence})
            new += [_row(webhook.id, e, now) for e in later if _wants(webhook.events, e.type)]
    if new:
        await connection.execute(_insert_new(connection.dialect.name), new)
    if moved:
        await connection.execute(_MOVED, moved)
    return Made({row["webhook_id"] for row in new}, is_all)


async def due(
    connection: AsyncConnection, wanted: Mapping[str, Container[str]], now: datetime, limit: int
) -> dict[str, list[list[Due]]]:
    """Return deliveries of webhooks to try now, by webhook and by call, each call's in order.

    The first one of a call is the first that is not delivered, and its time has come; of those that
    come after it there may be more than are returned.

    Args:
        wanted: By webhook, calls to leave out: they are at work.
        limit: Calls of a webhook at most, and on the average deliveries of each are three.
    """
    found: dict[str, dict[str, list[Due]]] = {}
    webhook_ids = list(wanted)
    for start in range(0, len(webhook_ids), _MAX_DUE):
        calls_of: dict[str, list[str]] = {}
        some = webhook_ids[start : start + _MAX_DUE]
        for row in await find_first(connection, some, now, limit):
            if row.call_id not in wanted[row.webhook_id]:
                calls_of.setdefault(row.webhook_id, []).append(row.call_id)
        if calls_of:
            pending = await find_pending(connection, calls_of, 3 * limit * len(calls_of))
            for values in pending.mappings():
                by_call = found.setdefault(values["webhook_id"], {})
                by_call.setdefault(values["call_id"], []).append(_due(values))
    return {webhook_id: list(by_call.values()) for webhook_id, by_call in found.items()}


async def find_first(
    connection: AsyncConnection, webhook_ids: Sequence[str], now: datetime, limit: int
) -> CursorResult[Any]:
    """Find the webhooks and calls of what is due and has nothing of its call before it: so many
    calls of each webhook.
    """
    values = {f"webhook_{at}": webhook_id for at, webhook_id in enumerate(webhook_ids)}
    query = _first_query(len(webhook_ids))
    found: CursorResult[Any] = await connection.execute(query, values | {"now": now, "most": limit})
    return found


async def find_pending(
    connection: AsyncConnection, calls_of: Mapping[str, Sequence[str]], limit: int
) -> CursorResult[Any]:
    """Find what is not delivered of some webhooks' calls, the oldest first."""
    values: dict[str, Any] = {"most": limit}
    for at, (webhook_id, call_ids) in enumerate(calls_of.items()):
        values |= {f"webhook_{at}": webhook_id, f"calls_{at}": call_ids}
    found: CursorResult[Any] = await connection.execute(_pending_query(len(calls_of)), values)
    return found


@cache  # to build it takes longer than to run it
def _first_query(count: int) -> CompoundSelect[Any]:
    earlier = webhook_deliveries.alias("earlier")
    is_held_back = exists().where(
        earlier.c.webhook_id == _deliveries.webhook_id,
        earlier.c.call_id == _deliveries.call_id,
        earlier.c.status == "pending",
        earlier.c.sequence < _deliveries.sequence,
    )
    # One by one, each as far as its limit along its index: of one that was away there are many.
    each = (
        select(_deliveries.webhook_id, _deliveries.call_id)
        .where(_deliveries.webhook_id == bindparam(f"webhook_{at}"))
        .where(_deliveries.status == "pending", _deliveries.tm_next <= bindparam("now"))
        .where(~is_held_back)
        .order_by(_deliveries.tm_next, _deliveries.sequence)
        .limit(bindparam("most", type_=Integer))
        .subquery()
        for at in range(count)
    )
    return union_all(*(select(one) for one in each))


@cache
def _pending_query(count: int) -> Select[Any]:
    columns = (
        _deliveries.id,
        _deliveries.webhook_id,
        _deliveries.customer_id,
        _deliveries.event_id,
        _deliveries.call_id,
        _deliveries.attempts,
        _deliveries.tm_create,
        _deliveries.tm_update,
        calls.c.source,
        calls.c.destination,
    )
    event_columns = (column.label(f"of_event_{column.name}") for column in events.c)
    is_call = and_(
        calls.c.id == _deliveries.call_id, calls.c.customer_id == _deliveries.customer_id
    )
    are_wanted = (
        and_(
            _deliveries.webhook_id == bindparam(f"webhook_{at}"),
            _deliveries.call_id.in_(bindparam(f"calls_{at}", expanding=True)),
        )
        for at in range(count)
    )
    return (
        select(*columns, *event_columns)
        .outerjoin(events, events.c.id == _deliveries.event_id)
        .outerjoin(calls, is_call)
        .where(_deliveries.status == "pending", or_(*are_wanted))
        .order_by(_deliveries.sequence)
        .limit(bindparam("most", type_=Integer))
    )


async def with_due(connection: AsyncConnection, now: datetime) -> set[str]:
    """Return the active webhooks that have a delivery whose time has come."""
    # Not EXISTS: MariaDB would then gather what waits of all webhooks.
    next_at = (
        select(_deliveries.tm_next)
        .where(_deliveries.webhook_id == webhooks.c.id, _deliveries.status == "pending")
        .order_by(_deliveries.tm_next)
        .limit(1)
        .scalar_subquery()
    )
    query = select(webhooks.c.id).join(customers, _is_owner).where(*_is_active(), next_at <= now)
    return set((await connection.execute(query)).scalars())


async def targets(
    connection: AsyncConnection, webhook_ids: Collection[str], now: datetime
) -> dict[str, Target]:
    """Return where to tell those of some webhooks that are active, as they are now."""
    table = webhooks.c
    query = (
        select(table.id, table.url, table.secret, table.old_secret, table.tm_old_secret)
        .join(customers, _is_owner)
        .where(table.id.in_(list(webhook_ids)), *_is_active())
    )
    found = {}
    for row in await connection.execute(query):
        secrets = [row.secret]
        if row.old_secret is not None and now < row.tm_old_secret:
            secrets.append(row.old_secret)
        found[row.id] = Target(row.url, tuple(secrets))
    return found


async def record(connection: AsyncConnection, results: Sequence[Result], now: datetime) -> None:
    """Write what became of attempts, in a transaction."""
    for start in range(0, len(results), _MAX_RESULTS):
        by_id = {result.id: result for result in results[start : start + _MAX_RESULTS]}
        query = (
            select(_deliveries.id, _deliveries.tm_update, _deliveries.attempt_log)
            .where(_deliveries.id.in_(list(by_id)))
            .with_for_update()
        )
        logged: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        for row in (await connection.execute(query)).all():
            result = by_id[row.id]
            log = [*row.attempt_log, result.entry][-MAX_LOG:]
            values = {"key": result.id, "attempt_log": log}
            if row.tm_update == result.updated:
                state = {name: getattr(result, name) for name in ("status", "attempts", "tm_next")}
                changed.append(values | state | {"tm_update": now})
            else:
                logged.append(values)
        if logged:
            await connection.execute(_LOGGED, logged)
        if changed:
            await connection.execute(_CHANGED, changed)


async def waiting(connection: AsyncConnection) -> Waiting:
    """Return how many deliveries of active webhooks wait, and since when the oldest does."""
    query = (
        select(func.count(), func.min(_deliveries.tm_create))
        .select_from(webhooks)
        .join(webhook_deliveries, _deliveries.webhook_id == webhooks.c.id)
        .join(customers, _is_owner)
        .where(*_is_active(), _deliveries.status == "pending")
    )
    number, oldest = (await connection.execute(query)).one()
    return Waiting(number, oldest)


async def parties_of(
    connection: AsyncConnection, keys: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], Parties]:
    """Return who calls are between, by the customer's id and the call's."""
    if not keys:
        return {}
    query = select(calls.c.customer_id, calls.c.id, calls.c.source, calls.c.destination).where(
        tuple_(calls.c.id, calls.c.customer_id).in_([(call, owner) for owner, call in keys])
    )
    rows = (await connection.execute(query)).all()
    return {(row.customer_id, row.id): Parties(row.source, row.destination) for row in rows}


def _is_active() -> tuple[ColumnElement[bool], ...]:
    """Return what is true of a webhook, and of its customer, that are told anything."""
    return tuple(
        condition
        for table in (webhooks, customers)
        for condition in (table.c.status == "active", table.c.tm_delete == NEVER)
    )


def _behind_query() -> Select[Any]:
    table = webhooks.c
    return (
        select(table.id, table.customer_id, table.events, table.last_sequence)
        .join(event_sequences, event_sequences.c.customer_id == table.customer_id)
        .join(customers, _is_owner)
        .where(*_is_active(), table.last_sequence < event_sequences.c.last)
        .order_by(table.customer_id)
        .limit(_MAX_BEHIND)
    )


def _wants(filters: Sequence[str], event_type: str) -> bool:
    """Whether a webhook is told events of a type."""
    return not filters or any(
        event_type.startswith(wanted[:-1]) if wanted.endswith("*") else event_type == wanted
        for wanted in filters
    )


def _row(webhook_id: str, event: Event, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "customer_id": event.customer_id,
        "status": "pending",
        "webhook_id": webhook_id,
        "event_id": event.event_id,
        "event_type": event.type,
        "call_id": event.call_id,
        "sequence": event.sequence,
        "attempts": 0,
        "attempt_log": [],
        "tm_next": now,
        "tm_create": now,
        "tm_update": now,
        "tm_delete": NEVER,
    }


def _insert_new(dialect: str) -> Any:
    """Return an insert that leaves out what another process has made."""
    if dialect == "sqlite":
        return sqlite.insert(webhook_deliveries).on_conflict_do_nothing()
    statement = mysql.insert(webhook_deliveries)
    return statement.on_duplicate_key_update(status=_deliveries.status)


def _due(row: Mapping[Any, Any]) -> Due:
    event = None
    if row["of_event_id"] is not None:
        names = (column.name for column in events.c)
        event = events_store.read({name: row[f"of_event_{name}"] for name in names})
    parties = NOBODY
    if row["source"] is not None:
        parties = Parties(row["source"], row["destination"])
    return Due(
        id=row["id"],
        webhook_id=row["webhook_id"],
        call_id=row["call_id"],
        event_id=row["event_id"],
        event=event,
        parties=parties,
        customer_id=row["customer_id"],
        attempts=row["attempts"],
        created=row["tm_create"],
        updated=row["tm_update"],
    )


_MOVED = (
    update(webhooks)
    .where(webhooks.c.id == bindparam("key"), webhooks.c.last_sequence < bindparam("last"))
    .values(last_sequence=bindparam("last"))
)

_LOGGED = (
    update(webhook_deliveries)
    .where(_deliveries.id == bindparam("key"))
    .values(attempt_log=bindparam("attempt_log"))
)

_CHANGED = _LOGGED.values(
    {name: bindparam(name) for name in ("status", "attempts", "tm_next", "tm_update")}
)
