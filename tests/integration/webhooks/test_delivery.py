"""Deliveries: nothing is missed, each call's events come in order, nobody waits for another."""

import asyncio
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook as IndependentReader

from mediad.bus.events import DEFAULT_CUSTOMER
from mediad.store import customers, outbox, webhook_deliveries, webhooks
from mediad.store.audit import MEDIAD
from mediad.store.database import Database
from mediad.store.webhook_deliveries import Delivery, DeliveryFilter
from mediad.webhooks import delivery
from mediad.webhooks.signing import new_secret, verify
from tests.facts import CallFacts
from tests.integration.webhooks.receiver import (
    SECRET,
    Receiver,
    Request,
    add_webhook,
    happen,
    running,
)
from tests.own_stalls import watch_own_loop


async def deliveries(database: Database, **which: Any) -> list[Delivery]:
    async with database.read() as connection:
        page = await webhook_deliveries.list_deliveries(
            connection, DEFAULT_CUSTOMER, DeliveryFilter(**which), limit=500
        )
    return page.items


def by_call(requests: list[Request]) -> dict[str, list[int]]:
    """Return the numbers of the events that arrived, per call, in the order they did."""
    numbers: dict[str, list[int]] = {}
    for request in requests:
        numbers.setdefault(request.body["data"]["call_id"], []).append(request.body["sequence"])
    return numbers


async def test_a_calls_end_arrives_signed(database: Database) -> None:
    call = CallFacts()
    async with Receiver() as receiver, running(database) as rig:
        webhook_id = await add_webhook(database, receiver.url, "call_hungup")
        told = await happen(database, call.whole(), rig.bus)
        (request,) = await receiver.received(1)
        await rig.settle()
        assert (
            rig.metrics.registry.get_sample_value(
                "mediad_webhook_attempts_total", {"outcome": "delivered"}
            )
            == 1
        )
    end = told[-1]
    assert request.body == {
        "id": end.event_id,
        "type": "call_hungup",
        "created": end.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "sequence": end.sequence,
        "data": {
            "id": call.call_id,
            "type": "call",
            "customer_id": DEFAULT_CUSTOMER,
            "call_id": call.call_id,
            "source": "alice",
            "destination": "bob",
            "offset": end.offset_s,
            "status": "completed",
            "duration": end.data["duration_s"],
            "hangup_by": "caller",
            "hangup_cause": "normal_clearing",
        },
    }
    assert IndependentReader(SECRET).verify(request.raw, request.headers) == request.body
    assert verify(SECRET, request.headers, request.raw, time.time()) == request.body
    assert request.headers["webhook-id"] == end.event_id
    assert request.headers["X-VoIPBIN-Event"] == "call_hungup"
    assert request.headers["Content-Type"] == "application/json"
    (delivery,) = await deliveries(database)
    assert (delivery.status, delivery.attempts, delivery.webhook_id) == ("delivered", 1, webhook_id)
    (attempt,) = delivery.attempt_log
    assert (attempt["status"], attempt["error"], attempt["excerpt"]) == (200, None, "thank you")


async def test_what_nobody_announced_is_delivered(database: Database) -> None:
    async with Receiver() as receiver:
        await add_webhook(database, receiver.url)
        await happen(database, CallFacts().whole(3))
        async with running(database):
            await receiver.received(7)
            await happen(database, CallFacts().whole(3))
            await receiver.received(14)
    for numbers in by_call(receiver.requests).values():
        assert numbers == sorted(numbers)
    assert sorted(request.body["sequence"] for request in receiver.requests) == list(range(1, 15))


async def test_filters_and_customers_decide_what_is_told(database: Database) -> None:
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, f"{receiver.url}/words", "transcript_*")
        await add_webhook(database, f"{receiver.url}/ends", "call_hungup")
        await add_webhook(database, f"{receiver.url}/others", customer_id="other")
        await happen(database, CallFacts().whole(2), rig.bus)
        await receiver.received(3)
        await rig.settle()
    told = sorted((request.path, request.body["type"]) for request in receiver.requests)
    assert told == [("/ends", "call_hungup"), *[("/words", "transcript_created")] * 2]


