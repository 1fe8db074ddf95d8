"""The bus: numbers, order, and what happens to a subscriber that does not read."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mediad.bus.bus import MAX_DURABLE, MAX_LIVE, Bus, Subscription
from mediad.bus.events import Event
from mediad.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def bus(metrics: Metrics) -> Bus:
    return Bus(metrics)


def live(offset_s: float = 0.0) -> Event:
    return Event("speaking", "call-1", offset_s)


def durable(offset_s: float = 0.0, customer_id: str = "default") -> Event:
    return Event("dtmf_received", "call-1", offset_s, customer_id=customer_id)


async def take(subscription: Subscription, count: int) -> list[Event]:
    taken: list[Event] = []
    async with asyncio.timeout(5):
        async for event in subscription:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


async def rest(subscription: Subscription) -> list[Event]:
    """Read to the end of a subscription that is cut off."""
    async with asyncio.timeout(5):
        return [event async for event in subscription]


def dropped(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("mediad_events_dropped_total")


def test_durable_events_are_numbered_per_customer(bus: Bus) -> None:
    customers = ("a", "a", "b", "a")
    assert [bus.publish(durable(customer_id=c)).sequence for c in customers] == [1, 2, 1, 3]


def test_live_events_have_no_number_and_take_none(bus: Bus) -> None:
    assert bus.publish(live()).sequence is None
    assert bus.publish(durable()).sequence == 1


def test_published_event_keeps_its_id(bus: Bus) -> None:
    event = durable()
    assert bus.publish(event).event_id == event.event_id


async def test_every_subscriber_gets_every_event_in_order(bus: Bus) -> None:
    with bus.subscribe() as first, bus.subscribe() as second:
        published = [bus.publish(make(at)) for at, make in enumerate((live, durable, live))]
        assert await take(first, 3) == await take(second, 3) == published


async def test_waiting_subscriber_wakes_up(bus: Bus) -> None:
    with bus.subscribe() as subscription:
        waiting = asyncio.ensure_future(take(subscription, 1))
        await asyncio.sleep(0)
        event = bus.publish(live())
        assert await waiting == [event]


async def test_nothing_comes_from_before_or_after_the_block(bus: Bus) -> None:
    bus.publish(live(1.0))
    with bus.subscribe() as subscription:
        bus.publish(live(2.0))
    bus.publish(live(3.0))
    assert [event.offset_s for event in await take(subscription, 1)] == [2.0]


async def test_full_subscriber_loses_live_events_but_no_facts(bus: Bus, metrics: Metrics) -> None:
    with bus.subscribe() as subscription:
        for _ in range(MAX_LIVE + 5):
            bus.publish(live())
        bus.publish(durable())
        taken = await take(subscription, MAX_LIVE + 1)
    assert [event.durable for event in taken] == [False] * MAX_LIVE + [True]
    assert dropped(metrics) == 5


async def test_slow_subscriber_does_not_hold_up_another(bus: Bus) -> None:
    with bus.subscribe(), bus.subscribe() as reader:
        for _ in range(3):
            for _ in range(MAX_LIVE):
                bus.publish(live())
            assert len(await take(reader, MAX_LIVE)) == MAX_LIVE


async def test_subscriber_that_would_miss_a_fact_is_cut_off(bus: Bus, metrics: Metrics) -> None:
    with bus.subscribe() as subscription:
        for _ in range(MAX_DURABLE + 2):
            bus.publish(durable())
        assert subscription.cut_off
        taken = await rest(subscription)
    assert [event.sequence for event in taken] == list(range(1, MAX_DURABLE + 1))
    assert dropped(metrics) == 2


async def test_cut_off_wakes_a_waiting_subscriber() -> None:
    subscription = Subscription()
    waiting: AsyncIterator[Event] = subscription.__aiter__()
    first = asyncio.ensure_future(anext(waiting, None))
    await asyncio.sleep(0)
    for _ in range(MAX_DURABLE + 1):
        subscription.offer(durable())
    assert await first is not None
    assert len([event async for event in waiting]) == MAX_DURABLE - 1


def test_events_are_counted_by_type(bus: Bus, metrics: Metrics) -> None:
    for event in (live(), durable(), live()):
        bus.publish(event)
    count = metrics.registry.get_sample_value
    assert count("mediad_events_total", {"type": "speaking"}) == 2
    assert count("mediad_events_total", {"type": "dtmf_received"}) == 1
