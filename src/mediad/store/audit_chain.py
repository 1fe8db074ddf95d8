"""Whether a customer's audit log is as it was written: its chain is walked from the first entry to
the end that audit_chains has. mediad may write meanwhile.

Whoever can change everything in the database can also hash everything anew, or cut off the end and
set it back: that only shows against a number and hash noted elsewhere before (`Head`).
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Literal, NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store.audit import NO_HASH, Entry, hash_of, read_entry
from mediad.store.database import Database
from mediad.store.tables import audit_chains, audit_logs

__all__ = ["Break", "Head", "Verdict", "list_customers", "verify"]

_PAGE = 100  # entries in memory; of the largest, 13 MB


class Head(NamedTuple):
    """The last entry of a chain, when somebody looked."""

    sequence: int
    hash: str


class Break(NamedTuple):
    """The first entry that is not as it was written."""

    sequence: int | None
    """None if it is not one of a number."""
    how: Literal["changed", "missing", "added"]
    why: str
    """What tells so, for people."""


class Verdict(NamedTuple):
    """What is found of a customer's chain."""

    customer_id: str
    good: int
    """How many entries are, from the first on."""
    head: Head | None
    """The last one, if all are good."""
    broken: Break | None


async def list_customers(database: Database) -> AsyncIterator[str]:
    """Give the customers that have a chain, or entries."""
    last = ""
    while True:
        found = []
        async with database.read() as connection:
            for column in (audit_chains.c.customer_id, audit_logs.c.customer_id):
                next_one = await connection.execute(select(func.min(column)).where(column > last))
                # SQLite keeps bytes as well, behind all text; they are nobody's.
                found += [id for id in next_one.scalars() if isinstance(id, str)]
        if not found:
            return
        last = min(found)
        yield last


async def verify(
    database: Database,
    customer_id: str,
    expected: Head | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Walk a customer's chain up to its end, or to the first entry that is not good.

    Args:
        database: A page of it is read at a time.
        customer_id: Whose chain.
        expected: An earlier end; the chain must still have it.
        tell: Told from time to time how many are good so far.

    Raises:
        DatabaseUnavailable: If the database does not answer.
    """
    last = Head(0, NO_HASH)
    broken: Break | None = None
    while broken is None:
        async with database.read() as connection:
            # First: of the entries up to this end none can be missing below.
            end = await _read_end(connection, customer_id)
            page = await _read_page(connection, customer_id, last.sequence)
            if not page:
                broken = _check_end(last, end, expected)
                broken = broken or await _find_stray(connection, customer_id)
                break
        for entry in page:
            if broken := _check(entry, last, expected):
                break
            assert entry is not None
            last = Head(last.sequence + 1, str(entry.hash))
        tell(last.sequence)
    if broken is None:
        return Verdict(customer_id, last.sequence, last, None)
    good = last.sequence if broken.sequence is None else broken.sequence - 1
    return Verdict(customer_id, good, None, broken)


def _check(entry: Entry | None, last: Head, expected: Head | None) -> Break | None:
    """Return what is wrong with an entry, or with the one before it."""
    number = last.sequence + 1
    if entry is None:
        return Break(number, "changed", "it cannot be read")
    sequence = entry.sequence or 0
    if sequence > number:
        return Break(number, "missing", f"the next one is {sequence}")
    if sequence < number:
        return Break(sequence, "added", "there are two of this number")
    if hash_of(asdict(entry)) != entry.hash:
        return Break(number, "changed", "its hash is not that of what it has")
    if entry.prev_hash != last.hash:
        if last.sequence == 0:
            return Break(number, "changed", "it names one before it")
        return Break(last.sequence, "changed", "the one after it has another hash for it")
    if expected is not None and expected.sequence == number and expected.hash != entry.hash:
        return Break(number, "changed", "it or one before it: another hash is expected")
    return None


def _check_end(last: Head, end: Head | None, expected: Head | None) -> Break | None:
    """Return what is wrong with a chain whose entries are good, up to this last one."""
    number = last.sequence
    if end is None and number:
        return Break(None, "missing", "what audit_chains has of the last one")
    end_number = end.sequence if end else 0
    if number > end_number:
        return Break(end_number + 1, "added", f"{end_number} is the last one")
    if number < end_number:
        return Break(number + 1, "missing", f"{end_number} is the last one")
    if end and last.hash != end.hash:
        return Break(number, "changed", "audit_chains has another hash for it")
    if expected and number < expected.sequence:
        return Break(number + 1, "missing", f"{expected.sequence} is expected")
    return None


async def _read_end(connection: AsyncConnection, customer_id: str) -> Head | None:
    table = audit_chains.c
    query = select(table.sequence, table.hash).where(table.customer_id == customer_id)
    row = (await connection.execute(query)).one_or_none()
    return Head(row.sequence, row.hash) if row and isinstance(row.sequence, int) else None


async def _read_page(
    connection: AsyncConnection, customer_id: str, after: int
) -> list[Entry | None]:
    """Return the next entries, up to one that cannot be read: SQLite keeps any text as JSON, as a
    time or as a number, and bytes in any column. None stands for it.
    """
    table = audit_logs.c
    query = select(audit_logs).where(table.customer_id == customer_id, table.sequence > after)
    result = await connection.execute(query.order_by(table.sequence).limit(_PAGE))
    entries: list[Entry | None] = []
    try:
        for row in result.mappings():
            is_good = isinstance(row["sequence"], int)
            is_good &= not any(isinstance(value, bytes) for value in row.values())
            entries.append(read_entry(row) if is_good else None)
    except (TypeError, ValueError):
        entries.append(None)
    return entries


async def _find_stray(connection: AsyncConnection, customer_id: str) -> Break | None:
    """Return what is wrong if there are entries that no walk comes to."""
    table = audit_logs.c
    no_number = or_(table.sequence.is_(None), table.sequence < 1)
    query = select(table.id).where(table.customer_id == customer_id, no_number).limit(1)
    id = (await connection.execute(query)).scalar_one_or_none()
    if id is None:
        return None
    why = f"{id} has no number: added by hand, or by a mediad before version 0004 of the tables"
    return Break(None, "added", why)