async def test_an_endpoint_down_for_an_hour_gets_everything_in_order(database: Database) -> None:
    calls = [CallFacts() for _ in range(5)]
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, receiver.url)
        receiver.answer = lambda _: 503
        for call in calls:
            await happen(database, [call.created(), call.started()], rig.bus)
        await rig.pass_time(1800, 120)
        for call in calls:
            await happen(database, [call.said("one"), call.said("two"), call.hungup()], rig.bus)
        await rig.pass_time(1800, 120)
        tried = {request.headers["webhook-id"] for request in receiver.requests}
        assert len(tried) == 5  # what comes after a call's first event waits for it
        receiver.requests.clear()
        receiver.answer = lambda _: 200
        await rig.pass_time(4 * 3600, 1800)
    numbers = by_call(receiver.requests)
    assert len(receiver.requests) == 25
    assert all(of_call == sorted(of_call) for of_call in numbers.values())
    for call in calls:
        assert [
            request.body["type"]
            for request in receiver.requests
            if request.body["data"]["call_id"] == call.call_id
        ] == [
            "call_created",
            "transcribe_started",
            "transcript_created",
            "transcript_created",
            "call_hungup",
        ]


async def test_after_eight_attempts_a_delivery_is_dead_and_comes_back_by_hand(
    database: Database,
) -> None:
    call = CallFacts()
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, receiver.url)
        receiver.answer = lambda request: 500 if request.body["type"] == "call_created" else 200
        await happen(database, [call.created(), call.digit()], rig.bus)
        await rig.settle()
        await rig.pass_time(40 * 3600, 4 * 3600)
        assert [delivery.event_type for delivery in await deliveries(database, status="dead")] == [
            "call_created"
        ]
        types = [request.body["type"] for request in receiver.requests]
        assert types == ["call_created"] * 8 + ["dtmf_received"]
        assert len({request.headers["webhook-id"] for request in receiver.requests[:8]}) == 1
        assert len({request.raw for request in receiver.requests[:8]}) == 1
        (dead,) = await deliveries(database, status="dead")
        assert len(dead.attempt_log) == 8
        receiver.answer = lambda _: 204
        async with database.write() as connection:
            again = await webhook_deliveries.redeliver(
                connection, DEFAULT_CUSTOMER, dead.id, MEDIAD
            )
            other = await webhook_deliveries.redeliver(connection, "other", dead.id, MEDIAD)
        assert again is not None
        assert again.status == "pending"
        assert other is None
        await rig.settle()
        (_, first) = await deliveries(database, status="delivered")
        assert first.attempts == 1 or first.event_type == "dtmf_received"
        assert receiver.requests[-1].headers["webhook-id"] == dead.event_id


async def test_a_failing_call_holds_back_only_itself(database: Database) -> None:
    bad, good = CallFacts(), CallFacts()
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, receiver.url)
        receiver.answer = lambda r: 500 if r.body["data"]["call_id"] == bad.call_id else 200
        await happen(database, [bad.created(), good.created(), bad.digit(), good.digit()], rig.bus)
        await receiver.received(3)
        await rig.settle()
        numbers = by_call(receiver.requests)
        assert numbers == {bad.call_id: [1], good.call_id: [2, 4]}


async def test_an_endpoint_has_four_requests_at_once_and_a_call_one(database: Database) -> None:
    calls = [CallFacts() for _ in range(12)]
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, f"{receiver.url}/one")
        receiver.delay_s = 0.05
        facts = [fact for call in calls for fact in (call.created(), call.digit(), call.digit())]
        await happen(database, facts, rig.bus)
        await receiver.received(36)
        assert receiver.most_at_once["/one"] == 4
    for numbers in by_call(receiver.requests).values():
        assert numbers == sorted(numbers)


async def test_what_waits_is_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_COUNT_S", 0.0)  # in each turn, not every few seconds

    async with Receiver() as receiver, running(database) as rig:
        receiver.answer = lambda _: 500
        await add_webhook(database, f"{receiver.url}/one")
        await happen(database, [CallFacts().created() for _ in range(3)], rig.bus)
        await receiver.received(3)
        await rig.settle()
        rig.clock.turn(1.0)
        await rig.settle()
        read = rig.metrics.registry.get_sample_value
        assert read("mediad_webhook_pending") == 3
        assert (read("mediad_webhook_oldest_seconds") or 0) >= 1


