"""Reads that the cache answers: calls, agents, numbers and flows. They may be as old as the cache
keeps them; whoever changes a row calls `forget` after the commit.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.cache.aside import CacheAside
from mediad.cache.cache import Cache
from mediad.cache.keys import Key
from mediad.store import agents, calls, flows, numbers
from mediad.store.agents import Agent
from mediad.store.calls import Call
from mediad.store.database import Database
from mediad.store.flows import Flow
from mediad.store.numbers import Number

__all__ = ["CachedReads"]

R = TypeVar("R", Call, Agent, Number, Flow)


class CachedReads:
    """Reads through the cache.

    All raise DatabaseUnavailable when the cache does not have it and the database does not answer.
    """

    def __init__(self, cache: Cache, database: Database) -> None:
        self._aside = CacheAside(cache)
        self._keys = cache.keys
        self._database = database

    async def call(self, customer_id: str, call_id: str) -> Call | None:
        """Return one of the customer's calls, at most a minute old."""
        return await self._owned(
            self._keys.call(call_id),
            Call,
            customer_id,
            lambda connection: calls.get(connection, customer_id, call_id),
        )

    async def agent(self, customer_id: str, agent_id: str) -> Agent | None:
        """Return one of the customer's agents."""
        return await self._owned(
            self._keys.agent(agent_id),
            Agent,
            customer_id,
            lambda connection: agents.get(connection, customer_id, agent_id),
        )

    async def flow(self, customer_id: str, flow_id: str) -> Flow | None:
        """Return one of the customer's flows."""
        return await self._owned(
            self._keys.flow(flow_id),
            Flow,
            customer_id,
            lambda connection: flows.get(connection, customer_id, flow_id),
        )

    async def called(self, number: str) -> Number | None:
        """Return whose number was called; it says which customer the call belongs to."""
        return await self._get(
            self._keys.number(number),
            Number,
            lambda connection: numbers.find_called(connection, number),
        )

    async def invalidate(self, call_ids: Iterable[str]) -> None:
        """Forget calls that have changed."""
        await self._aside.invalidate(*(self._keys.call(call_id) for call_id in call_ids))

    async def forget(self, *rows: Call | Agent | Number | Flow) -> None:
        """Forget rows that have changed; of a changed number both, as it was and as it is."""
        await self._aside.invalidate(*(key for row in rows for key in self._keys_of(row)))

    def _keys_of(self, row: Call | Agent | Number | Flow) -> list[Key]:
        match row:
            case Call():
                return [self._keys.call(row.id)]
            case Agent():
                return [self._keys.agent(row.id)]
            case Flow():
                return [self._keys.flow(row.id)]
            case Number():
                spellings = {row.number, row.number.removeprefix("+")}
                return [self._keys.number(spelling) for spelling in sorted(spellings)]

    async def _owned(
        self,
        key: Key,
        model: type[R],
        customer_id: str,
        load: Callable[[AsyncConnection], Awaitable[R | None]],
    ) -> R | None:
        row = await self._get(key, model, load)
        if row is None:
            # We may have waited for the look-up of another customer, to whom it is not there.
            async with self._database.read() as connection:
                row = await load(connection)
        return row if row is not None and row.customer_id == customer_id else None

    async def _get(
        self, key: Key, model: type[R], load: Callable[[AsyncConnection], Awaitable[R | None]]
    ) -> R | None:
        async def fetch() -> bytes | None:
            async with self._database.read() as connection:
                row = await load(connection)
            return None if row is None else row.model_dump_json().encode()

        value = await self._aside.get(key, fetch)
        try:
            return None if value is None else model.model_validate_json(value)
        except ValidationError:  # another version of mediad left it there
            await self._aside.invalidate(key)
            async with self._database.read() as connection:
                return await load(connection)
