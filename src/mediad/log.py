"""Logging that never holds the event loop: a bounded queue, and one thread that writes.

Full means: the record is dropped and counted. A message that repeats is written five times a
minute; the rest is summed up in one line, ahead of the first one written after that minute.
"""

import contextlib
import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

__all__ = ["QUEUE_SIZE", "dropped_records", "logging_to"]

QUEUE_SIZE = 10_000
"""Records waiting for the thread; what comes beyond is dropped."""

_REPEATS = 5
_MAX_MESSAGES = 1_000
_WINDOW_S = 60.0
_FLUSH_S = 2.0
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class RepeatFilter(logging.Filter):
    """Pass each warning's message (before its arguments) five times a minute and count the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}
        self._window_start = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key = str(record.msg)
        if key not in self._counts and len(self._counts) >= _MAX_MESSAGES:
            return True  # more different ones than a fault makes: the queue's size is the limit
        if not self._counts:
            self._window_start = record.created
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count == _REPEATS:
            record.msg = f"{record.getMessage()} (repeats: the rest of this minute is only counted)"
            record.args = ()
        return count <= _REPEATS

    def take_sums(self, now: float) -> list[str]:
        """Return a line per message that was left out, once the minute is over; then start anew."""
        if not self._counts or now - self._window_start < _WINDOW_S:
            return []
        counts, self._counts = self._counts, {}
        return [
            f"{count - _REPEATS} more in a minute: {message}"
            for message, count in counts.items()
            if count > _REPEATS
        ]


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def __init__(self, records: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(records)
        self.dropped = 0
        self._repeats = RepeatFilter()

    def handle(self, record: logging.LogRecord) -> bool:
        self.sum_up(record.created)
        return self._repeats.filter(record) and bool(super().handle(record))

    def sum_up(self, now: float) -> None:
        """Write what the minute's repeats come to, if it is over."""
        for text in self._repeats.take_sums(now):
            self.emit(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _Listener(logging.handlers.QueueListener):
    def stop_within(self, timeout_s: float) -> None:
        """Write what is queued, but do not wait for ever: nobody may be reading."""
        thread = self._thread
        with contextlib.suppress(queue.Full):
            self.enqueue_sentinel()
        if thread is not None:
            thread.join(timeout_s)  # a daemon thread: it does not keep the process


_handler: _BoundedQueueHandler | None = None


def dropped_records() -> int:
    """Return how many records the full queue has dropped since logging began."""
    return _handler.dropped if _handler else 0


@contextmanager
def logging_to(level: str) -> Iterator[None]:
    """Write mediad's log, and its libraries' warnings, to standard error until the block ends."""
    global _handler
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_SIZE)
    _handler = _BoundedQueueHandler(records)
    writer = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(_FORMAT)
    formatter.converter = time.gmtime
    formatter.default_msec_format = "%s.%03dZ"
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    writer.setFormatter(formatter)
    listener = _Listener(records, writer)
    root = logging.getLogger()
    root.addHandler(_handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("mediad").setLevel(level.upper())
    logging.getLogger("picows").setLevel(
        logging.ERROR
    )  # what it warns of is counted and told by mediad.ai
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(_handler)
        _handler.sum_up(inf)
        listener.stop_within(_FLUSH_S)
