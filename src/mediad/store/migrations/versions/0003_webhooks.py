"""Make the tables of webhooks."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:
    """Make both tables."""
    _create(
        "webhooks",
        _text("name", 255),
        sa.Column("detail", _LONG_TEXT, nullable=False),
        _text("status", 50),
        _text("url", 2000),
        sa.Column("events", sa.JSON(), nullable=False),
        _text("secret", 100),
        sa.Column("old_secret", sa.String(100)),
        sa.Column("tm_old_secret", _TIME),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
    )
    _create(
        "webhook_deliveries",
        _text("status", 50),
        _text("webhook_id", 36),
        _text("event_id", 36),
        _text("event_type", 50),
        _text("call_id", 36),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("attempt_log", sa.JSON(), nullable=False),
        sa.Column("tm_next", _TIME, nullable=False),
        sa.Index("uq_webhook_deliveries_event", "webhook_id", "event_id", unique=True),
        _index("webhook_deliveries", "due", "webhook_id", "status", "tm_next", "sequence"),
        _index("webhook_deliveries", "call", "webhook_id", "call_id", "status", "sequence"),
        _list_index("webhook_deliveries", "customer_status", "status"),
        _list_index("webhook_deliveries", "customer_webhook", "webhook_id"),
    )


def _create(name: str, *parts: Any) -> None:
    """Make a table with what both have."""
    op.create_table(
        name,
        sa.Column("id", sa.String(36), primary_key=True),
        _text("customer_id", 36),
        *parts,
        *(sa.Column(time, _TIME, nullable=False) for time in ("tm_create", "tm_update")),
        sa.Column("tm_delete", _TIME, nullable=False),
        _list_index(name, "customer"),
        _index(name, "status", "status", "tm_create"),
        _index(name, "tm_create", "tm_create"),
        _index(name, "tm_delete", "tm_delete", "tm_create"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def _text(name: str, length: int) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length), nullable=False)


def _index(table: str, name: str, *columns: str) -> sa.Index:
    return sa.Index(f"idx_{table}_{name}", *columns)


def _list_index(table: str, name: str, *given: str) -> sa.Index:
    return _index(table, name, "customer_id", *given, "tm_delete", "tm_create", "id")
