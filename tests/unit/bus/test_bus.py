"""The bus: who gets what, order, threads, and what happens to a subscriber that does not read."""

import asyncio
import threading
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


def fact(offset_s: float = 0.0) -> Event:
    return Event("dtmf_received", "call-1", offset_s)


def durable(sequence: int = 1) -> Event:
    return Event("dtmf_received", "call-1", 0.0, sequence=sequence)


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


def test_facts_are_given_to_be_kept_and_nothing_else(metrics: Metrics) -> None:
    kept: list[Event] = []

    def keep(event: Event) -> bool:
        kept.append(event)
        return True

    bus = Bus(metrics, keep)
    published = [live(), fact(), live(1.0), fact(1.0)]
    for event in published:
        bus.publish(event)
    assert kept == [published[1], published[3]]


async def test_a_fact_that_cannot_be_kept_is_still_told(metrics: Metrics) -> None:
    bus = Bus(metrics, lambda _: False)
    with bus.subscribe() as subscription:
        bus.publish(event := fact())
        assert await take(subscription, 1) == [event]


async def test_every_subscriber_gets_every_event_in_order(bus: Bus) -> None:
    published = [live(0.0), fact(1.0), live(2.0)]
    with bus.subscribe() as first, bus.subscribe() as second:
        for event in published:
            bus.publish(event)
        assert await take(first, 3) == await take(second, 3) == published


async def test_each_subscriber_gets_the_kind_it_asked_for(bus: Bus) -> None:
    at_once, later = fact(), durable(7)
    with (
        bus.subscribe() as of_live,
        bus.subscribe(live=False, durable=True) as of_durable,
        bus.subscribe(durable=True) as of_both,
    ):
        bus.publish(at_once)
        bus.announce(later)
        bus.publish(end := live(9.0))
        bus.announce(last := durable(8))
        assert await take(of_live, 2) == [at_once, end]
        assert await take(of_durable, 2) == [later, last]
        assert await take(of_both, 4) == [at_once, later, end, last]


async def test_events_of_another_thread_come_in_order_and_wake_the_reader(bus: Bus) -> None:
    with bus.subscribe() as subscription:
        reading = asyncio.ensure_future(take(subscription, 500))
        await asyncio.sleep(0)
        events = [live(float(at)) for at in range(500)]

        def publish() -> None:
            for event in events:
                bus.publish(event)

        thread = threading.Thread(target=publish)
        thread.start()
        assert await reading == events
        thread.join()


async def test_waiting_subscriber_wakes_up(bus: Bus) -> None:
    with bus.subscribe() as subscription:
        waiting = asyncio.ensure_future(take(subscription, 1))
        await asyncio.sleep(0)
        bus.publish(event := live())
        assert await waiting == [event]


async def test_nothing_comes_from_before_or_after_the_block(bus: Bus) -> None:
    bus.publish(live(1.0))
    with bus.subscribe() as subscription:
        bus.publish(live(2.0))
    bus.publish(live(3.0))
    assert [event.offset_s for event in await take(subscription, 1)] == [2.0]


async def test_full_subscriber_loses_live_events_but_no_durable_ones(
    bus: Bus, metrics: Metrics
) -> None:
    with bus.subscribe(durable=True) as subscription:
        for _ in range(MAX_LIVE + 5):
            bus.publish(live())
        bus.announce(durable())
        taken = await take(subscription, MAX_LIVE + 1)
    assert [event.is_durable for event in taken] == [False] * MAX_LIVE + [True]
    assert dropped(metrics) == 5


async def test_slow_subscriber_does_not_hold_up_another(bus: Bus) -> None:
    with bus.subscribe(), bus.subscribe() as reader:
        for _ in range(3):
            for _ in range(MAX_LIVE):
                bus.publish(live())
            assert len(await take(reader, MAX_LIVE)) == MAX_LIVE


async def test_subscriber_that_would_miss_a_number_is_cut_off(bus: Bus, metrics: Metrics) -> None:
    with bus.subscribe(durable=True) as subscription:
        for sequence in range(1, MAX_DURABLE + 3):
            bus.announce(durable(sequence))
        assert subscription.cut_off
        taken = await rest(subscription)
    assert [event.sequence for event in taken] == list(range(1, MAX_DURABLE + 1))
    assert dropped(metrics) == 2


async def test_cut_off_wakes_a_waiting_subscriber() -> None:
    subscription = Subscription(live=True, durable=True)
    waiting: AsyncIterator[Event] = subscription.__aiter__()
    first = asyncio.ensure_future(anext(waiting, None))
    await asyncio.sleep(0)
    for _ in range(MAX_DURABLE + 1):
        subscription.offer(durable())
    assert await first is not None
    assert len([event async for event in waiting]) == MAX_DURABLE - 1


def test_events_are_counted_by_type(bus: Bus, metrics: Metrics) -> None:
    for event in (live(), fact(), live()):
        bus.publish(event)
    bus.announce(durable())
    count = metrics.registry.get_sample_value
    assert count("mediad_events_total", {"type": "speaking"}) == 2
    assert count("mediad_events_total", {"type": "dtmf_received"}) == 1


async def test_what_waits_can_be_taken_at_once(bus: Bus) -> None:
    with bus.subscribe(durable=True) as subscription:
        waiting = asyncio.create_task(subscription.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        for number in range(3):
            bus.announce(durable(number))
        await asyncio.wait_for(waiting, 5)
        assert [event.sequence for event in subscription.take()] == [0, 1, 2]
        assert subscription.take() == []
        for number in range(MAX_DURABLE + 1):
            bus.announce(durable(number))
        subscription.take()
        await asyncio.wait_for(subscription.wait(), 5)  # it is cut off
        assert subscription.cut_off
