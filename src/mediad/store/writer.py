"""The writer: moves safe facts from the journal to the database, in order, a batch a transaction.

After each one cached copies of its calls are dropped, its events are announced with their numbers,
and the journal forgets its facts: in this order. While the database is away they stay where they
are. Runs on the control loop.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client import Counter, Histogram
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from mediad.bus.events import Event
from mediad.errors import DatabaseUnavailable, JournalError
from mediad.metrics import Metrics
from mediad.store.apply import Applied, apply
from mediad.store.database import Database
from mediad.store.journal import Entry, Journal

__all__ = ["BATCH", "Writer"]

BATCH = 250
"""Facts in a transaction, at most. With 500 the driver holds the interpreter for 7 ms at a stretch
(measured: p99, at 6,000 facts a second), and the media loop waits; with 250 for 4 ms."""

_LINGER_S = 0.03  # before a batch, for facts to gather
_PAUSE_S = 0.015  # before one of many, to let the media loop run
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_MAX_UNANNOUNCED = 10_000
_ANNOUNCE_TRIES = 5
_ANNOUNCE_RETRY_S = 1.0
_POLL_S = 0.01
_MAX_REASON = 500
_DELAY_BUCKETS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0)

# What can only be the fault of what is in a fact.
_UNFIT = (DataError, IntegrityError, ValueError, TypeError, LookupError, ArithmeticError)

logger = logging.getLogger(__name__)


class _RefusedError(Exception):
    """A batch cannot be written for what is in it; the cause says why."""


class _Refusal(NamedTuple):
    """A fact that cannot be written."""

    entry: Entry
    cause: BaseException | None

    @property
    def is_certain(self) -> bool:
        """Whether the fault must be the fact's; else it is if the database takes others."""
        if isinstance(self.cause, StatementError) and not isinstance(self.cause, DBAPIError):
            return True  # a value that has no place in its statement: the driver never saw it
        return isinstance(self.cause, _UNFIT)

    @property
    def reason(self) -> str:
        """Why, for people; without the statement."""
        cause = getattr(self.cause, "orig", None) or self.cause
        return f"{type(cause).__name__}: {cause}"[:_MAX_REASON]


