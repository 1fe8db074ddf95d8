"""Who answers a call: the called number, its agent, and what the number changes of it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mediad.cache import open_cache
from mediad.config import Cache, Redis
from mediad.metrics import Metrics
from mediad.store import agents, numbers
from mediad.store.agents import AgentFields
from mediad.store.audit import MEDIAD
from mediad.store.cached import CachedReads
from mediad.store.database import Database
from mediad.store.numbers import Number, NumberFields
from mediad.store.routing import NoRoute, route

CONFIG = {"prompt": "You are helpful.", "flow": {"response_delay_ms": 100}}


@pytest.fixture
async def reads(database: Database) -> AsyncIterator[CachedReads]:
    """Reads with a cache of their own."""
    cache = open_cache(Redis(), Cache(), Metrics())
    yield CachedReads(cache, database)
    await cache.close()


async def add_agent(database: Database, status: str = "active", **config: Any) -> str:
    fields = {"name": "a", "status": status, "config": CONFIG | config}
    async with database.write() as connection:
        made = await agents.create(connection, "ours", AgentFields.model_validate(fields), MEDIAD)
    return made.id


async def add_number(database: Database, number: str, **fields: Any) -> Number:
    wanted = NumberFields.model_validate({"number": number} | fields)
    async with database.write() as connection:
        return await numbers.create(connection, "ours", wanted, MEDIAD)


async def test_number_leads_to_its_agent_and_changes_its_config(
    database: Database, reads: CachedReads
) -> None:
    agent_id = await add_agent(database, variables={"shop": "1", "tier": "gold"})
    override = {"variables": {"shop": "2"}, "flow": {"interruption": {"allowed": False}}}
    number = await add_number(
        database, "+4930111", agent_id=agent_id, agent_config_override=override
    )
    for called in ("+4930111", "4930111"):
        way = await route(reads, "ours", called)
        assert (way.number_id, way.agent_id) == (number.id, agent_id)
        assert way.agent_config is not None
        assert way.agent_config["variables"] == {"shop": "2", "tier": "gold"}
        assert way.agent_config["flow"] == {
            "user_start_first": False,
            "response_delay_ms": 100,
            "interruption": {"allowed": False},
        }
        assert way.agent_config["session_timeout_s"] == 300


async def test_named_agent_goes_before_the_number(database: Database, reads: CachedReads) -> None:
    agent_id = await add_agent(database)
    way = await route(reads, "ours", "+4930999", agent_id)
    assert (way.number_id, way.agent_id) == (None, agent_id)


@pytest.mark.parametrize(
    ("customer_id", "called", "reason"),
    [
        ("ours", "+4930999", "unknown_number"),
        ("theirs", "+4930111", "unknown_number"),
        ("ours", "+4930222", "inactive_number"),
        ("ours", "+4930333", "inactive_agent"),
        ("ours", "+4930444", "unknown_agent"),
        ("ours", "+4930555", "bad_config"),
    ],
)
async def test_call_that_nobody_answers_says_why(
    database: Database, reads: CachedReads, customer_id: str, called: str, reason: str
) -> None:
    agent_id = await add_agent(database)
    await add_number(database, "+4930111", agent_id=agent_id)
    await add_number(database, "+4930222", agent_id=agent_id, status="inactive")
    inactive = await add_agent(database, status="inactive")
    await add_number(database, "+4930333", agent_id=inactive)
    await add_number(database, "+4930444", agent_id="nobody")
    bad = {"voice": {"model": "no voice to go over"}}
    await add_number(database, "+4930555", agent_id=agent_id, agent_config_override=bad)
    with pytest.raises(NoRoute) as refused:
        await route(reads, customer_id, called)
    assert refused.value.reason == reason