async def test_hanging_endpoints_hold_nobody_up(database: Database) -> None:
    async with (
        Receiver() as receiver,
        running(database, timeout_s=3.0) as rig,
        watch_own_loop() as own,
    ):
        receiver.answer = lambda request: None if "hang" in request.path else 200
        for number in range(3):
            await add_webhook(database, f"{receiver.url}/hang{number}")
        for number in range(5):
            await add_webhook(database, f"{receiver.url}/good{number}")
        late = []
        for _ in range(20):
            began = time.monotonic()
            before = len(receiver.requests)
            await happen(database, [CallFacts().created() for _ in range(4)], rig.bus)
            await receiver.received(before + 20)
            late.append(time.monotonic() - began)
        assert max(late) < 2.0 + own.worst_s()
        assert sorted(late)[len(late) // 2] < 0.6
        for endpoint in rig.deliverer._endpoints.values():
            assert len(endpoint.taken) <= 48


async def test_names_that_hang_hold_nobody_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, answers = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host.startswith("hang"):
            answers.wait(20)
        return look_up("127.0.0.1", *args, **options)

    async with Receiver() as receiver, running(database, timeout_s=3.0) as rig:
        for number in range(20):
            name = f"{'hang' if number < 3 else 'good'}{number}.example.com"
            await add_webhook(database, receiver.url.replace("127.0.0.1", name))
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        try:
            for number in range(5):
                await happen(database, [CallFacts().created() for _ in range(4)], rig.bus)
                await receiver.received((number + 1) * 17 * 4, timeout_s=2.0)
            await rig.settle()
        finally:
            answers.set()
        failed = await deliveries(database, status="pending")
    assert len(failed) == 3 * 5 * 4
    assert all("no address within 1.5 s" in str(d.attempt_log[0]["error"]) for d in failed)


async def test_two_signatures_while_a_secret_is_changed(database: Database) -> None:
    new = new_secret()
    async with Receiver() as receiver, running(database) as rig:
        webhook_id = await add_webhook(database, receiver.url)
        async with database.write() as connection:
            row = await webhooks.rotate_secret(
                connection, DEFAULT_CUSTOMER, webhook_id, new, 3600, MEDIAD
            )
        assert row is not None
        assert not hasattr(row, "secret")
        await happen(database, [CallFacts().created()], rig.bus)
        (request,) = await receiver.received(1)
        for secret in (SECRET, new):
            IndependentReader(secret).verify(request.raw, request.headers)
        rig.clock.turn(3601)
        await happen(database, [CallFacts().created()], rig.bus)
        await receiver.received(2)
    assert receiver.requests[1].headers["webhook-signature"].count("v1,") == 1


async def test_what_happens_while_inactive_or_before_is_not_told(database: Database) -> None:
    await happen(database, [CallFacts().created()])
    async with Receiver() as receiver, running(database) as rig:
        webhook_id = await add_webhook(database, receiver.url)

        async def change(status: str) -> None:
            async with database.write() as connection:
                await webhooks.change(
                    connection, DEFAULT_CUSTOMER, webhook_id, {"status": status}, MEDIAD
                )

        await change("inactive")
        await happen(database, [CallFacts().created()], rig.bus)
        await rig.settle()
        await change("active")
        await happen(database, [CallFacts().created()], rig.bus)
        (request,) = await receiver.received(1)
        await rig.settle()
    assert request.body["sequence"] == 3
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_customer_that_is_not_active_is_told_nothing(
    database: Database, is_deleted: bool
) -> None:
    call = CallFacts(customer_id="other")
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, receiver.url, customer_id="other")
        receiver.answer = lambda _: 503
        await happen(database, [call.created()], rig.bus)
        await receiver.received(1)
        await rig.settle()
        async with database.write() as connection:
            if is_deleted:
                await customers.delete(connection, "other", MEDIAD)
            else:
                await customers.update(connection, "other", {"status": "inactive"}, MEDIAD)
        receiver.answer = lambda _: 200
        await happen(database, [call.digit()], rig.bus)
        await rig.pass_time(3600, 600)
        assert len(receiver.requests) == 1
        async with database.read() as connection:
            assert (await outbox.waiting(connection)).number == 0
        if is_deleted:
            return
        async with database.write() as connection:
            await customers.update(connection, "other", {"status": "active"}, MEDIAD)
        await rig.pass_time(600, 600)
    assert [request.body["type"] for request in receiver.requests[1:]] == [
        "call_created",
        "dtmf_received",
    ]


