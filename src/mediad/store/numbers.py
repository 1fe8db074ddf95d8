"""Numbers that can be called, and which agent or flow answers. A number has one customer, who then
has the call, too.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import agents as agents_store
from mediad.store import rows
from mediad.store.agents import check_override
from mediad.store.audit import Actor
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Fields, Object, Row, SmallObject
from mediad.store.tables import agents, flows, numbers
from mediad.store.types import NEVER

__all__ = [
    "Number",
    "NumberFields",
    "NumberTaken",
    "UnknownTarget",
    "check_targets",
    "create",
    "delete",
    "find_called",
    "get",
    "list_numbers",
    "spellings",
    "update",
]

Id = Annotated[str, Field(min_length=1, max_length=36)]
Tag = Annotated[str, Field(min_length=1, max_length=50)]


class NumberTaken(ValueError):
    """A customer, this or another one, has the number already."""


class UnknownTarget(ValueError):
    """The customer has no such agent or flow.

    Args:
        what: agent or flow.
        id: Whose there is none.
    """

    def __init__(self, what: str, id: str) -> None:
        super().__init__(f"there is no {what} {id}")
        self.what = what


class NumberFields(Fields):
    """What a person says of a number."""

    number: Annotated[str, Field(pattern=r"^(\+[1-9][0-9]{1,14}|[0-9]{2,8})$")]
    """E.164 with its +, or an extension."""
    name: Annotated[str, Field(max_length=255)] = ""
    detail: Annotated[str, Field(max_length=10_000)] = ""
    status: Literal["active", "inactive"] = "active"
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    """ISO 3166."""
    provider: Annotated[str, Field(min_length=1, max_length=50)] | None = None
    provider_data: SmallObject | None = None
    """What only this provider knows, up to 16 KiB of JSON."""
    agent_id: Id | None = None
    flow_id: Id | None = None
    agent_config_override: Annotated[SmallObject, AfterValidator(check_override)] | None = None
    """Goes over the agent's config, part by part: any of what that has, up to 16 KiB of JSON."""
    tags: Annotated[list[Tag], Field(max_length=10)] = []


class Number(Row):
    """A number."""

    customer_id: str
    number: str
    name: str
    detail: str
    status: str
    country: str | None
    provider: str | None
    provider_data: Object | None
    agent_id: str | None
    flow_id: str | None
    agent_config_override: Object | None
    tags: list[str] | None


def spellings(called: str) -> tuple[str, ...]:
    """Return how a called number may be written here: exchanges like to leave out the +."""
    return (called,) if called.startswith("+") else (called, f"+{called}")


async def find_called(connection: AsyncConnection, called: str) -> Number | None:
    """Return whose number was called, if anybody's. The one query over all customers: the number
    says which customer it is.
    """
    columns = [numbers.c[name] for name in Number.model_fields]
    query = select(*columns).where(
        numbers.c.number.in_(spellings(called)), numbers.c.tm_delete == NEVER
    )
    found = {row["number"]: row for row in (await connection.execute(query)).mappings()}
    for number in spellings(called):  # an extension goes before a number of the same digits
        if number in found:
            return Number.model_validate(dict(found[number]))
    return None


async def check_targets(
    connection: AsyncConnection,
    customer_id: str,
    values: Mapping[str, object],
    before: Number | None = None,
) -> None:
    """Make sure that the agent and the flow of new values, as far as they are among them, are the
    customer's, and that the number's own config goes over its agent's. To be called in the
    transaction that then writes them.

    Args:
        connection: In that transaction.
        customer_id: Whose number it is.
        values: What is new of it.
        before: The number as it is, None if it is made.

    Raises:
        UnknownTarget: If one is not.
        ValueError: If the configs do not go together.
    """
    for what, table in (("agent", agents), ("flow", flows)):
        id = values.get(f"{what}_id")
        if id is None:
            continue
        # Locked, so that it is not deleted meanwhile.
        query = rows.select_rows(table, Row, customer_id).where(table.c.id == id)
        if (await connection.execute(query.with_for_update(read=True))).first() is None:
            raise UnknownTarget(what, str(id))
    if values.keys() & {"agent_id", "agent_config_override"}:
        now = {} if before is None else before.model_dump()
        await _check_override(connection, customer_id, now | dict(values))


async def _check_override(
    connection: AsyncConnection, customer_id: str, number: Mapping[str, Any]
) -> None:
    agent_id, override = number.get("agent_id"), number.get("agent_config_override")
    if agent_id is None or override is None:
        return
    agent = await agents_store.get(connection, customer_id, agent_id)
    if agent is None:  # deleted since
        return
    try:
        check_override(override, config=agent.config)
    except ValueError as exc:
        raise ValueError(f"agent_config_override: with the agent's config: {exc}") from exc


async def create(
    connection: AsyncConnection, customer_id: str, fields: NumberFields, actor: Actor
) -> Number:
    """Insert a number and return it.

    Raises:
        NumberTaken: If somebody has it already.
    """
    try:
        return await rows.add(connection, numbers, Number, customer_id, fields, actor)
    except IntegrityError as exc:
        raise NumberTaken(f"{fields.number} is somebody's already") from exc


async def get(connection: AsyncConnection, customer_id: str, number_id: str) -> Number | None:
    """Return one of the customer's numbers."""
    return await rows.find(connection, numbers, Number, customer_id, number_id)


async def list_numbers(
    connection: AsyncConnection,
    customer_id: str,
    *,
    status: str | None = None,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Number]:
    """List the customer's numbers, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    conditions = [] if status is None else [numbers.c.status == status]
    return await rows.list_rows(
        connection, numbers, Number, customer_id, *conditions, token=token, limit=limit
    )


async def update(
    connection: AsyncConnection,
    customer_id: str,
    number_id: str,
    changes: Mapping[str, object],
    actor: Actor,
) -> Number | None:
    """Change a number's `NumberFields` and return it.

    Raises:
        ValueError: If a change is wrong.
        NumberTaken: If somebody has the new number already.
    """
    try:
        return await rows.change(
            connection, numbers, Number, customer_id, number_id, NumberFields, changes, actor
        )
    except IntegrityError as exc:
        raise NumberTaken(f"{changes.get('number')} is somebody's already") from exc


async def delete(
    connection: AsyncConnection, customer_id: str, number_id: str, actor: Actor
) -> Number | None:
    """Delete a number and return it. It can be created again, by anybody."""
    return await rows.remove(connection, numbers, Number, customer_id, number_id, actor)
