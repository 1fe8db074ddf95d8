"""The tables, as SQLAlchemy Core sees them; what makes them is in ``migrations``.

- Every row has a customer, and every query names it. There are no foreign keys: facts arrive in
  the order in which they happened to be safe, and a deleted row only says when it was deleted.
- ``id``, ``customer_id``, ``tm_create``, ``tm_update`` and ``tm_delete`` stand in every table of
  things that change; ``name`` and ``detail`` where a person names the thing, ``status`` where it
  has one. Rows of events and audit_logs never change: they only have ``tm_create``.
- What is unique is unique together with ``tm_delete``: a deleted number can come back.
- Text compares byte by byte (utf8mb4_bin), as in SQLite: with the servers' own collations all
  emoji are equal, and customers ``a`` and ``A`` one.
- An index has the columns in the order of a list's query: those that are given, then those it
  sorts by. SQLite needs one name per database, so the table's is part of each index's.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table

from mediad.store.types import NEVER, Id, Json, LongText, UtcDateTime

__all__ = [
    "TABLES",
    "accesskeys",
    "agents",
    "audit_chains",
    "audit_logs",
    "calls",
    "customers",
    "event_sequences",
    "events",
    "flows",
    "metadata",
    "numbers",
    "recordings",
    "transcribes",
    "transcripts",
    "webhook_deliveries",
    "webhooks",
]

metadata = MetaData()


def _table(name: str, *columns: Column[Any] | Index) -> Table:
    return Table(
        name,
        metadata,
        *columns,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def _id() -> Column[str]:
    return Column("id", Id(), primary_key=True)


def _customer_id() -> Column[str]:
    return Column("customer_id", Id(), nullable=False)


def _name() -> Column[str]:
    return Column("name", String(255), nullable=False, default="")


def _detail() -> Column[str]:
    return Column("detail", LongText(), nullable=False, default="")


def _status() -> Column[str]:
    return Column("status", String(50), nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, default=0)


def _times() -> tuple[Column[Any], ...]:
    return (
        Column("tm_create", UtcDateTime(), nullable=False),
        Column("tm_update", UtcDateTime(), nullable=False),
        Column("tm_delete", UtcDateTime(), nullable=False, default=NEVER),
    )


def _list_index(table: str, *given: str, name: str = "") -> Index:
    """An index for lists of one customer's rows: newest first, page by page."""
    name = name or "_".join(("customer", *given))
    columns = ("customer_id", *given, "tm_delete", "tm_create", "id")
    return Index(f"idx_{table}_{name}", *columns)


def _time_indexes(table: str) -> tuple[Index, ...]:
    # The second column makes new rows neighbours: all of them have the same tm_delete, and beside
    # it the random id would decide where each goes.
    return (
        Index(f"idx_{table}_tm_create", "tm_create"),
        Index(f"idx_{table}_tm_delete", "tm_delete", "tm_create"),
    )


def _status_index(table: str) -> Index:
    return Index(f"idx_{table}_status", "status", "tm_create")


customers = _table(
    "customers",
    _id(),
    _name(),
    _detail(),
    _status(),
    _count("total_calls"),
    *_times(),
    _status_index("customers"),
    *_time_indexes("customers"),
)

agents = _table(
    "agents",
    _id(),
    _customer_id(),
    _name(),
    _detail(),
    _status(),
    Column("config", Json(), nullable=False),
    _count("total_calls"),
    _count("completed_calls"),
    _count("total_duration_ms"),
    *_times(),
    _list_index("agents"),
    _list_index("agents", "status"),
    _status_index("agents"),
    *_time_indexes("agents"),
)

numbers = _table(
    "numbers",
    _id(),
    _customer_id(),
    _name(),
    _detail(),
    _status(),
    Column("number", String(32), nullable=False),
    Column("country", String(2)),
    Column("provider", String(50)),
    Column("provider_data", Json()),
    Column("agent_id", Id()),
    Column("flow_id", Id()),
    Column("agent_config_override", Json()),
    Column("tags", Json()),
    *_times(),
    # Over all customers: a call is routed by the number it called.
    Index("uq_numbers_number", "number", "tm_delete", unique=True),
    Index("idx_numbers_agent", "agent_id"),
    _list_index("numbers"),
    _list_index("numbers", "status"),
    _status_index("numbers"),
    *_time_indexes("numbers"),
)

