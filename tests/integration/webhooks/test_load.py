"""Five hundred deliveries a second over twenty endpoints, three of which hang: from a fact, by way
of journal, writer and database, to the request.

``make test-load`` runs it for a minute (``MEDIAD_LOAD_S``) and prints the figures.
"""

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mediad.bus.events import Event
from mediad.store.database import Database
from mediad.store.outbox import with_due
from tests.facts import CallFacts
from tests.integration.webhooks import far_receiver
from tests.integration.webhooks.receiver import add_webhook, running, writing
from tests.own_stalls import OwnStalls, watch_own_loop

SECONDS = float(os.environ.get("MEDIAD_LOAD_S", "4"))
CUSTOMERS = 10  # with two webhooks each
HANGING = 3
EVENTS_PER_S = 250
TICK_S = 0.01
EVENTS_PER_CALL = 10
# The short form shows that nobody waits for those that hang (10 s); the minute, how long it takes.
P99_S = 1.0 if SECONDS >= 60 else 5.0
GROWTH_MB = 30


def rss_mb() -> float:
    """Return the memory of this process, with the test's own books."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def stood_still_s(own: OwnStalls) -> float:
    """Return how long this process did nothing: its own work holds it up for less."""
    return own.worst_s() if own.worst_s() > 0.5 else 0.0


def fact(call: CallFacts, number: int) -> Event:
    """Return a call's next fact, which has just happened."""
    if number == 0:
        happened = call.created()
    elif number < EVENTS_PER_CALL - 1:
        happened = call.digit()
    else:
        happened = call.hungup()
    return replace(happened, timestamp=datetime.now(UTC))


async def test_five_hundred_deliveries_a_second(database: Database, tmp_path: Path) -> None:
    memory: list[float] = []
    async with (
        far_receiver.run() as receiver,
        running(database, timeout_s=10.0) as rig,
        writing(database, rig.bus, tmp_path) as journal,
        watch_own_loop() as own,
    ):
        customers = [f"customer-{number}" for number in range(CUSTOMERS)]
        for number in range(2 * CUSTOMERS):
            path = f"hang{number}" if number < HANGING else f"good{number}"
            customer_id = customers[number % CUSTOMERS]
            await add_webhook(database, f"{receiver.url}/{path}", customer_id=customer_id)
        began, cpu, made = time.monotonic(), time.process_time(), 0
        calls = [CallFacts() for _ in customers]
        while (elapsed := time.monotonic() - began) < SECONDS:
            while made < (elapsed - stood_still_s(own)) * EVENTS_PER_S:
                number, of = made // CUSTOMERS % EVENTS_PER_CALL, made % CUSTOMERS
                if number == 0:
                    calls[of] = CallFacts(customer_id=customers[of])
                assert journal.offer(fact(calls[of], number))
                made += 1
            memory.append(rss_mb())
            await asyncio.sleep(TICK_S)
        cpu = (time.process_time() - cpu) / SECONDS
        hanging_events = sum(1 for of in range(made) if of % CUSTOMERS < HANGING)
        expected = 2 * made - hanging_events
        async with asyncio.timeout(20):
            while len(late := await receiver.late_s()) < expected:  # noqa: ASYNC110 (it polls)
                await asyncio.sleep(0.2)
        in_memory = max(len(endpoint.taken) for endpoint in rig.deliverer._endpoints.values())
        async with database.read() as connection:
            assert len(await with_due(connection, datetime.now(UTC))) >= HANGING
        stalls_s = stood_still_s(own)
    late.sort()
    third = len(memory) // 3
    growth = max(memory[-third:]) - max(memory[:third])
    print(
        f"\n{len(late) / SECONDS:.0f} deliveries/s for {SECONDS:.0f} s beside {HANGING} hanging: "
        f"p50 {late[len(late) // 2] * 1000:.0f} ms, p99 {late[len(late) * 99 // 100] * 1000:.0f} "
        f"ms, max {late[-1] * 1000:.0f} ms; memory {memory[0]:.0f} MB, {growth:+.1f} MB; "
        f"CPU {cpu * 100:.0f} %; {in_memory} in memory at most per endpoint"
    )
    assert late[len(late) * 99 // 100] < P99_S + stalls_s
    assert growth < GROWTH_MB
