"""Flows: what a call does, action by action. Of an action only that it has a type is known here."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import rows
from mediad.store.audit import Actor
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Fields, Object, Row, at_most
from mediad.store.tables import flows

__all__ = ["Actions", "Flow", "FlowFields", "create", "delete", "get", "list_flows", "update"]

MAX_ACTIONS_BYTES = 65_536
"""Of a flow's actions together, as JSON in UTF-8."""

_TYPE = r"[a-z][a-z0-9_]{0,49}"


def _has_type(action: Object) -> Object:
    type_ = action.get("type")
    if not isinstance(type_, str) or not re.fullmatch(_TYPE, type_):
        raise ValueError("an action has a type, which is a word such as answer")
    return action


Action = Annotated[
    Object,
    AfterValidator(_has_type),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"type": {"type": "string", "pattern": f"^{_TYPE}$"}},
            "required": ["type"],
            "additionalProperties": True,
        }
    ),
]

Actions = Annotated[
    list[Action],
    Field(max_length=1000, description="Together up to 64 KiB of JSON."),
    at_most(MAX_ACTIONS_BYTES),
]


class FlowFields(Fields):
    """What a person says of a flow."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    detail: Annotated[str, Field(max_length=10_000)] = ""
    status: Literal["active", "inactive"] = "active"
    actions: Actions


class Flow(Row):
    """A flow."""

    customer_id: str
    name: str
    detail: str
    status: str
    actions: list[Object]


async def create(
    connection: AsyncConnection, customer_id: str, fields: FlowFields, actor: Actor
) -> Flow:
    """Insert a flow and return it."""
    return await rows.add(connection, flows, Flow, customer_id, fields, actor)


async def get(connection: AsyncConnection, customer_id: str, flow_id: str) -> Flow | None:
    """Return one of the customer's flows."""
    return await rows.find(connection, flows, Flow, customer_id, flow_id)


async def list_flows(
    connection: AsyncConnection,
    customer_id: str,
    *,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Flow]:
    """List the customer's flows, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    return await rows.list_rows(connection, flows, Flow, customer_id, token=token, limit=limit)


async def update(
    connection: AsyncConnection,
    customer_id: str,
    flow_id: str,
    changes: Mapping[str, object],
    actor: Actor,
) -> Flow | None:
    """Change a flow's `FlowFields` and return it.

    Raises:
        ValueError: If a change is wrong.
    """
    return await rows.change(
        connection, flows, Flow, customer_id, flow_id, FlowFields, changes, actor
    )


async def delete(
    connection: AsyncConnection, customer_id: str, flow_id: str, actor: Actor
) -> Flow | None:
    """Delete a flow and return it."""
    return await rows.remove(connection, flows, Flow, customer_id, flow_id, actor)
