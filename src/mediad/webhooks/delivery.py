"""Deliveries: made from the numbered events in the database, sent, tried again, and noted there.

What waits does so in the table; here is only what is sent next, some per endpoint. Each turn is one
transaction that notes what became of attempts and makes the deliveries of new events, and one read
of what is due. An endpoint has four requests at once, and of each call only one: what comes later
on that call is not due before. A crash makes an attempt happen again, never leaves one out. One
process delivers: a second one on the same database would send everything twice.

Old rows are not swept here. Runs on the control loop.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from mediad import config
from mediad.bus.bus import Bus
from mediad.bus.public import iso, public_event
from mediad.errors import DatabaseUnavailable
from mediad.metrics import Metrics
from mediad.store import outbox
from mediad.store.database import Database
from mediad.store.outbox import Due, Result, Target
from mediad.store.types import utc_now
from mediad.store.webhook_deliveries import TEST
from mediad.webhooks.counts import Counts
from mediad.webhooks.retry import retry_delay_s
from mediad.webhooks.sender import CONNECTIONS, Outcome, Sender
from mediad.webhooks.signing import sign

__all__ = ["Deliverer"]

logger = logging.getLogger(__name__)

_WINDOW = 32  # calls of one endpoint with deliveries in memory, and half of these deliveries
_LINGER_S = 0.04  # before a turn, for events and answers to gather
_POLL_S = 1.0  # a crash may come between a COMMIT and its announcement; retries become due
_COUNT_S = 10.0
_RETRY_S = 1.0  # when the database is away


@dataclass(slots=True)
class _Endpoint:
    """One webhook's requests."""

    target: Target | None = None
    """As it was last read; None: nothing is to be sent there any more."""
    taken: dict[str, int] = field(default_factory=dict)
    """By call: its deliveries in memory. Nothing more of it is loaded until they are noted."""
    waiting: deque[deque[Due]] = field(default_factory=deque)
    """Calls, each with what is to be sent, in order."""
    running: int = 0

    def give_back(self, call_id: str, count: int = 1) -> None:
        """Forget deliveries of a call."""
        self.taken[call_id] -= count
        if not self.taken[call_id]:
            del self.taken[call_id]

    def drop(self) -> None:
        """Forget what waits."""
        for of_call in self.waiting:
            self.give_back(of_call[0].call_id, len(of_call))
        self.waiting.clear()


