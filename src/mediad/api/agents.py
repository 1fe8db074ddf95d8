"""Agents: how the AI behind a number speaks and behaves."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from mediad.api.access import Admin, Viewer
from mediad.api.lists import (
    INVALID,
    NOT_FOUND,
    Id,
    ListOf,
    PageSize,
    PageToken,
    check_json,
    checking,
    found,
)
from mediad.api.services import ServicesOf
from mediad.store import agents
from mediad.store.agents import Agent, AgentConfig, AgentFields
from mediad.store.pages import DEFAULT_LIMIT

__all__ = ["router"]

router = APIRouter(prefix="/agents", tags=["agents"])


class NewAgent(AgentFields):
    """What is to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "bakery", "config": {"prompt": "You answer the phone."}}]
        }
    )


class AgentChanges(AgentFields):
    """What is to be another way; what is left out stays."""

    name: str = Field(default_factory=str, min_length=1, max_length=100)
    config: AgentConfig = Field(default_factory=lambda: AgentConfig(prompt="is not looked at"))


@router.post("", status_code=201, responses=INVALID)
async def create_agent(new: NewAgent, access: Admin, services: ServicesOf) -> Agent:
    """Make one."""
    check_json(new)
    async with services.database.write() as connection:
        row = await agents.create(connection, access.customer_id, new, access.key_id)
    await services.reads.forget(row)
    return row


@router.get("", responses=INVALID)
async def list_agents(
    access: Viewer,
    services: ServicesOf,
    status: Literal["active", "inactive"] | None = None,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[Agent]:
    """List them, newest first."""
    with checking():
        async with services.database.read() as connection:
            page = await agents.list_agents(
                connection, access.customer_id, status=status, token=page_token, limit=page_size
            )
    return ListOf[Agent].of(page)


@router.get("/{agent_id}", responses=NOT_FOUND)
async def get_agent(agent_id: Id, access: Viewer, services: ServicesOf) -> Agent:
    """Return one."""
    async with services.database.read() as connection:
        row = await agents.get(connection, access.customer_id, agent_id)
    return found(row, "agent", agent_id)


@router.patch("/{agent_id}", responses=NOT_FOUND | INVALID)
async def change_agent(
    agent_id: Id, changes: AgentChanges, access: Admin, services: ServicesOf
) -> Agent:
    """Change one. Calls that it is on keep what they began with."""
    check_json(changes)
    values = changes.model_dump(mode="json", exclude_unset=True)
    with checking():
        async with services.database.write() as connection:
            row = await agents.update(
                connection, access.customer_id, agent_id, values, access.key_id
            )
    row = found(row, "agent", agent_id)
    await services.reads.forget(row)
    return row


@router.delete("/{agent_id}", status_code=204, responses=NOT_FOUND)
async def delete_agent(agent_id: Id, access: Admin, services: ServicesOf) -> Response:
    """Delete one."""
    async with services.database.write() as connection:
        row = await agents.delete(connection, access.customer_id, agent_id, access.key_id)
    await services.reads.forget(found(row, "agent", agent_id))
    return Response(status_code=204)
