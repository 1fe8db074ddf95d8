"""The journal's file, as the process that owns it writes it: facts that wait for the database,
those that it refused, and calls that are open. Not the queue before it nor the thread (`journal`).
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path

from mediad.store.fact_json import encode
from mediad.store.file_lock import hold
from mediad.store.journal_format import (
    APPLICATION,
    SCHEMA,
    VERSION,
    Rejected,
    Waiting,
    check,
    count_waiting,
    explained,
    read_number,
)
from mediad.store.open_calls import OpenCall, end_of

__all__ = ["MAX_REJECTED", "Group", "JournalFile"]

MAX_REJECTED = 10_000
"""Facts refused by the database that are kept; the newest stay."""

_ROWS = 64  # in one statement: the interpreter changes hands per statement, not per row
_BUSY_S = 1.0  # for another program that looks into the file
_WAL_BYTES = 4 << 20
_SPARE_PAGES = 1024  # unused ones that may stay: 4 MiB
_PAGES_A_STEP = 512


@dataclass(slots=True)
class Group:
    """What one transaction writes."""

    facts: list[tuple[int, bytes]] = field(default_factory=list)
    """Position and JSON."""
    size_bytes: int = 0
    calls: dict[str, OpenCall | None] = field(default_factory=dict)
    """Calls as they are after these facts; None for those that are over."""
    rejected: Sequence[Rejected] = ()
    done_to: int = 0
    """Facts up to this position need not wait any more."""


class JournalFile:
    """The file of the process that owns it. Used by one thread at a time."""

    def __init__(self, path: Path, fsync: bool) -> None:
        self.path = path.resolve()  # one lock, by whatever name the file is called
        self._fsync = fsync
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self.done_to = 0
        self._next_position = 1
        self.waiting = Waiting(0, 0)

    def open(self) -> int:
        """Lock, check and open the file, made if need be; end the calls that are open in it.

        Returns:
            How many calls those were.

        Raises:
            JournalError: Saying what is wrong and what to do.
        """
        try:
            with explained(self.path):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = hold(self.path)
                self._db = sqlite3.connect(
                    self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
                )
                self._prepare(self._db)
                return self._end_open_calls(self._db)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and let another process have it."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _prepare(self, db: sqlite3.Connection) -> None:
        is_new = check(db, self.path)
        if is_new:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # later it would take a VACUUM
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA cache_size = -256")  # KiB; what is read was written just before
        db.execute(f"PRAGMA synchronous = {'FULL' if self._fsync else 'NORMAL'}")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        schema = f"{SCHEMA} PRAGMA application_id = {APPLICATION};" if is_new else ""
        # Writes in any case: a file that cannot be written is to be found now.
        db.executescript(f"BEGIN; {schema} PRAGMA user_version = {VERSION}; COMMIT;")

    def _end_open_calls(self, db: sqlite3.Connection) -> int:
        """End what a process that is gone left open: in one transaction, so once."""
        self.waiting = count_waiting(db)
        self._next_position = 1 + max(
            read_number(db, f"SELECT coalesce(max(position), 0) FROM {table}")
            for table in ("facts", "rejected")
        )
        calls = [
            OpenCall(call_id, customer_id, transcribe_id, datetime.fromisoformat(at), offset_s)
            for call_id, customer_id, transcribe_id, at, offset_s in db.execute(
                "SELECT call_id, customer_id, transcribe_id, tm_last, offset_s FROM open_calls"
                " ORDER BY tm_last"
            )
        ]
        ends = Group(calls={call.call_id: None for call in calls})
        for event in chain.from_iterable(map(end_of, calls)):
            self.add(ends, encode(event))
        if calls:
            self.commit(ends)
        return len(calls)

    def add(self, group: Group, fact: bytes) -> None:
        """Put a fact into a group, at the next position."""
        group.facts.append((self._next_position, fact))
        group.size_bytes += len(fact)
        self._next_position += 1

    def commit(self, group: Group) -> None:
        """Write a group in one transaction.

        Raises:
            sqlite3.Error: If that cannot be. Nothing has changed then: it can be tried again.
        """
        db = self._open_db()
        with _transaction(db):
            _set_aside(db, group.rejected)
            deleted = self._delete(db, group.done_to)
            _insert(db, "facts", group.facts)
            open_calls = [call for call in group.calls.values() if call is not None]
            _insert(db, "open_calls", [_row(call) for call in open_calls])
            over = [(call_id,) for call_id, call in group.calls.items() if call is None]
            if over:
                db.executemany("DELETE FROM open_calls WHERE call_id = ?", over)
        self.done_to = max(self.done_to, group.done_to)
        self.waiting = Waiting(
            self.waiting.facts + len(group.facts) - deleted.facts,
            self.waiting.size_bytes + group.size_bytes - deleted.size_bytes,
        )

    def _delete(self, db: sqlite3.Connection, done_to: int) -> Waiting:
        if done_to <= self.done_to:
            return Waiting(0, 0)
        deleted = count_waiting(db, done_to)
        db.execute("DELETE FROM facts WHERE position <= ?", (done_to,))
        return deleted

    def make_room(self) -> None:
        """Begin the write-ahead log anew: on a full disk there is room in the old one."""
        self._open_db().execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def shrink(self) -> bool:
        """Give a part of what nothing is in any more back to the disk; True while there is more."""
        db = self._open_db()
        spare = read_number(db, "PRAGMA freelist_count")
        if spare <= _SPARE_PAGES:
            return False
        # As a script: execute() stops after the first page.
        db.executescript(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})")
        if spare - _PAGES_A_STEP > _SPARE_PAGES:
            return True
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return False

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.ProgrammingError("the file is not open")
        return self._db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # after some errors SQLite has rolled back by itself
            db.execute("ROLLBACK")
        raise


def _set_aside(db: sqlite3.Connection, rejected: Sequence[Rejected]) -> None:
    if not rejected:
        return
    now = datetime.now(UTC).isoformat()
    db.executemany(
        "INSERT OR IGNORE INTO rejected SELECT position, fact, ?, ? FROM facts WHERE position = ?",
        [(reason, now, position) for position, reason in rejected],
    )
    db.execute(
        "DELETE FROM rejected WHERE position NOT IN"
        " (SELECT position FROM rejected ORDER BY position DESC LIMIT ?)",
        (MAX_REJECTED,),
    )


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        db.execute(_insert_sql(table, len(some), len(some[0])), list(chain.from_iterable(some)))


@cache
def _insert_sql(table: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT OR REPLACE INTO {table} VALUES {', '.join([row] * rows)}"


def _row(call: OpenCall) -> tuple[object, ...]:
    at = call.tm_last.isoformat()
    return call.call_id, call.customer_id, call.transcribe_id, at, call.offset_s
