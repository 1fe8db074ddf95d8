"""Agents: how the AI behind a number speaks and behaves."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.config import check_agent_url
from mediad.store import rows
from mediad.store.audit import Actor
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Fields, Object, Row, SmallObject
from mediad.store.tables import agents

__all__ = [
    "Agent",
    "AgentConfig",
    "AgentFields",
    "check_override",
    "create",
    "delete",
    "get",
    "list_agents",
    "merge_config",
    "update",
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Voice(_Part):
    """Which voice speaks."""

    provider: Literal["openai", "elevenlabs", "cartesia"]
    voice_id: Annotated[str, Field(min_length=1, max_length=255)]
    model: Annotated[str, Field(max_length=255)] | None = None
    settings: SmallObject = {}
    """What only this provider knows, up to 16 KiB of JSON."""


class Llm(_Part):
    """Which language model thinks."""

    model: Literal["gpt-4", "gpt-3.5-turbo", "gpt-4-turbo"]
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 500


class Interruption(_Part):
    """What happens when the caller speaks while the agent does."""

    allowed: bool = True


class TurnTaking(_Part):
    """Who speaks when."""

    user_start_first: bool = False
    response_delay_ms: Annotated[int, Field(ge=0, le=10_000)] = 500
    """From the end of the caller's turn to the agent's first sound, at least; what a pipeline's
    services take is within it."""
    interruption: Interruption = Interruption()


def _checked_url(url: str) -> str:
    check_agent_url(url)
    return url


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


AgentUrl = Annotated[
    str, Field(max_length=2000, pattern=r"^wss?://[!-~]+$"), AfterValidator(_checked_url)
]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class AgentConfig(_Part):
    """How an agent speaks and behaves. Without a voice or a model it has its own."""

    link: Literal["agent", "pipeline"] | None = None
    """One agent that hears and speaks, or mediad's own turns between three services; without one
    what ``ai.link`` says."""
    url: Annotated[tuple[AgentUrl, ...], Field(max_length=8), BeforeValidator(_one_or_more)] = ()
    """Where it is, ws:// or wss://, with stand-ins in their order; {call_id}, {from} and {to} may
    stand in it. Without one it is where ``ai.agent_url`` says."""
    variables: Annotated[
        dict[VariableName, Annotated[str, Field(max_length=256)]], Field(max_length=32)
    ] = {}
    """Told to the agent with each call, in the handshake's headers and in its first message."""
    prompt: Annotated[str, Field(min_length=10, max_length=5000)]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")] = "en-US"
    """ISO 639, with the ISO 3166 country."""
    voice: Voice | None = None
    llm: Llm | None = None
    first_message: Annotated[str, Field(max_length=5000)] | None = None
    session_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Longest call, in seconds."""
    flow: TurnTaking = TurnTaking()


class AgentFields(Fields):
    """What a person says of an agent."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    detail: Annotated[str, Field(max_length=10_000)] = ""
    status: Literal["active", "inactive"] = "active"
    config: AgentConfig


class Agent(Row):
    """An agent."""

    customer_id: str
    name: str
    detail: str
    status: str
    config: Object
    """An `AgentConfig`; as JSON, so that what a newer mediad put there is not lost."""
    total_calls: int = 0
    completed_calls: int = 0
    total_duration_ms: int = 0


def merge_config(config: Mapping[str, JsonValue], override: Mapping[str, JsonValue]) -> Object:
    """Return a config with a number's own over it: objects are merged, all else is replaced."""
    merged = dict(config)
    for name, value in override.items():
        below = merged.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            value = merge_config(below, value)
        merged[name] = value
    return merged


_COMPLETE = AgentConfig(
    prompt="has ten characters",
    voice=Voice(provider="openai", voice_id="alloy"),
    llm=Llm(model="gpt-4"),
).model_dump(mode="json")


def check_override(override: Object, *, config: Object = _COMPLETE) -> Object:
    """Return what goes over a config if both together are one. Before the config is known, it can
    only be made sure that all the override has is a config's, too.

    Raises:
        ValueError: If not; says where.
    """
    try:
        AgentConfig.model_validate(merge_config(config, override))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, error['loc']))}: {error['msg']}") from exc
    return override


async def create(
    connection: AsyncConnection, customer_id: str, fields: AgentFields, actor: Actor
) -> Agent:
    """Insert an agent and return it."""
    return await rows.add(connection, agents, Agent, customer_id, fields, actor)


async def get(connection: AsyncConnection, customer_id: str, agent_id: str) -> Agent | None:
    """Return one of the customer's agents."""
    return await rows.find(connection, agents, Agent, customer_id, agent_id)


async def list_agents(
    connection: AsyncConnection,
    customer_id: str,
    *,
    status: str | None = None,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Agent]:
    """List the customer's agents, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    conditions = [] if status is None else [agents.c.status == status]
    return await rows.list_rows(
        connection, agents, Agent, customer_id, *conditions, token=token, limit=limit
    )


async def update(
    connection: AsyncConnection,
    customer_id: str,
    agent_id: str,
    changes: Mapping[str, object],
    actor: Actor,
) -> Agent | None:
    """Change an agent's `AgentFields` and return it. Calls that it is on keep what they began with.

    Raises:
        ValueError: If a change is wrong.
    """
    return await rows.change(
        connection, agents, Agent, customer_id, agent_id, AgentFields, changes, actor
    )


async def delete(
    connection: AsyncConnection, customer_id: str, agent_id: str, actor: Actor
) -> Agent | None:
    """Delete an agent and return it."""
    return await rows.remove(connection, agents, Agent, customer_id, agent_id, actor)
