"""Logging that never holds the event loop: a bounded queue, and one thread that writes.

Full means: the record is dropped and counted. A warning that repeats is written five times a
minute, information as often as a hundred calls a second need it; the rest is summed up in one line,
ahead of the first one written after that minute. A message repeats when only its arguments differ.

No secret of the settings is written, whoever has put it into a message.
"""

import contextlib
import copy
import json
import logging
import logging.handlers
import os
import queue
import re
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from mediad import blot

__all__ = ["QUEUE_SIZE", "dropped_records", "logging_to", "repeated_records", "set_level"]

QUEUE_SIZE = 10_000
"""Records waiting for the thread; what comes beyond is dropped."""

_REPEATS = 5  # of a warning
_INFORMED = 6_000  # of other messages: the start of a hundred calls a second, and their end
_MAX_MESSAGES = 200  # that are told apart, more than we have; others count as one
_OTHERS = "other messages"
_WINDOW_S = 60.0
_FLUSH_S = 2.0
_STDERR = 2
_CONSOLE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_CALL_ID = re.compile(r"\bcall ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


class RepeatFilter(logging.Filter):
    """Pass each message (before its arguments) so many times a minute and count the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out = 0
        self._counts: dict[tuple[int, str], int] = {}  # by level and message
        self._window_start = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.levelno, str(record.msg))
        if key not in self._counts and len(self._counts) >= _MAX_MESSAGES:
            key = (record.levelno, _OTHERS)
        if not self._counts:
            self._window_start = record.created
        count = self._counts[key] = self._counts.get(key, 0) + 1
        most = _most(record.levelno)
        if count == most:
            record.msg = f"{record.getMessage()} (repeats: the rest of this minute is only counted)"
            record.args = ()
        self.left_out += count > most
        return count <= most

    def take_sums(self, now: float) -> list[tuple[int, str]]:
        """Return level and line for each message that was left out, once the minute is over; then
        start anew.
        """
        if not self._counts or now - self._window_start < _WINDOW_S:
            return []
        counts, self._counts = self._counts, {}
        return [
            (level, f"{count - _most(level)} more in a minute: {message}")
            for (level, message), count in counts.items()
            if count > _most(level)
        ]


def _most(level: int) -> int:
    return _REPEATS if level >= logging.WARNING else _INFORMED


class ConsoleFormatter(logging.Formatter):
    """A line for people; an exception's traceback follows it."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__(_CONSOLE_FORMAT)
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record's line. A message cannot begin another one."""
        return blot.one_line(super().formatMessage(record))


class JsonFormatter(ConsoleFormatter):
    """One JSON object a line. Our messages name their call as ``call UUID``: it gets a field."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        message = record.getMessage()
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if call := _CALL_ID.search(message):
            fields["call_id"] = call[1]
        if record.exc_text:
            fields["exception"] = record.exc_text
        return json.dumps(fields, ensure_ascii=False)


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def __init__(self, records: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(records)
        self.dropped = 0
        self._repeats = RepeatFilter()

    def handle(self, record: logging.LogRecord) -> bool:
        self.sum_up(record.created)
        return self._repeats.filter(record) and bool(super().handle(record))

    @property
    def repeated(self) -> int:
        """How many records were left out since others like them had been written."""
        return self._repeats.left_out

    def sum_up(self, now: float) -> None:
        """Write what the minute's repeats come to, if it is over."""
        for level, text in self._repeats.take_sums(now):
            self.emit(logging.LogRecord(__name__, level, __file__, 0, text, None, None))

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make a copy that no longer depends on what happens after it, and has no secrets."""
        record = copy.copy(record)
        record.msg, record.args = blot.blot(record.getMessage()), None
        if record.exc_info:
            record.exc_text = blot.blot(ConsoleFormatter().formatException(record.exc_info))
            record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _Listener(logging.handlers.QueueListener):
    """The thread that writes. To a descriptor, without the locks of sys.stderr and of a handler: a
    thread that nobody reads would hold them for ever, and the interpreter could not end.
    """

    def __init__(
        self, records: "queue.Queue[logging.LogRecord]", fd: int, formatter: logging.Formatter
    ) -> None:
        super().__init__(records)
        self._fd = fd
        self._formatter = formatter

    def handle(self, record: logging.LogRecord) -> None:
        """Write one line, however long that takes."""
        # Names of files and words of peers may hold what is no Unicode.
        line = f"{self._formatter.format(record)}\n".encode(errors="backslashreplace")
        while line:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:  # who shares the file with us has set it not to wait
                select.select([], [self._fd], [])
            except OSError:  # closed: there is nobody to tell
                return

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


def repeated_records() -> int:
    """Return how many records are told by their count alone, since logging began."""
    return _handler.repeated if _handler else 0


def set_level(level: str) -> None:
    """Write from now on what is of this level or above."""
    logging.getLogger("mediad").setLevel(level.upper())


@contextmanager
def logging_to(level: str, format: str = "console") -> Iterator[None]:
    """Write mediad's log, and its libraries' warnings, to standard error until the block ends.

    Args:
        level: The least level of ours that is written.
        format: ``console`` or ``json``.
    """
    global _handler
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_SIZE)
    _handler = _BoundedQueueHandler(records)
    formatter = JsonFormatter() if format == "json" else ConsoleFormatter()
    listener = _Listener(records, _STDERR, formatter)
    root = logging.getLogger()
    root.addHandler(_handler)
    root.setLevel(logging.WARNING)
    set_level(level)
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
