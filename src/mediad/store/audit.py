"""Who changed what, what it was before and what it is since: written in the transaction that
changes it. And who was refused a change: written in one of its own.

Each customer's entries are a chain: an entry has the number after, and the hash of, the one before
it, and a hash of its own over all that it has (`hash_of`). The last number and hash stand in
audit_chains and are taken under its lock, so that several processes write one chain. Nothing here
is ever changed or deleted; `mediad.store.audit_chain` finds out whether somebody did.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store.heads import lock
from mediad.store.pages import DEFAULT_LIMIT, Page, Position, newest_first, page_of
from mediad.store.tables import audit_chains, audit_logs
from mediad.store.types import new_id, utc_now

__all__ = [
    "MAX_IP",
    "MAX_REQUEST_ID",
    "MAX_USER_AGENT",
    "MEDIAD",
    "NO_HASH",
    "Actor",
    "Change",
    "Entry",
    "EntryFilter",
    "hash_of",
    "list_entries",
    "read_entry",
    "record",
]

MAX_IP = 64  # an IPv6 address may name an interface
MAX_REQUEST_ID = 64
MAX_USER_AGENT = 255

NO_HASH = "0" * 64
"""What the first entry of a chain has in the place of the hash before."""

State = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, and by which request."""

    id: str | None = None
    """An access key, or a command as `mediad keys`; None is mediad itself."""
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    started: float | None = None
    """When the request began, in monotonic seconds."""


MEDIAD = Actor()
"""mediad itself."""


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody did, or was refused. What is secret of a thing is in no state."""

    customer_id: str
    action: str
    resource_type: str
    resource_id: str
    before: State | None = None
    after: State | None = None
    secrets: tuple[str, ...] = ()
    """Names of what changed, too, and is in no state."""
    error: str | None = None
    """Why it was refused."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A change as it is kept."""

    id: str
    customer_id: str
    sequence: int | None
    """Rises by one from 1. None in what a mediad before version 0004 of the tables wrote into them
    since: it knew no chain.
    """
    action: str
    """create, update, delete; of webhooks also rotate_secret and test, of deliveries redeliver, of
    access keys, if it was refused, rotate."""
    resource_type: str
    """What was changed: agent, call, …"""
    resource_id: str
    """Empty where something was refused before it had an id."""
    actor_id: str | None
    ip: str | None
    user_agent: str | None
    request_id: str | None
    duration_ms: int | None
    """From the request's beginning until the entry was written."""
    error: str | None
    """The reason that the API gave for its refusal; None if it was done."""
    before_state: State | None
    """The row as it was; None if there was none."""
    after_state: State | None
    """The row as it is; None if there is none."""
    changed_fields: list[str] | None
    """Names of what differs, but for tm_update, and of secrets that do. None where there are not
    two states to compare: all of it was made, or deleted."""
    prev_hash: str | None
    hash: str | None
    tm_create: datetime

    @property
    def success(self) -> bool:
        """Whether it was done."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries to list; None is any."""

    resource_type: str | None = None
    resource_id: str | None = None
    actor_id: str | None = None
    action: str | None = None
    success: bool | None = None
    since: datetime | None = None
    """Written then or later."""
    until: datetime | None = None
    """Written before."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what is true of them."""
        table = audit_logs.c
        names = ("resource_type", "resource_id", "actor_id", "action")
        given = {name: getattr(self, name) for name in names}
        conditions = [table[name] == value for name, value in given.items() if value is not None]
        if self.success is not None:
            conditions.append(table.error.is_(None) if self.success else table.error.is_not(None))
        if self.since is not None:
            conditions.append(table.tm_create >= self.since)
        if self.until is not None:
            conditions.append(table.tm_create < self.until)
        return conditions


async def record(connection: AsyncConnection, actor: Actor, changes: Iterable[Change]) -> None:
    """Append entries to their customers' chains.

    Do it once a transaction has all other locks, but for those of `events.append`: until its end
    nobody else can append for the same customers, and who waits for this while it has what we want
    next would be a deadlock.
    """
    told = list(changes)
    if not told:
        return
    rows = await lock(
        connection, audit_chains, (one.customer_id for one in told), sequence=0, hash=NO_HASH
    )
    heads = {id: (int(row["sequence"]), str(row["hash"])) for id, row in rows.items()}
    entries = []
    for change in told:
        values = _values(actor, change, *heads[change.customer_id])
        heads[change.customer_id] = values["sequence"], values["hash"]
        entries.append(values)
    await connection.execute(insert(audit_logs), entries)
    for customer_id, (sequence, hash) in heads.items():
        await connection.execute(
            update(audit_chains)
            .where(audit_chains.c.customer_id == customer_id)
            .values(sequence=sequence, hash=hash)
        )


def hash_of(entry: Mapping[str, Any]) -> str:
    """Return the hash of an entry: the SHA-256, in hex, of all its other columns, the hash of the
    one before among them, as JSON in ASCII without spaces, names sorted, times in UTC with
    microseconds.
    """
    columns = {name: value for name, value in entry.items() if name != "hash"}
    columns["tm_create"] = columns["tm_create"].isoformat(timespec="microseconds")
    text = json.dumps(columns, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


async def list_entries(
    connection: AsyncConnection,
    customer_id: str,
    which: EntryFilter = EntryFilter(),  # noqa: B008  # frozen
    *,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Entry]:
    """List a customer's entries, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    table = audit_logs.c
    query = select(audit_logs).where(table.customer_id == customer_id, *which.conditions())
    query = newest_first(query, table.tm_create, table.id, token, limit)
    entries = map(read_entry, (await connection.execute(query)).mappings())
    return page_of(entries, limit, lambda entry: Position.at(entry.tm_create, entry.id))


def read_entry(row: Mapping[Any, Any]) -> Entry:
    """Return the entry of a row."""
    return Entry(**{name: row[name] for name in Entry.__dataclass_fields__})


def _values(actor: Actor, change: Change, last: int, last_hash: str) -> dict[str, Any]:
    """Return a change's row, which follows the last one."""
    duration_ms = None
    if actor.started is not None:
        duration_ms = round(1000 * (time.monotonic() - actor.started))
    entry = Entry(
        id=new_id(),
        customer_id=change.customer_id,
        sequence=last + 1,
        action=change.action,
        resource_type=change.resource_type,
        resource_id=change.resource_id,
        actor_id=actor.id,
        ip=actor.ip,
        user_agent=actor.user_agent,
        request_id=actor.request_id,
        duration_ms=duration_ms,
        error=change.error,
        before_state=change.before,
        after_state=change.after,
        changed_fields=_changed_fields(change),
        prev_hash=last_hash,
        hash=None,
        tm_create=utc_now(),
    )
    values = asdict(entry)
    return values | {"hash": hash_of(values)}


def _changed_fields(change: Change) -> list[str] | None:
    before, after = change.before, change.after
    if before is None or after is None:
        return None
    names = before.keys() | after
    differing = {name for name in names if _text(before.get(name)) != _text(after.get(name))}
    return sorted((differing - {"tm_update"}).union(change.secrets))


def _text(value: JsonValue) -> str:
    """Return JSON to compare: to Python 1 is True."""
    return json.dumps(value, sort_keys=True)
