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
from mediad.store.pages import DEFAULT_LIMIT, Page

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

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"detail": "Takes orders until six."}]}
    )

    name: str = Field(default_factory=str, min_length=1, max_length=100)
    config: AgentConfig = Field(default_factory=lambda: AgentConfig(prompt="is not looked at"))


class AgentView(Agent):
    """An agent, and how its calls went."""

    average_duration_s: float
    """How long they lasted, in seconds."""
    success_rate: float
    """How many of them were completed, from 0 to 1."""

    @classmethod
    def of(cls, row: Agent) -> "AgentView":
        """Return an agent as it is answered."""
        calls = max(1, row.total_calls)
        return cls(
            **row.model_dump(),
            average_duration_s=row.total_duration_ms / 1000 / calls,
            success_rate=row.completed_calls / calls,
        )


@router.post("", status_code=201, responses=INVALID)
async def create_agent(new: NewAgent, access: Admin, services: ServicesOf) -> AgentView:
    """Make an agent: how the AI behind numbers speaks and behaves."""
    check_json(new)
    async with services.database.write() as connection:
        row = await agents.create(connection, access.customer_id, new, access.actor)
    await services.reads.forget(row)
    return AgentView.of(row)


@router.get("", responses=INVALID)
async def list_agents(
    access: Viewer,
    services: ServicesOf,
    status: Literal["active", "inactive"] | None = None,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[AgentView]:
    """List your agents, newest first, with how their calls went."""
    with checking():
        async with services.database.read() as connection:
            page = await agents.list_agents(
                connection, access.customer_id, status=status, token=page_token, limit=page_size
            )
    views = [AgentView.of(row) for row in page.items]
    return ListOf[AgentView].of(Page(views, page.next_token))


@router.get("/{agent_id}", responses=NOT_FOUND)
async def get_agent(agent_id: Id, access: Viewer, services: ServicesOf) -> AgentView:
    """Return an agent with its config and how its calls went."""
    async with services.database.read() as connection:
        row = await agents.get(connection, access.customer_id, agent_id)
    return AgentView.of(found(row, "agent", agent_id))


@router.patch("/{agent_id}", responses=NOT_FOUND | INVALID)
async def change_agent(
    agent_id: Id, changes: AgentChanges, access: Admin, services: ServicesOf
) -> AgentView:
    """Change an agent; a config replaces the one before as a whole. Calls that it is on keep what
    they began with.
    """
    check_json(changes)
    values = changes.model_dump(mode="json", exclude_unset=True)
    with checking():
        async with services.database.write() as connection:
            row = await agents.update(
                connection, access.customer_id, agent_id, values, access.actor
            )
    row = found(row, "agent", agent_id)
    await services.reads.forget(row)
    return AgentView.of(row)


@router.delete("/{agent_id}", status_code=204, responses=NOT_FOUND)
async def delete_agent(agent_id: Id, access: Admin, services: ServicesOf) -> Response:
    """Delete an agent. Numbers that lead to it refuse calls until they lead elsewhere."""
    async with services.database.write() as connection:
        row = await agents.delete(connection, access.customer_id, agent_id, access.actor)
    await services.reads.forget(found(row, "agent", agent_id))
    return Response(status_code=204)
