"""Reading a journal's file: for the writer, beside the journal's thread, and to look into one."""

import sqlite3
import threading
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from mediad.errors import JournalError
from mediad.store.fact_json import decode
from mediad.store.journal_format import (
    Rejected,
    Waiting,
    check,
    count_waiting,
    explained,
    read_number,
)

__all__ = ["Reader", "Summary"]

_BUSY_S = 1.0


class Summary(NamedTuple):
    """What is in a file."""

    waiting: Waiting
    oldest: datetime | None
    open_calls: int
    rejected: list[Rejected]


class Reader:
    """Reads a journal beside the thread that writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_reading = threading.Lock()  # until then it is not closed
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with explained(path):
            self._db = sqlite3.connect(
                uri, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=True
            )

    def facts(self, after: int, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return facts behind a position, oldest first, at least one if there is any.

        Raises:
            JournalError: If the file cannot be read.
        """
        facts: list[tuple[int, bytes]] = []
        with explained(self._path), self._is_reading, closing(self._db.cursor()) as cursor:
            cursor.execute(
                "SELECT position, fact FROM facts WHERE position > ? ORDER BY position LIMIT ?",
                (after, limit),
            )
            for position, fact in cursor:
                facts.append((position, fact))
                max_bytes -= len(fact)
                if max_bytes <= 0:
                    break
        return facts

    def summary(self) -> Summary:
        """Return what is in the file.

        Raises:
            JournalError: If it is damaged, foreign, newer or empty.
        """
        db = self._db
        with explained(self._path):
            if check(db, self._path):
                raise JournalError(f"{self._path}: is empty: no mediad has used it")
            return Summary(
                count_waiting(db),
                self._oldest(),
                read_number(db, "SELECT count(*) FROM open_calls"),
                [
                    Rejected(position, reason)
                    for position, reason in db.execute(
                        "SELECT position, reason FROM rejected ORDER BY position"
                    )
                ],
            )

    def _oldest(self) -> datetime | None:
        for _, fact in self.facts(0, 1, 1):
            with suppress(ValueError, TypeError, KeyError):  # it is none: the writer will say so
                return decode(fact).timestamp
        return None

    def close(self) -> None:
        """Close the file."""
        with self._is_reading:
            self._db.close()
