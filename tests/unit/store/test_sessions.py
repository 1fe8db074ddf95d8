"""Who calls are between is known while they live, and of some a while after."""

import asyncio

import pytest

from mediad.bus.bus import Bus
from mediad.bus.public import Parties
from mediad.cache.keys import Keys
from mediad.cache.memory import MemoryCache
from mediad.metrics import Metrics
from mediad.store import sessions as module
from mediad.store.sessions import Sessions
from tests.facts import CallFacts


async def test_parties_are_known_of_live_calls_and_of_the_last_that_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_GONE", 1)
    metrics = Metrics()
    bus = Bus(metrics)
    sessions = Sessions(MemoryCache(Keys("mediad", "test"), metrics, 10_000, 0), bus, metrics)
    first, last, live = (CallFacts(customer_id="acme") for _ in range(3))
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(sessions.run())
        await asyncio.sleep(0)
        for call in (first, last, live):
            bus.publish(call.created(source="x" * 300))  # a row has 255 of them
        for call in (first, last):
            bus.publish(call.hungup())
        await asyncio.sleep(0.02)
        following.cancel()
    known = Parties("x" * 255, "bob")
    found = [sessions.parties("acme", call.call_id) for call in (first, last, live)]
    assert found == [None, known, known]
    assert [sessions.parties("other", call.call_id) for call in (last, live)] == [None, None]
