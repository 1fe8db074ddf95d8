"""What a journal's file looks like, what can be wrong with it, and what to do then."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mediad.errors import JournalError

__all__ = [
    "APPLICATION",
    "SCHEMA",
    "VERSION",
    "Rejected",
    "Waiting",
    "check",
    "count_waiting",
    "describe",
    "explained",
    "read_number",
]

APPLICATION = 0x6D644A6C
"""``mdJl``: says in SQLite's header whose file it is."""

VERSION = 1
"""Of the file's tables."""

SCHEMA = """
CREATE TABLE facts (position INTEGER PRIMARY KEY, fact BLOB NOT NULL);
CREATE TABLE rejected (
  position INTEGER PRIMARY KEY, fact BLOB NOT NULL, reason TEXT NOT NULL, tm_create TEXT NOT NULL
);
CREATE TABLE open_calls (
  call_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, transcribe_id TEXT,
  tm_last TEXT NOT NULL, offset_s REAL NOT NULL
) WITHOUT ROWID;
"""
"""Facts are JSON; a position is given once."""

_LAST = (1 << 63) - 1  # position there can be


class Rejected(NamedTuple):
    """A fact that the database refused for what is in it."""

    position: int
    reason: str


class Waiting(NamedTuple):
    """How much waits in the file."""

    facts: int
    size_bytes: int


def check(db: sqlite3.Connection, path: Path) -> bool:
    """Tell whether a file is a new one, with nothing in it.

    Raises:
        JournalError: If it is something else than a journal of this version.
    """
    if not read_number(db, "SELECT count(*) FROM sqlite_master"):
        return True
    if read_number(db, "PRAGMA application_id") != APPLICATION:
        raise JournalError(
            f"{path}: is another program's database; set another [database] directory"
        )
    version = read_number(db, "PRAGMA user_version")
    if version > VERSION:
        raise JournalError(
            f"{path}: was written by a newer mediad (version {version} of the file, this one reads"
            f" {VERSION}); run that one, or move the file away and replay it with that one"
        )
    damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise _damaged(path, damage)
    return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the file into a JournalError that says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        if _code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, str(exc)) from exc
        raise JournalError(f"{path}: {describe(exc)}") from exc


def describe(exc: Exception) -> str:
    """Return what is wrong and what to do, for people."""
    match _code(exc):
        case sqlite3.SQLITE_FULL:
            return "the disk is full; make room"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"cannot be written ({exc}); let mediad's user write the file and its directory"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program holds it locked; stop that one"
        case None if isinstance(exc, OSError):
            return f"cannot be opened: {exc.strerror}; let mediad's user write there"
    return f"cannot be used: {exc}"


def _damaged(path: Path, what: str) -> JournalError:
    return JournalError(
        f"{path}: is damaged or no journal ({what}); move it away, with its -wal file, and start"
        " again: what is in it may be saved by SQLite's .recover"
    )


def _code(exc: Exception) -> int | None:
    """Return SQLite's primary result code; the extended one has it in its lowest byte."""
    code = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def count_waiting(db: sqlite3.Connection, to: int = _LAST) -> Waiting:
    """Count the facts up to a position."""
    query = "SELECT count(*), coalesce(sum(length(fact)), 0) FROM facts WHERE position <= ?"
    return Waiting(*db.execute(query, (to,)).fetchone())


def read_number(db: sqlite3.Connection, query: str) -> int:
    """Return the one number that a query asks for."""
    number: int = db.execute(query).fetchone()[0]
    return number