class Writer:
    """Writes what is safe.

    Args:
        journal: Where the facts are; its `on_safe` becomes ours while we run.
        database: Where they go.
        invalidate: Drops cached copies of calls, by their ids.
        announce: Tells an event that the database has. Does not wait.
        metrics: Where it counts.
    """

    def __init__(
        self,
        journal: Journal,
        database: Database,
        invalidate: Callable[[Iterable[str]], Awaitable[None]],
        announce: Callable[[Event], None],
        metrics: Metrics,
    ) -> None:
        self.problem: str | None = None
        """What keeps facts from the database, for the health page."""
        self.rejected = 0
        """Facts that the database refused."""
        self._journal = journal
        self._database = database
        self._invalidate = invalidate
        self._announce = announce
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._is_draining = False
        self._is_behind = False
        self._unannounced: deque[Event] = deque()
        self._tries = 0  # to announce the first of them
        registry = metrics.registry
        self._batches = Histogram(
            "mediad_writer_batch_seconds", "How long a batch took", registry=registry
        )
        self._delay = Histogram(
            "mediad_writer_delay_seconds",
            "From the oldest fact of a batch until the database had it",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        self._written = Counter(
            "mediad_writer_facts", "Facts that the database has", registry=registry
        )
        self._rejections = Counter(
            "mediad_writer_rejected_facts", "Facts that it refuses", registry=registry
        )
        self._failures = Counter(
            "mediad_writer_failures",
            "What did not succeed, by what it was",
            ["operation"],
            registry=registry,
        )

    def wake(self) -> None:
        """Look for safe facts. From any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Write until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._journal.on_safe = self.wake
        self._woken.set()  # for what was there before
        retry_s = _FIRST_RETRY_S
        try:
            while True:
                await self._wait()
                try:
                    entries = await self._write_some()
                except (DatabaseUnavailable, JournalError) as exc:
                    self._tell_trouble(exc)
                    await asyncio.sleep(random.uniform(retry_s / 2, retry_s))
                    retry_s = min(2 * retry_s, _LAST_RETRY_S)
                    self._woken.set()
                else:
                    self._tell_success()
                    retry_s = _FIRST_RETRY_S
                    self._is_behind = entries == BATCH
                    if entries:
                        self._woken.set()  # there may be more
        finally:
            self._journal.on_safe = lambda: None
            self._loop = None

    async def drain(self, timeout_s: float) -> bool:
        """Write all that the journal has, without lingering; False when it took too long."""
        self._is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Facts move through two threads, and neither says when it has nothing left.
                while not self._journal.is_empty:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        return self._journal.is_empty

    async def _wait(self) -> None:
        """Wait for a safe fact, and a little longer for more of them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANNOUNCE_RETRY_S if self._unannounced else None):
                await self._woken.wait()
        if not self._is_draining:
            await asyncio.sleep(_PAUSE_S if self._is_behind else _LINGER_S)
        self._woken.clear()

    async def _write_some(self) -> int:
        """Write a batch; return how many facts it had.

        Raises:
            DatabaseUnavailable, JournalError: If that cannot be now.
        """
        # In a thread: the disk may be slow.
        entries = await asyncio.to_thread(self._journal.read, BATCH)
        if entries:
            try:
                await self._finish(await self._write(entries))
            except _RefusedError:
                await self._write_apart(entries)
            oldest = entries[0].event.timestamp
            self._delay.observe((datetime.now(UTC) - oldest).total_seconds())
            self._written.inc(len(entries))
        self._announce_waiting()
        if entries:
            self._journal.done(entries[-1].position)  # last: whoever drains waits for this
        return len(entries)

    async def _write(self, entries: Sequence[Entry]) -> Applied:
        """Write facts in one transaction.

        Raises:
            DatabaseUnavailable: If that cannot be now.
            _RefusedError: If one of them cannot be written at all. The cause says why.
        """
        try:
            with self._batches.time():
                async with self._database.write() as connection:
                    return await apply(connection, [entry.event for entry in entries])
        except DatabaseUnavailable:
            raise
        except Exception as exc:  # what is in a fact can bring about any error
            raise _RefusedError from exc

    async def _write_apart(self, entries: Sequence[Entry]) -> None:
        """Write the halves of a batch that was refused, and theirs, and put aside what remains.

        Raises:
            DatabaseUnavailable: If that cannot be now, or everything is refused: then the fault
                need not be the facts'.
        """
        refusals: list[_Refusal] = []
        has_written = False
        pieces = deque([entries])
        while pieces:
            piece = pieces.popleft()
            try:
                await self._finish(await self._write(piece))
                has_written = True
            except _RefusedError as exc:
                if len(piece) > 1:
                    middle = len(piece) // 2
                    pieces.extendleft((piece[middle:], piece[:middle]))
                else:
                    refusals.append(_Refusal(piece[0], exc.__cause__))
        if not has_written and not all(refusal.is_certain for refusal in refusals):
            raise DatabaseUnavailable(f"the database takes nothing: {refusals[-1].reason}")
        for refusal in refusals:
            self._journal.reject(refusal.entry.position, refusal.reason)
        self.rejected += len(refusals)
        self._rejections.inc(len(refusals))

    async def _finish(self, applied: Applied) -> None:
        """Do what follows once a transaction is committed; nothing of it can undo that."""
        self._unannounced.extend(applied.events)  # first: we may be cancelled below
        try:
            if applied.call_ids:
                await self._invalidate(applied.call_ids)
        except Exception:  # a copy is old until its time is over
            self._failures.labels("invalidate").inc()
            logger.exception("cached calls could not be dropped")
        while len(self._unannounced) > _MAX_UNANNOUNCED:
            self._give_up_announcing("too many wait")

    def _announce_waiting(self) -> None:
        """Announce in order: an event that fails is tried again before those behind it."""
        while self._unannounced:
            try:
                self._announce(self._unannounced[0])
            except Exception as exc:  # whoever listens must not stop the writing
                self._failures.labels("announce").inc()
                self._tries += 1
                if self._tries < _ANNOUNCE_TRIES:
                    logger.warning("an event could not be announced, again in a moment: %r", exc)
                    return
                self._give_up_announcing(repr(exc))
            else:
                self._unannounced.popleft()
                self._tries = 0

    def _give_up_announcing(self, why: str) -> None:
        event = self._unannounced.popleft()
        self._tries = 0
        logger.error(
            "call %s: event %s, number %s, is not announced: %s",
            event.call_id,
            event.event_id,
            event.sequence,
            why,
        )

    def _tell_trouble(self, exc: Exception) -> None:
        if self.problem is None:
            logger.error("facts wait in the journal: %s", exc)
        self.problem = str(exc)
        self._failures.labels("read" if isinstance(exc, JournalError) else "write").inc()

    def _tell_success(self) -> None:
        if self.problem is not None:
            logger.info("facts are written again; %d wait", self._journal.depth)
        self.problem = None
