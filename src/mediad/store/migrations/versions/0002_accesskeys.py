"""Make the table of access keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_TABLE = "accesskeys"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        _TABLE,
        sa.Column("id", sa.String(36), primary_key=True),
        _text("customer_id", 36),
        _text("name", 255),
        _text("role", 20),
        _text("key_hash", 64),
        _text("prefix", 16),
        sa.Column("allowed_ips", sa.JSON()),
        sa.Column("tm_expire", _TIME),
        *(
            sa.Column(time, _TIME, nullable=False)
            for time in ("tm_create", "tm_update", "tm_delete")
        ),
        sa.Index("uq_accesskeys_key_hash", "key_hash", unique=True),
        _index("customer", "customer_id", "tm_delete", "tm_create", "id"),
        _index("tm_create", "tm_create"),
        _index("tm_delete", "tm_delete", "tm_create"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _index(name: str, *columns: str) -> sa.Index:
    return sa.Index(f"idx_{_TABLE}_{name}", *columns)
