"""Make the first tables, and the customer that calls have by default."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Written out, not taken from the code: this is what version 0001 is, whatever the code becomes.
_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:
    """Make all tables. In MySQL an interrupted run leaves some of them: start again with an empty
    database.
    """
    _make_configuration()
    _make_numbers()
    _make_calls()
    _make_transcripts()
    _make_recordings()
    _make_events()
    _make_audit_logs()
    _insert_default_customer()


def _make_configuration() -> None:
    _create(
        "customers",
        _id(),
        *_names(),
        _text("status", 50),
        _number("total_calls"),
        *_times(),
        _index("customers", "status", "status", "tm_create"),
        *_time_indexes("customers"),
    )
    _create(
        "agents",
        _id(),
        _text("customer_id", 36),
        *_names(),
        _text("status", 50),
        _json("config"),
        _number("total_calls"),
        _number("completed_calls"),
        _number("total_duration_ms"),
        *_times(),
        _list_index("agents", "customer"),
        _list_index("agents", "customer_status", "status"),
        _index("agents", "status", "status", "tm_create"),
        *_time_indexes("agents"),
    )
    _create(
        "flows",
        _id(),
        _text("customer_id", 36),
        *_names(),
        _text("status", 50),
        _json("actions"),
        *_times(),
        _list_index("flows", "customer"),
        _index("flows", "status", "status", "tm_create"),
        *_time_indexes("flows"),
    )


def _make_numbers() -> None:
    _create(
        "numbers",
        _id(),
        _text("customer_id", 36),
        *_names(),
        _text("status", 50),
        _text("number", 32),
        _text("country", 2, nullable=True),
        _text("provider", 50, nullable=True),
        _json("provider_data", nullable=True),
        _text("agent_id", 36, nullable=True),
        _text("flow_id", 36, nullable=True),
        _json("agent_config_override", nullable=True),
        _json("tags", nullable=True),
        *_times(),
        sa.Index("uq_numbers_number", "number", "tm_delete", unique=True),
        _index("numbers", "agent", "agent_id"),
        _list_index("numbers", "customer"),
        _list_index("numbers", "customer_status", "status"),
        _index("numbers", "status", "status", "tm_create"),
        *_time_indexes("numbers"),
    )


def _make_calls() -> None:
    _create(
        "calls",
        _id(),
        _text("customer_id", 36),
        _text("status", 50),
        _text("direction", 10),
        _text("source", 255),
        _text("destination", 255),
        _text("agent_id", 36, nullable=True),
        _text("flow_id", 36, nullable=True),
        _text("number_id", 36, nullable=True),
        _time("tm_start"),
        _time("tm_answer", nullable=True),
        _time("tm_hangup", nullable=True),
        _number("duration_ms", nullable=True),
        _text("hangup_by", 50, nullable=True),
        _text("hangup_cause", 50, nullable=True),
        _text("provider_call_id", 255, nullable=True),
        *(
            _json(name, nullable=True)
            for name in ("agent_config", "counters", "cost", "metadata", "error")
        ),
        *_times(),
        _list_index("calls", "customer"),
        *(
            _list_index("calls", f"customer_{name}", name)
            for name in ("status", "direction", "source", "destination")
        ),
        _list_index("calls", "customer_agent", "agent_id"),
        _list_index("calls", "customer_number", "number_id"),
        _index("calls", "provider_call", "provider_call_id"),
        _index("calls", "start_hangup", "tm_start", "tm_hangup"),
        _index("calls", "status", "status", "tm_create"),
        *_time_indexes("calls"),
    )


def _make_transcripts() -> None:
    _create(
        "transcribes",
        _id(),
        _text("customer_id", 36),
        _text("status", 50),
        _text("reference_type", 50),
        _text("reference_id", 36),
        _text("language", 35),
        *_times(),
        _index(
            "transcribes",
            "reference",
            "reference_id",
            "reference_type",
            "customer_id",
            "tm_delete",
            "tm_create",
            "id",
        ),
        _list_index("transcribes", "customer"),
        _index("transcribes", "status", "status", "tm_create"),
        *_time_indexes("transcribes"),
    )
    _create(
        "transcripts",
        _id(),
        _text("customer_id", 36),
        _text("transcribe_id", 36),
        _text("direction", 10),
        sa.Column("message", _LONG_TEXT, nullable=False),
        _number("tm_transcript"),
        *_times(),
        _index("transcripts", "transcribe", "transcribe_id", "tm_delete", "tm_transcript", "id"),
        _list_index("transcripts", "customer"),
        *_time_indexes("transcripts"),
    )


def _make_recordings() -> None:
    _create(
        "recordings",
        _id(),
        _text("customer_id", 36),
        _text("status", 50),
        _text("call_id", 36),
        _text("format", 50),
        _text("path", 1024),
        _number("duration_ms", nullable=True),
        _number("size_bytes", nullable=True),
        *_times(),
        _index("recordings", "call", "call_id"),
        _list_index("recordings", "customer"),
        _index("recordings", "status", "status", "tm_create"),
        *_time_indexes("recordings"),
    )


def _make_events() -> None:
    _create(
        "events",
        _id(),
        _text("customer_id", 36),
        _number("sequence"),
        _text("type", 50),
        _text("call_id", 36),
        _number("offset_us"),
        _json("data"),
        _time("tm_create"),
        sa.Index("uq_events_sequence", "customer_id", "sequence", unique=True),
        _index("events", "call", "call_id", "tm_create"),
        _index("events", "tm_create", "tm_create"),
    )
    _create(
        "event_sequences",
        sa.Column("customer_id", sa.String(36), primary_key=True),
        _number("last"),
    )


def _make_audit_logs() -> None:
    _create(
        "audit_logs",
        _id(),
        _text("customer_id", 36),
        _text("action", 50),
        _text("resource_type", 50),
        _text("resource_id", 36),
        _text("actor_id", 36, nullable=True),
        _json("before_state", nullable=True),
        _time("tm_create"),
        _index("audit_logs", "customer", "customer_id", "tm_create", "id"),
        _index("audit_logs", "resource", "resource_id", "tm_create"),
        _index("audit_logs", "tm_create", "tm_create"),
    )


def _insert_default_customer() -> None:
    texts = [sa.column(name, sa.String()) for name in ("id", "name", "detail", "status")]
    times = [sa.column(name, _TIME) for name in ("tm_create", "tm_update", "tm_delete")]
    table = sa.table("customers", *texts, sa.column("total_calls", sa.BigInteger()), *times)
    now = datetime.now(UTC).replace(tzinfo=None)
    row = {
        "id": "default",
        "name": "default",
        "detail": "Has the calls that no number's customer has",
        "status": "active",
        "total_calls": 0,
        "tm_create": now,
        "tm_update": now,
        "tm_delete": datetime(9999, 1, 1, tzinfo=UTC).replace(tzinfo=None),
    }
    op.bulk_insert(table, [row])


def _create(name: str, *parts: Any) -> None:
    op.create_table(
        name, *parts, mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin"
    )


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.String(36), primary_key=True)


def _names() -> tuple[sa.Column[Any], ...]:
    return _text("name", 255), sa.Column("detail", _LONG_TEXT, nullable=False)


def _text(name: str, length: int, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _json(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=nullable)


def _time(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, _TIME, nullable=nullable)


def _times() -> tuple[sa.Column[Any], ...]:
    return _time("tm_create"), _time("tm_update"), _time("tm_delete")


def _index(table: str, name: str, *columns: str) -> sa.Index:
    return sa.Index(f"idx_{table}_{name}", *columns)


def _list_index(table: str, name: str, *given: str) -> sa.Index:
    return _index(table, name, "customer_id", *given, "tm_delete", "tm_create", "id")


def _time_indexes(table: str) -> tuple[sa.Index, ...]:
    return (
        _index(table, "tm_create", "tm_create"),
        _index(table, "tm_delete", "tm_delete", "tm_create"),
    )
