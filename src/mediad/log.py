"""Logging that never holds the event loop: a bounded queue, and one thread that writes.

Full means: the record is dropped and counted. A message that repeats is written five times a
minute; the rest is summed up in one line when the minute is over.
"""

import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["QUEUE_SIZE", "dropped_records", "logging_to"]

QUEUE_SIZE = 10_000
"""Records waiting for the thread; what comes beyond is dropped."""

_REPEATS = 5
_WINDOW_S = 60.0
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def __init__(self, records: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(records)
        self.dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class RepeatFilter(logging.Filter):
    """Pass each warning's message (before its arguments) five times a minute, then say how many
    were left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}
        self._window_start = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        if record.created - self._window_start >= _WINDOW_S:
            self._counts.clear()
            self._window_start = record.created
        key = str(record.msg)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count == _REPEATS:
            record.msg = f"{record.getMessage()} (repeats: the rest of this minute is only counted)"
            record.args = ()
        return count <= _REPEATS


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
    _handler.addFilter(RepeatFilter())
    writer = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(_FORMAT)
    formatter.converter = time.gmtime
    formatter.default_msec_format = "%s.%03dZ"
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    writer.setFormatter(formatter)
    listener = logging.handlers.QueueListener(records, writer)
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
        listener.stop()