flows = _table(
    "flows",
    _id(),
    _customer_id(),
    _name(),
    _detail(),
    _status(),
    Column("actions", Json(), nullable=False),
    *_times(),
    _list_index("flows"),
    _status_index("flows"),
    *_time_indexes("flows"),
)

calls = _table(
    "calls",
    _id(),
    _customer_id(),
    _status(),
    Column("direction", String(10), nullable=False),
    Column("source", String(255), nullable=False, default=""),
    Column("destination", String(255), nullable=False, default=""),
    Column("agent_id", Id()),
    Column("flow_id", Id()),
    Column("number_id", Id()),
    Column("tm_start", UtcDateTime(), nullable=False),
    Column("tm_answer", UtcDateTime()),
    Column("tm_hangup", UtcDateTime()),
    Column("duration_ms", BigInteger),
    Column("hangup_by", String(50)),
    Column("hangup_cause", String(50)),
    Column("provider_call_id", String(255)),
    Column("agent_config", Json()),  # as it was when the call began
    Column("counters", Json()),
    Column("cost", Json()),
    Column("metadata", Json()),
    Column("error", Json()),
    *_times(),
    _list_index("calls"),
    _list_index("calls", "status"),
    _list_index("calls", "direction"),
    _list_index("calls", "source"),
    _list_index("calls", "destination"),
    _list_index("calls", "agent_id", name="customer_agent"),
    _list_index("calls", "number_id", name="customer_number"),
    Index("idx_calls_provider_call", "provider_call_id"),
    Index("idx_calls_start_hangup", "tm_start", "tm_hangup"),
    _status_index("calls"),
    *_time_indexes("calls"),
)

transcribes = _table(
    "transcribes",
    _id(),
    _customer_id(),
    _status(),
    Column("reference_type", String(50), nullable=False),  # call, conference
    Column("reference_id", Id(), nullable=False),
    Column("language", String(35), nullable=False),  # RFC 5646, 4.4.1
    *_times(),
    Index(
        "idx_transcribes_reference",
        "reference_id",
        "reference_type",
        "customer_id",
        "tm_delete",
        "tm_create",
        "id",
    ),
    _list_index("transcribes"),
    _status_index("transcribes"),
    *_time_indexes("transcribes"),
)

transcripts = _table(
    "transcripts",
    _id(),  # the id of the event that told it
    _customer_id(),
    Column("transcribe_id", Id(), nullable=False),
    Column("direction", String(10), nullable=False),  # in, out
    Column("message", LongText(), nullable=False),
    Column("tm_transcript", BigInteger, nullable=False),  # microseconds since the call's time zero
    *_times(),
    Index("idx_transcripts_transcribe", "transcribe_id", "tm_delete", "tm_transcript", "id"),
    _list_index("transcripts"),
    *_time_indexes("transcripts"),
)

