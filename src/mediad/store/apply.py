"""Facts become rows: a batch at a time, in the caller's transaction, with a few statements of many
rows each.

A batch that comes again, whole or in part, changes nothing: rows are told by their keys, events by
their ids. The last locks taken are those of the audit log, then those of the numbers of events.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Table, Update, bindparam, func, select, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Insert

from mediad.bus.events import Event
from mediad.store import audit, events
from mediad.store.changes import Changes, Recovered, Row
from mediad.store.tables import agents, calls, customers, recordings, transcribes, transcripts

__all__ = ["Applied", "apply"]

_OF_CALLS = frozenset(("call_created", "call_updated", "call_hungup"))


class Applied(NamedTuple):
    """What a batch has changed."""

    events: list[Event]
    """Its new events, with their numbers, in order."""
    call_ids: set[str]
    """Calls whose rows have changed."""


async def apply(connection: AsyncConnection, facts: Iterable[Event]) -> Applied:
    """Write facts, in their order.

    Raises:
        ValueError, TypeError, KeyError: If one of them is not what a fact of its type is.
    """
    once = list({fact.event_id: fact for fact in facts}.values())
    changes = Changes(*await _read_calls(connection, once))
    for fact in once:
        changes.add(fact)
    await _write_calls(connection, changes)
    await _insert_new(connection, transcribes, changes.transcribes)
    await _insert_new(connection, transcripts, changes.transcripts)
    await _insert_new(connection, recordings, changes.recordings)
    await _execute(connection, _DONE_TRANSCRIBE, changes.done_transcribes)
    await _execute(connection, _FINISHED_RECORDING, changes.finished_recordings)
    counts = sorted(changes.calls_by_customer.items())  # one order, or two writers could deadlock
    await _execute(
        connection, _COUNTED_CALLS, [{"key": customer, "more": count} for customer, count in counts]
    )
    await _count_agents_calls(connection, changes)
    await audit.record(connection, audit.MEDIAD, map(_audited, changes.recovered))
    return Applied(await events.append(connection, changes.events), changes.call_ids)


async def _read_calls(
    connection: AsyncConnection, facts: Sequence[Event]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the statuses of the calls that these facts change, and their agents."""
    of_calls = [fact for fact in facts if fact.type in _OF_CALLS]
    if not of_calls:
        return {}, {}
    parameters = {
        "call_ids": sorted({fact.call_id for fact in of_calls}),
        "customer_ids": sorted({fact.customer_id for fact in of_calls}),
    }
    rows = (await connection.execute(_STATUSES, parameters)).all()
    agents_of = {row.id: row.agent_id for row in rows if row.agent_id is not None}
    return {row.id: row.status for row in rows}, agents_of


async def _count_agents_calls(connection: AsyncConnection, changes: Changes) -> None:
    counts = [
        {"key": agent_id, "of": customer_id, **count._asdict()}
        for (customer_id, agent_id), count in sorted(changes.calls_by_agent.items())
    ]
    await _execute(connection, _COUNTED_AGENTS_CALLS, counts)


async def _write_calls(connection: AsyncConnection, changes: Changes) -> None:
    # Plain, for none of them was there a moment ago. Should a transaction whose COMMIT was never
    # answered have made one since, this one fails, and the next finds it.
    await _execute(connection, calls.insert(), list(changes.new_calls.values()))
    await _execute(connection, _MOVED_CALL, changes.moved_calls)
    await _execute(connection, _ENDED_CALL, changes.ended_calls)


def _audited(recovered: Recovered) -> audit.Change:
    end, status = recovered
    before, after = {"status": status}, {"status": end.data["status"]}
    return audit.Change(end.customer_id, "update", "call", end.call_id, before, after)


async def _insert_new(connection: AsyncConnection, table: Table, rows: list[Row]) -> None:
    await _execute(connection, _insert_sql(table, connection.dialect.name), rows)


async def _execute(
    connection: AsyncConnection, statement: Insert | Update, rows: list[Row]
) -> None:
    if rows:
        await connection.execute(statement, rows)


@cache
def _insert_sql(table: Table, dialect: str) -> Insert:
    """Return an INSERT that leaves a row alone that is there.

    Not INSERT IGNORE, which in MySQL makes warnings of all errors, and cuts what is too long.
    """
    if dialect == "mysql":
        insert = mysql.insert(table)
        return insert.on_duplicate_key_update(id=insert.inserted.id)
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=["id"])


def _update(table: Table, *names: str, **values: Any) -> Update:
    """Return an UPDATE of one customer's row; `key` and `of` say which, `names` what is set."""
    return (
        update(table)
        .where(table.c.id == bindparam("key"), table.c.customer_id == bindparam("of"))
        .values(**{name: bindparam(name) for name in names}, **values)
    )


_STATUSES = (
    select(calls.c.id, calls.c.status, calls.c.agent_id)
    .where(
        calls.c.id.in_(bindparam("call_ids", expanding=True)),
        calls.c.customer_id.in_(bindparam("customer_ids", expanding=True)),
    )
    .with_for_update()
)

_MOVED_CALL = _update(
    calls,
    "status",
    "tm_update",
    tm_answer=func.coalesce(
        calls.c.tm_answer, bindparam("tm_answer", type_=calls.c.tm_answer.type)
    ),
)

_ENDED_CALL = _update(
    calls,
    "status",
    "tm_hangup",
    "duration_ms",
    "hangup_by",
    "hangup_cause",
    "counters",
    "tm_update",
)

_DONE_TRANSCRIBE = _update(transcribes, "tm_update", status="completed").where(
    transcribes.c.status == "running"
)

_FINISHED_RECORDING = _update(
    recordings, "duration_ms", "size_bytes", "tm_update", status="completed"
).where(recordings.c.status == "running")

_COUNTED_CALLS = (
    update(customers)
    .where(customers.c.id == bindparam("key"))
    .values(total_calls=customers.c.total_calls + bindparam("more"))
)

_COUNTED_AGENTS_CALLS = _update(
    agents,
    total_calls=agents.c.total_calls + bindparam("calls"),
    completed_calls=agents.c.completed_calls + bindparam("completed"),
    total_duration_ms=agents.c.total_duration_ms + bindparam("duration_ms"),
)