class Deliverer:
    """Sends what webhooks want to be told.

    Args:
        settings: The table of webhooks.
        database: Where events and deliveries are.
        bus: Tells when the database has new events.
        metrics: Where it counts.
        clock: Tells the time.
    """

    def __init__(
        self,
        settings: config.Webhooks,
        database: Database,
        bus: Bus,
        metrics: Metrics,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._database = database
        self._bus = bus
        self._clock = clock
        self._random = Random()
        self._counts = Counts(metrics, clock)
        self._woken = asyncio.Event()
        self._endpoints: dict[str, _Endpoint] = {}
        self._results: list[tuple[Due, Result]] = []
        self._has_new = True
        self._has_webhooks = True
        self._is_stopping = self._is_turning = False
        self._polled_at = self._counted_at = float("-inf")
        self.problem: str | None = None
        """What keeps it from delivering."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being sent or noted."""
        return not (self._endpoints or self._has_new or self._is_turning)

    @property
    def _is_busy(self) -> bool:
        return bool(self._results) or any(e.running for e in self._endpoints.values())

    def look(self) -> None:
        """Look at once for what is new or due."""
        self._has_new = True
        self._polled_at = float("-inf")
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._sender = Sender(self._settings)
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._listen())
                while True:
                    await self._wait()
                    self._is_turning = True
                    try:
                        await self._turn()
                        self.problem = None
                    except DatabaseUnavailable as exc:
                        if self.problem is None:
                            logger.warning("webhooks wait for the database: %s", exc)
                        self.problem = str(exc)
                        await asyncio.sleep(_RETRY_S)
                    finally:
                        self._is_turning = False
        finally:
            await self._sender.close()

    async def drain(self, timeout_s: float) -> None:
        """Begin no attempts any more, and note what becomes of those that run. What is cut off is
        sent again after the next start.
        """
        self._is_stopping = True
        for endpoint in self._endpoints.values():
            endpoint.waiting.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._is_busy and self.problem is None:  # noqa: ASYNC110  # the turns go on
                    await asyncio.sleep(_LINGER_S)

    async def _listen(self) -> None:
        while True:
            with self._bus.subscribe(live=False, durable=True) as events:
                async for _ in events:
                    self._has_new = True
                    self._woken.set()
            # It was cut off, having missed nothing that is not in the table.

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self._woken.wait()
        await asyncio.sleep(_LINGER_S)
        self._woken.clear()

    async def _turn(self) -> None:
        """Do everything that can be done now.

        Raises:
            DatabaseUnavailable: If that needs the database. Nothing is lost then.
        """
        now, monotonic = self._clock(), time.monotonic()
        is_poll = monotonic - self._polled_at >= _POLL_S
        if is_poll:
            self._polled_at = monotonic
            async with self._database.read() as connection:
                self._has_webhooks = await outbox.has_webhooks(connection)
        if not self._has_webhooks:  # as for most: then an event costs nothing here
            self._has_new = False
            return
        hot = await self._write(now, self._has_new or is_poll)
        if self._is_stopping:
            return
        await self._read(now, hot, is_poll)
        if monotonic - self._counted_at >= _COUNT_S:
            self._counted_at = monotonic
            async with self._database.read() as connection:
                self._counts.waiting = await outbox.waiting(connection)

    async def _write(self, now: datetime, makes: bool) -> set[str]:
        """Note results and make deliveries; return the webhooks that may have something due."""
        results = list(self._results)
        hot: set[str] = set()
        if makes and not results:
            self._has_new = False
            try:
                async with self._database.read() as connection:  # who writes keeps others from it
                    makes = await outbox.has_new(connection)
            except DatabaseUnavailable:
                self._has_new = True
                raise
        if results or makes:
            self._has_new = False
            try:
                async with self._database.write() as connection:
                    await outbox.record(connection, [result for _, result in results], now)
                    if makes and not self._is_stopping:
                        made = await outbox.make(connection, now)
                        hot |= made.webhook_ids
                        self._has_new = self._has_new or not made.is_all
            except DatabaseUnavailable:
                self._has_new = self._has_new or makes
                raise
            del self._results[: len(results)]
        for due, _ in results:
            self._endpoints[due.webhook_id].give_back(due.call_id)
            hot.add(due.webhook_id)
        if self._has_new:
            self._woken.set()
        return hot

    async def _read(self, now: datetime, hot: set[str], is_poll: bool) -> None:
        """Load what is due of these webhooks, or of all, and begin to send it; where to, is looked
        up again for what is in memory, too.
        """
        if not hot and not is_poll:
            return
        async with self._database.read() as connection:
            if is_poll:
                hot |= await outbox.with_due(connection, now)
                hot.update(self._endpoints)
            targets = await outbox.targets(connection, hot, now) if hot else {}
            wanted = {}
            for webhook_id in hot:
                endpoint = self._endpoints.setdefault(webhook_id, _Endpoint())
                endpoint.target = targets.get(webhook_id)
                if endpoint.target is None:
                    endpoint.drop()
                elif len(endpoint.taken) <= _WINDOW // 2:
                    # What is taken is still pending there.
                    wanted[webhook_id] = endpoint.taken
            found = await outbox.due(connection, wanted, now, _WINDOW)
        for webhook_id in hot:
            endpoint = self._endpoints[webhook_id]
            for of_call in found.get(webhook_id, ()):
                endpoint.taken[of_call[0].call_id] = len(of_call)
                endpoint.waiting.append(deque(of_call))
            if not endpoint.taken:
                del self._endpoints[webhook_id]
            self._send(endpoint)

    def _send(self, endpoint: _Endpoint) -> None:
        while endpoint.waiting and endpoint.running < CONNECTIONS:
            endpoint.running += 1
            self._group.create_task(self._work(endpoint))

    async def _work(self, endpoint: _Endpoint) -> None:
        """Send one delivery of each call in turn, until none waits."""
        try:
            while endpoint.waiting:
                assert endpoint.target is not None  # else nothing waits
                of_call = endpoint.waiting.popleft()
                due = of_call.popleft()
                result = await self._attempt(due, endpoint.target)
                self._results.append((due, result))
                self._woken.set()
                if not of_call:
                    continue
                is_over = self._is_stopping or endpoint.target is None
                if is_over or result.status == "pending":  # then the others wait for it
                    endpoint.give_back(due.call_id, len(of_call))
                else:
                    endpoint.waiting.append(of_call)
        finally:
            endpoint.running -= 1

    async def _attempt(self, due: Due, target: Target) -> Result:
        now = self._clock()
        try:
            outcome = await self._post(due, target, now)
        except Exception as exc:  # one delivery that cannot be must not stop the others
            logger.exception("webhook %s: event %s", due.webhook_id, due.event_id)
            outcome = Outcome(0.0, error=f"an error of our own: {type(exc).__name__}")
        result = self._result(due, outcome, now)
        self._counts.attempt(result.status, outcome.duration_s)
        return result

    async def _post(self, due: Due, target: Target, now: datetime) -> Outcome:
        content = public_event(due.event, due.parties) if due.event else _test(due)
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        headers = sign(
            target.secrets,
            due.event_id,
            content["type"],
            body,
            int(now.timestamp()),
            self._settings.header_prefix,
        )
        return await self._sender.post(due.customer_id, target.url, headers, body)

    def _result(self, due: Due, outcome: Outcome, began: datetime) -> Result:
        attempts = due.attempts + 1
        entry = _entry(outcome, began)

        def result(status: str, tm_next: datetime) -> Result:
            return Result(due.id, due.updated, status, attempts, entry, tm_next)

        if outcome.is_delivered:
            return result("delivered", began)
        delay_s = retry_delay_s(attempts, self._random)
        if delay_s is None:
            logger.warning("webhook %s: event %s is given up", due.webhook_id, due.event_id)
            return result("dead", began)
        return result("pending", self._clock() + timedelta(seconds=delay_s))


def _entry(outcome: Outcome, began: datetime) -> dict[str, Any]:
    return {
        "time": iso(began),
        "status": outcome.status,
        "error": outcome.error,
        "duration": round(outcome.duration_s, 4),
        "excerpt": outcome.excerpt,
    }


def _test(due: Due) -> dict[str, Any]:
    """Return an event that did not happen."""
    data = {"id": due.webhook_id, "type": "webhook", "customer_id": due.customer_id}
    created = iso(due.created)
    return {"id": due.event_id, "type": TEST, "created": created, "sequence": None, "data": data}