recordings = _table(
    "recordings",
    _id(),
    _customer_id(),
    _status(),
    Column("call_id", Id(), nullable=False),
    Column("format", String(50), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("duration_ms", BigInteger),
    Column("size_bytes", BigInteger),
    *_times(),
    Index("idx_recordings_call", "call_id"),
    _list_index("recordings"),
    _status_index("recordings"),
    *_time_indexes("recordings"),
)

events = _table(
    "events",
    _id(),
    _customer_id(),
    Column("sequence", BigInteger, nullable=False),
    Column("type", String(50), nullable=False),
    Column("call_id", Id(), nullable=False),
    Column("offset_us", BigInteger, nullable=False),  # microseconds since the call's time zero
    Column("data", Json(), nullable=False),
    Column("tm_create", UtcDateTime(), nullable=False),  # when it happened
    Index("uq_events_sequence", "customer_id", "sequence", unique=True),
    Index("idx_events_call", "call_id", "tm_create"),
    Index("idx_events_tm_create", "tm_create"),
)

event_sequences = _table(
    "event_sequences",
    Column("customer_id", Id(), primary_key=True),
    Column("last", BigInteger, nullable=False),  # the highest sequence that an event has
)

# What a mediad before version 0004 leaves out is NULL: it may still run.
audit_logs = _table(
    "audit_logs",
    _id(),
    _customer_id(),
    Column("sequence", BigInteger),  # within the customer
    Column("action", String(50), nullable=False),  # create, update, delete, …
    Column("resource_type", String(50), nullable=False),
    Column("resource_id", Id(), nullable=False),
    Column("actor_id", Id()),  # a key, or mediad keys; NULL is mediad itself
    Column("ip", String(64)),
    Column("user_agent", String(255)),
    Column("request_id", String(64)),
    Column("duration_ms", BigInteger),
    Column("error", String(50)),  # why it was refused; NULL is what was done
    Column("before_state", Json()),
    Column("after_state", Json()),
    Column("changed_fields", Json()),
    Column("prev_hash", String(64)),  # SHA-256, in hex
    Column("hash", String(64)),
    Column("tm_create", UtcDateTime(), nullable=False),
    Index("uq_audit_logs_sequence", "customer_id", "sequence", unique=True),
    Index("idx_audit_logs_customer", "customer_id", "tm_create", "id"),
    Index("idx_audit_logs_customer_actor", "customer_id", "actor_id", "tm_create", "id"),
    Index("idx_audit_logs_resource", "resource_id", "tm_create"),
    Index("idx_audit_logs_tm_create", "tm_create"),
)

audit_chains = _table(
    "audit_chains",
    Column("customer_id", Id(), primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of the customer's last entry
    Column("hash", String(64), nullable=False),  # the same one's
)

webhooks = _table(
    "webhooks",
    _id(),
    _customer_id(),
    _name(),
    _detail(),
    _status(),
    Column("url", String(2000), nullable=False),
    Column("events", Json(), nullable=False),  # types that are told; an empty list is all
    Column("secret", String(100), nullable=False),
    Column("old_secret", String(100)),  # signs, too, until
    Column("tm_old_secret", UtcDateTime()),
    Column("last_sequence", BigInteger, nullable=False),  # deliveries are made of what is after it
    *_times(),
    _list_index("webhooks"),
    _status_index("webhooks"),
    *_time_indexes("webhooks"),
)

webhook_deliveries = _table(
    "webhook_deliveries",
    _id(),
    _customer_id(),
    _status(),  # pending, delivered, dead
    Column("webhook_id", Id(), nullable=False),
    Column("event_id", Id(), nullable=False),
    Column("event_type", String(50), nullable=False),
    Column("call_id", Id(), nullable=False),
    Column("sequence", BigInteger, nullable=False),  # of the event
    Column("attempts", BigInteger, nullable=False),  # since it was made, or made again by hand
    Column("attempt_log", Json(), nullable=False),
    Column("tm_next", UtcDateTime(), nullable=False),  # of the next attempt, while it is pending
    *_times(),
    Index("uq_webhook_deliveries_event", "webhook_id", "event_id", unique=True),
    # What an endpoint is due, and whether something of the same call is before it.
    Index("idx_webhook_deliveries_due", "webhook_id", "status", "tm_next", "sequence"),
    Index("idx_webhook_deliveries_call", "webhook_id", "call_id", "status", "sequence"),
    _list_index("webhook_deliveries"),
    _list_index("webhook_deliveries", "status"),
    _list_index("webhook_deliveries", "webhook_id", name="customer_webhook"),
    _status_index("webhook_deliveries"),
    *_time_indexes("webhook_deliveries"),
)

accesskeys = _table(
    "accesskeys",
    _id(),
    _customer_id(),
    _name(),
    Column("role", String(20), nullable=False),
    Column("key_hash", String(64), nullable=False),  # SHA-256, in hex
    Column("prefix", String(16), nullable=False),  # how the key begins
    Column("allowed_ips", Json()),
    Column("tm_expire", UtcDateTime()),
    *_times(),
    # Alone, without tm_delete: no two keys are the same, and requests find them by it.
    Index("uq_accesskeys_key_hash", "key_hash", unique=True),
    _list_index("accesskeys"),
    *_time_indexes("accesskeys"),
)

TABLES = tuple(metadata.tables.values())