@pytest.mark.parametrize("change", ["url", "secret", "inactive", "deleted"])
async def test_what_is_in_memory_follows_its_webhook(database: Database, change: str) -> None:
    new = new_secret()
    async with Receiver() as receiver, running(database) as rig:
        webhook_id = await add_webhook(database, f"{receiver.url}/old")
        receiver.answers.clear()
        await happen(database, [CallFacts().created() for _ in range(12)], rig.bus)
        await receiver.attempted(4)
        endpoint = rig.deliverer._endpoints[webhook_id]
        before = endpoint.target
        async with database.write() as connection:
            which = (connection, DEFAULT_CUSTOMER, webhook_id)
            match change:
                case "url":
                    await webhooks.change(*which, {"url": f"{receiver.url}/new"}, MEDIAD)
                case "secret":
                    await webhooks.rotate_secret(*which, new, overlap_s=0, actor=MEDIAD)
                case "inactive":
                    await webhooks.change(*which, {"status": "inactive"}, MEDIAD)
                case "deleted":
                    await webhooks.delete(*which, MEDIAD)
        async with asyncio.timeout(5):
            while endpoint.target == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        receiver.answers.set()
        await rig.settle()
    late = receiver.requests[4:]
    assert len(late) == (8 if change in ("url", "secret") else 0)
    assert {request.path for request in late} <= {"/new" if change == "url" else "/old"}
    for request in late:
        secret = new if change == "secret" else SECRET
        IndependentReader(secret).verify(request.raw, request.headers)
        assert request.headers["webhook-signature"].count("v1,") == 1


async def test_what_is_asked_for_again_while_it_is_tried_is_sent_again(database: Database) -> None:
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, receiver.url)
        receiver.answer = lambda _: 503 if len(receiver.attempts) == 1 else 200
        receiver.answers.clear()
        await happen(database, [CallFacts().created()], rig.bus)
        await receiver.attempted(1)
        (tried,) = await deliveries(database)
        async with database.write() as connection:
            await webhook_deliveries.redeliver(connection, DEFAULT_CUSTOMER, tried.id, MEDIAD)
        receiver.answers.set()
        await receiver.received(2)
        await rig.settle()
        (again,) = await deliveries(database)
    assert (again.status, again.attempts) == ("delivered", 1)
    assert len(receiver.requests) == 2
    assert [attempt["status"] for attempt in again.attempt_log] == [503, 200]


async def test_the_log_has_the_last_attempts(database: Database) -> None:
    webhook_id = await add_webhook(database, "http://127.0.0.1:9/")
    now = datetime.now(UTC)
    async with database.write() as connection:
        made = await webhook_deliveries.add_test(connection, DEFAULT_CUSTOMER, webhook_id, MEDIAD)
        for number in range(outbox.MAX_LOG + 3):
            updated = now if number else made.tm_update
            result = outbox.Result(made.id, updated, "pending", number, {"number": number}, now)
            await outbox.record(connection, [result], now)
    (delivery,) = await deliveries(database)
    numbers = [attempt["number"] for attempt in delivery.attempt_log]
    assert numbers == list(range(3, outbox.MAX_LOG + 3))


async def test_a_test_event_arrives(database: Database) -> None:
    async with Receiver() as receiver, running(database):
        webhook_id = await add_webhook(database, receiver.url)
        async with database.write() as connection:
            delivery = await webhook_deliveries.add_test(
                connection, DEFAULT_CUSTOMER, webhook_id, MEDIAD
            )
        (request,) = await receiver.received(1)
    IndependentReader(SECRET).verify(request.raw, request.headers)
    assert request.body["type"] == "test"
    assert request.body["id"] == delivery.event_id
    assert request.body["data"]["id"] == webhook_id


@pytest.mark.parametrize("status", [302, 307, 404, 410])
async def test_what_is_no_success_is_tried_again_and_not_followed(
    database: Database, status: int
) -> None:
    async with Receiver() as receiver, running(database) as rig:
        await add_webhook(database, f"{receiver.url}/here")
        receiver.answer = lambda _: status
        await happen(database, [CallFacts().created()], rig.bus)
        await receiver.received(1)
        await rig.settle()
        (delivery,) = await deliveries(database, status="pending")
    assert {request.path for request in receiver.requests} == {"/here"}
    assert delivery.attempt_log[0]["status"] == status
    assert delivery.tm_next > datetime.now(UTC)


async def test_a_reader_that_hangs_is_given_up(database: Database) -> None:
    async with Receiver() as receiver, running(database, timeout_s=0.2) as rig:
        await add_webhook(database, receiver.url)
        receiver.answer = lambda _: None
        await happen(database, [CallFacts().created()], rig.bus)
        await receiver.attempted(1)
        await rig.settle()
        (delivery,) = await deliveries(database)
    assert delivery.attempt_log[0]["error"] == "no answer within 0.2 s"
