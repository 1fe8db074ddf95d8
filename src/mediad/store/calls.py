"""Calls, as they are read. They are written from facts, by `mediad.store.apply`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Select, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import rows
from mediad.store.pages import DEFAULT_LIMIT, Page, Position, newest_first, page_of
from mediad.store.rows import Row
from mediad.store.tables import calls

__all__ = ["Call", "CallFilter", "get", "list_calls"]

Object = dict[str, JsonValue]


class Call(Row):
    """A call."""

    customer_id: str
    status: str
    direction: str
    """inbound or outbound."""
    source: str
    destination: str
    agent_id: str | None
    flow_id: str | None
    number_id: str | None
    tm_start: datetime
    tm_answer: datetime | None
    tm_hangup: datetime | None
    duration_ms: int | None
    hangup_by: str | None
    """caller, agent or system."""
    hangup_cause: str | None
    """In words of Q.850."""
    provider_call_id: str | None
    agent_config: Object | None
    """The agent's, as it was when the call began."""
    counters: Object | None
    cost: Object | None
    """For stt, llm, tts and telephony, and the total of them."""
    metadata: Object | None
    error: Object | None
    """code and message."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls to list; None is any."""

    status: str | None = None
    direction: str | None = None
    number: str | None = None
    """Who called, or was called."""
    agent_id: str | None = None
    since: datetime | None = None
    """Created then or later."""
    until: datetime | None = None
    """Created before."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return all but ``number``."""
        table = calls.c
        equal = (
            (table.status, self.status),
            (table.direction, self.direction),
            (table.agent_id, self.agent_id),
        )
        conditions = [column == value for column, value in equal if value is not None]
        if self.since is not None:
            conditions.append(table.tm_create >= self.since)
        if self.until is not None:
            conditions.append(table.tm_create < self.until)
        return conditions


async def get(connection: AsyncConnection, customer_id: str, call_id: str) -> Call | None:
    """Return one of the customer's calls."""
    return await rows.find(connection, calls, Call, customer_id, call_id)


async def list_calls(
    connection: AsyncConnection,
    customer_id: str,
    which: CallFilter = CallFilter(),
    *,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Call]:
    """List the customer's calls, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    query = list_query(customer_id, which, token, limit)
    result = await connection.execute(query)
    found = (Call.model_validate(dict(row)) for row in result.mappings())
    return page_of(found, limit, lambda call: Position.at(call.tm_create, call.id))


def list_query(customer_id: str, which: CallFilter, token: str | None, limit: int) -> Any:
    """Return the query of `list_calls`."""
    query = rows.select_rows(calls, Call, customer_id).where(*which.conditions())
    if which.number is None:
        return newest_first(query, calls.c.tm_create, calls.c.id, token, limit)
    # Two lists, each by its index: an OR of both columns would read all of the customer's calls.
    called = calls.c.destination == which.number
    lists = (
        query.where(calls.c.source == which.number, calls.c.destination != which.number),
        query.where(called),
    )
    both = union_all(
        *(
            select(newest_first(part, calls.c.tm_create, calls.c.id, token, limit).subquery())
            for part in lists
        )
    ).subquery()
    merged: Select[Any] = select(*both.c)
    return newest_first(merged, both.c.tm_create, both.c.id, None, limit)
