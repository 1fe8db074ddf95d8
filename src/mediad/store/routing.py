"""Who answers a call: the called number leads to its agent, with the number's own config over the
agent's. What comes of it stands for the whole call, whatever is changed meanwhile.
"""

from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from mediad.store.agents import AgentConfig, merge_config
from mediad.store.cached import CachedReads

__all__ = ["NoRoute", "Route", "route"]

Object = dict[str, JsonValue]


class NoRoute(ValueError):
    """Nobody answers the call. What is wrong is told without another customer's affairs.

    Args:
        reason: A word for programs.
        message: A sentence for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Route(NamedTuple):
    """Who answers."""

    number_id: str | None
    agent_id: str | None
    """None leaves the call to the agents of ``ai.agent_url``."""
    agent_config: Object | None
    """An `AgentConfig` as JSON, all its defaults filled in."""


async def route(
    reads: CachedReads, customer_id: str, called: str, agent_id: str | None = None
) -> Route:
    """Return who answers a customer's call.

    Args:
        reads: Where numbers and agents are.
        customer_id: Whose call it is.
        called: The number that was called.
        agent_id: The agent that shall answer, whatever was called.

    Raises:
        NoRoute: If the number or the agent is none of the customer's, or not in use; or if the
            number's config does not go with the agent's.
        DatabaseUnavailable: If neither the cache nor the database knows.
    """
    if agent_id is not None:
        return Route(None, agent_id, await _config(reads, customer_id, agent_id, None))
    number = await reads.called(called)
    if number is None or number.customer_id != customer_id:
        raise NoRoute("unknown_number", f"{called} is no number of yours")
    if number.status != "active":
        raise NoRoute("inactive_number", f"{number.number} is not active")
    if number.agent_id is None:
        return Route(number.id, None, None)
    override = number.agent_config_override
    return Route(
        number.id, number.agent_id, await _config(reads, customer_id, number.agent_id, override)
    )


async def _config(
    reads: CachedReads, customer_id: str, agent_id: str, override: Object | None
) -> Object:
    agent = await reads.agent(customer_id, agent_id)
    if agent is None:
        raise NoRoute("unknown_agent", f"there is no agent {agent_id}")
    if agent.status != "active":
        raise NoRoute("inactive_agent", f"agent {agent_id} is not active")
    try:
        config = AgentConfig.model_validate(merge_config(agent.config, override or {}))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, error["loc"]))
        raise NoRoute("bad_config", f"the agent's config: {where}: {error['msg']}") from exc
    return config.model_dump(mode="json", exclude_none=True)
