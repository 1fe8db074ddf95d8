"""What deliveries are found by goes by an index: EXPLAIN says so, on 20,000 of them."""

from datetime import timedelta
from typing import Any

from sqlalchemy import insert, text

from mediad.store import outbox, webhook_deliveries
from mediad.store.database import Database
from mediad.store.tables import customers as customers_table
from mediad.store.tables import webhook_deliveries as deliveries_table
from mediad.store.tables import webhooks as webhooks_table
from mediad.store.types import NEVER, utc_now
from mediad.store.webhook_deliveries import DeliveryFilter
from tests.integration.store.test_explain import Query, explain

ROWS = 20_000
WEBHOOKS = 200
CUSTOMERS = 20
NOW = utc_now()


async def seed(database: Database) -> None:
    times = {"tm_create": NOW, "tm_update": NOW, "tm_delete": NEVER}
    owners = [{"id": f"customer-{n}", "status": "active"} | times for n in range(CUSTOMERS)]
    hooks = [
        {
            "id": f"webhook-{number}",
            "customer_id": f"customer-{number % CUSTOMERS}",
            "status": "active",
            "url": "http://example.com/",
            "events": [],
            "secret": "whsec_",
            "last_sequence": 0,
        }
        | times
        for number in range(WEBHOOKS)
    ]
    rows: list[dict[str, Any]] = [
        {
            "id": f"delivery-{number}",
            "customer_id": f"customer-{number % CUSTOMERS}",
            "status": "pending" if number % 50 < 5 else "delivered",
            "webhook_id": f"webhook-{number % WEBHOOKS}",
            "event_id": f"event-{number}",
            "event_type": "call_created",
            "call_id": f"call-{number // 400}",
            "sequence": number,
            "attempts": 0,
            "attempt_log": [],
            "tm_next": NOW,
        }
        | times
        | {"tm_create": NOW + timedelta(seconds=number)}
        for number in range(ROWS)
    ]
    async with database.write() as connection:
        await connection.execute(insert(customers_table), owners)
        await connection.execute(insert(webhooks_table), hooks)
        for start in range(0, ROWS, 5_000):
            await connection.execute(insert(deliveries_table), rows[start : start + 5_000])
    async with database.read() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        names = "customers, webhooks, webhook_deliveries"
        await connection.execute(text("ANALYZE" if is_sqlite else f"ANALYZE TABLE {names}"))


CALLS_OF = {"webhook-3": ["call-1", "call-7"], "webhook-4": ["call-2"]}
QUERIES: list[tuple[str, Query, set[str]]] = [
    (
        "first of calls",
        lambda c: outbox.find_first(c, ["webhook-3", "webhook-4"], NOW, 32),
        {"due", "call"},
    ),
    (
        "pending of calls",
        lambda c: outbox.find_pending(c, CALLS_OF, 64),
        {"call"},
    ),
    ("webhooks with due", lambda c: outbox.with_due(c, NOW), {"due"}),
    (
        "list",
        lambda c: webhook_deliveries.list_deliveries(c, "customer-3"),
        {"customer"},
    ),
    (
        "list of a status",
        lambda c: webhook_deliveries.list_deliveries(
            c, "customer-3", DeliveryFilter(status="pending")
        ),
        {"customer_status"},
    ),
    (
        "list of a webhook",
        lambda c: webhook_deliveries.list_deliveries(
            c, "customer-3", DeliveryFilter(webhook_id="webhook-3")
        ),
        {"customer_webhook"},
    ),
]


async def test_queries_go_by_their_indexes(database: Database) -> None:
    await seed(database)
    async with database.read() as connection:
        for name, query, wanted in QUERIES:
            steps = await explain(connection, query)
            print(name, steps)
            used = {
                step.index.removeprefix("idx_webhook_deliveries_")
                for step in steps
                if step.index and "deliver" in step.index
            }
            assert used == wanted, name
