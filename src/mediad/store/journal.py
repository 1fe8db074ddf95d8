"""The journal: where a call's facts are safe until the database has them.

A fact is offered on the media loop, which never waits: it goes to a bounded queue in memory. One
thread writes what gathers there to a local file (`journal_file`), a transaction at a time; *safe*
means committed there. What the bounds leave no room for is refused and counted. While the file
cannot be written the queue is kept, and tried again.

The writer reads safe facts and says when the database has them; the thread's next transaction
deletes them.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from mediad.bus.events import Event
from mediad.metrics import Metrics
from mediad.store.fact_json import decode, encode
from mediad.store.fact_queue import FactQueue
from mediad.store.journal_file import Group, JournalFile
from mediad.store.journal_format import Rejected, describe
from mediad.store.journal_reader import Reader
from mediad.store.open_calls import OpenCall, advance

__all__ = ["MAX_FACT_BYTES", "Entry", "Journal"]

MAX_FACT_BYTES = 1 << 20
"""Of a fact's JSON; a larger one is refused, as databases refuse larger statements."""

_GROUP_S = 0.01  # between two transactions: meanwhile facts gather; the first one does not wait
_MAX_GROUP = 1_000
_MAX_READ_BYTES = 1 << 20
_RETRY_S = (0.05, 2.0)  # the first pause and the longest
_SHRINK_BELOW_BYTES = 1 << 20
_COMMIT_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A safe fact and its place in the journal."""

    position: int
    event: Event


class Journal:
    """A journal in a file. `offer` belongs to one thread; `read`, `done` and `reject` to another.

    Args:
        path: The file; it is made, with its directory, if need be.
        max_bytes: Facts that may wait in the file, in bytes; more wait in memory.
        fsync: Whether a safe fact survives a power cut, too.
        metrics: Where it counts.
    """

    def __init__(self, path: Path, max_bytes: int, fsync: bool, metrics: Metrics) -> None:
        self.on_safe: Callable[[], None] = lambda: None
        """Called in the journal's thread when facts have become safe."""
        self.path = path
        self._max_bytes = max_bytes
        self._file = JournalFile(path, fsync)
        self._reader: Reader | None = None
        self._oldest: datetime | None = None
        self._thread: threading.Thread | None = None
        self._is_open = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._queue = FactQueue(self._wake.set)
        self._done_to = 0
        self._rejected: deque[Rejected] = deque()
        # The thread's own: calls that are open, and what its next transaction writes.
        self._calls: dict[str, OpenCall] = {}
        self._group = Group()
        self._failure: str | None = None
        self._unfit = 0  # facts that could not be written down
        self._told = 0  # of those refused, for the log
        self._declare(metrics)

    def _declare(self, metrics: Metrics) -> None:
        self._refusals = Counter(
            "mediad_journal_refused_facts",
            "Facts that were not kept",
            ["reason"],
            registry=metrics.registry,
        )
        self._commit_time = Histogram(
            "mediad_journal_commit_seconds",
            "How long a transaction of the journal took",
            buckets=_COMMIT_BUCKETS,
            registry=metrics.registry,
        )
        metrics.watch("journal_queued_facts", "Facts not yet safe", lambda: self.queued)
        metrics.watch("journal_facts", "Safe facts not yet in the database", lambda: self.depth)
        metrics.watch("journal_bytes", "Their size", lambda: self.size_bytes)
        metrics.watch("journal_oldest_seconds", "Age of the oldest", lambda: self.oldest_s)

    # What waits

    @property
    def queued(self) -> int:
        """Facts in memory, not yet safe."""
        return len(self._queue)

    @property
    def depth(self) -> int:
        """Safe facts that the database does not have yet."""
        return self._file.waiting.facts

    @property
    def size_bytes(self) -> int:
        """The size of those, in bytes."""
        return self._file.waiting.size_bytes

    @property
    def oldest_s(self) -> float:
        """The age of the oldest of those, in seconds."""
        oldest = self._oldest
        return max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest else 0.0

    @property
    def is_empty(self) -> bool:
        """Whether all facts that were kept are in the database."""
        return not self.queued and not self.depth  # in this order: they move from left to right

    @property
    def refused(self) -> int:
        """Facts that were not kept."""
        return self._queue.refused + self._unfit

    @property
    def problem(self) -> str | None:
        """What is wrong, for the health page."""
        if self._failure is not None:
            return f"{self._failure}; {self._waiting_in_memory}"
        if self._is_full:
            return f"{self.depth} facts wait, all that max_bytes allows; {self._waiting_in_memory}"
        return None

    @property
    def _waiting_in_memory(self) -> str:
        return f"{self.queued} facts wait in memory, {self.refused} were refused"

    @property
    def _is_full(self) -> bool:
        return self.size_bytes >= self._max_bytes

    # For the media loop

    def offer(self, event: Event) -> bool:
        """Keep a fact. Never waits; False, and counted, when there is no room for it."""
        if self._is_open and self._queue.offer(event):
            return True
        self._refusals.labels("full" if self._is_open else "closed").inc()
        return False

    # For the writer

    def read(self, limit: int) -> list[Entry]:
        """Return the oldest safe facts that are not done.

        Args:
            limit: How many, at most; of large ones, fewer.

        Raises:
            JournalError: If the file cannot be read.
        """
        assert self._reader is not None, "read() of a closed journal"
        while rows := self._reader.facts(self._done_to, limit, _MAX_READ_BYTES):
            entries = []
            for position, fact in rows:
                try:
                    entries.append(Entry(position, decode(fact)))
                except (ValueError, TypeError, KeyError) as exc:
                    self.reject(position, f"cannot be read: {exc!r}")
            if entries:
                self._oldest = entries[0].event.timestamp
                return entries
            self.done(rows[-1][0])
        self._oldest = None
        return []

    def done(self, position: int) -> None:
        """Forget the facts up to a position: the database has them."""
        self._done_to = position
        self._wake.set()

    def reject(self, position: int, reason: str) -> None:
        """Put a fact aside that the database refuses; to be said before it is `done`."""
        logger.error("a fact is put aside in the journal, at %d: %s", position, reason)
        self._rejected.append(Rejected(position, reason))

    # Its life

    def open(self) -> int:
        """Open the file, end the calls that are open in it, and start the thread.

        Returns:
            How many calls were ended.

        Raises:
            JournalError: If it cannot be used; says what to do.
        """
        ended = self._file.open()
        try:
            self._reader = Reader(self._file.path)
            self.read(1)  # for the oldest one's age
        except BaseException:
            self._close_file()
            raise
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        self._is_open = True
        return ended

    def close(self, timeout_s: float) -> None:
        """Write what waits in memory and let go of the file."""
        if self._thread is None:
            return
        self._is_open = False
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if self.queued:
            logger.error("the journal was closed: %d facts in memory are lost", self.queued)
        if self._thread.is_alive():
            logger.error("the journal's disk does not answer")
            return
        self._thread = None
        self._close_file()

    def _close_file(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._file.close()

    # The thread

    def _run(self) -> None:
        retry_s = 0.0
        while True:
            self._wake.wait()
            self._wake.clear()
            self._queue.begin()
            is_last = self._closing.is_set()
            self._tell_refused()
            try:
                has_more = self._step()
            except Exception as exc:
                has_more = True
                retry_s = min(max(2 * retry_s, _RETRY_S[0]), _RETRY_S[1])
                self._tell_failure(exc)
            else:
                retry_s = 0.0
                self._tell_success()
            if is_last and (self._failure is not None or not has_more):
                return
            if has_more:
                self._wake.set()
            self._closing.wait(retry_s or _GROUP_S)

    def _step(self) -> bool:
        """Write what has gathered; True when there is more to do at once.

        A group that cannot be written stays, grows and is tried again.
        """
        if self._failure is not None:
            with suppress(sqlite3.Error):  # what follows may succeed all the same
                self._file.make_room()
        group = self._group
        group.done_to = self._done_to
        group.rejected = tuple(self._rejected)  # read after: what is done was rejected before
        self._gather(group)
        if group.facts or group.done_to > self._file.done_to:
            self._commit(group)
        self._queue.settle()
        # The group was full, or the file was until now.
        has_more = len(self._queue) > 0 and not self._is_full
        if self.size_bytes < _SHRINK_BELOW_BYTES:
            has_more |= self._file.shrink()
        return has_more

    def _gather(self, group: Group) -> None:
        while len(group.facts) < _MAX_GROUP and not self._is_full_with(group):
            event = self._queue.take()
            if event is None:
                return
            try:
                fact = encode(event)
            except (ValueError, TypeError, RecursionError) as exc:
                self._refuse(event, f"is not JSON: {exc}", "not JSON")
                continue
            if len(fact) > MAX_FACT_BYTES:
                self._refuse(event, f"has {len(fact)} bytes", "too large")
                continue
            self._file.add(group, fact)
            self._follow(group, event)

    def _refuse(self, event: Event, why: str, reason: str) -> None:
        self._unfit += 1
        self._refusals.labels(reason).inc()
        logger.error("call %s: a %s is not kept: it %s", event.call_id, event.type, why)

    def _is_full_with(self, group: Group) -> bool:
        return self.size_bytes + group.size_bytes >= self._max_bytes

    def _follow(self, group: Group, event: Event) -> None:
        before = self._calls.get(event.call_id)
        after = advance(before, event)
        if after is None:
            self._calls.pop(event.call_id, None)
        else:
            self._calls[event.call_id] = after
        if before is not after:
            group.calls[event.call_id] = after

    def _commit(self, group: Group) -> None:
        started = time.perf_counter()
        self._file.commit(group)
        self._commit_time.observe(time.perf_counter() - started)
        self._group = Group()
        for _ in group.rejected:
            self._rejected.popleft()
        if group.facts:
            if self._oldest is None:
                self._oldest = datetime.now(UTC)
            self._queue.settle()
            self.on_safe()

    def _tell_failure(self, exc: Exception) -> None:
        failure = describe(exc)
        if failure != self._failure:
            logger.error("the journal cannot be written: %s", failure, exc_info=exc)
        self._failure = failure

    def _tell_refused(self) -> None:
        refused = self._queue.refused
        if refused > self._told:
            logger.error("%d facts were refused: the journal has no room", refused - self._told)
        self._told = refused

    def _tell_success(self) -> None:
        if self._failure is not None:
            logger.info("the journal is written again")
        self._failure = None
