"""Chain the audit log; give it new values, and where a change came from."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_TABLE = "audit_logs"
_PAGE = 500  # entries in a transaction
_NEW: dict[str, Any] = {
    "sequence": sa.BigInteger(),
    "ip": sa.String(64),
    "user_agent": sa.String(255),
    "request_id": sa.String(64),
    "duration_ms": sa.BigInteger(),
    "error": sa.String(50),
    "after_state": sa.JSON(none_as_null=True),
    "changed_fields": sa.JSON(none_as_null=True),
    "prev_hash": sa.String(64),
    "hash": sa.String(64),
}
_OLD: dict[str, Any] = {
    "id": sa.String(36),
    "customer_id": sa.String(36),
    "action": sa.String(50),
    "resource_type": sa.String(50),
    "resource_id": sa.String(36),
    "actor_id": sa.String(36),
    "before_state": sa.JSON(none_as_null=True),
    "tm_create": _TIME,
}
_LOGS = sa.table(_TABLE, *(sa.column(name, type_) for name, type_ in (_OLD | _NEW).items()))


def upgrade() -> None:
    """Add the columns, number and hash what is there, in its order; make the table of the ends.

    All new columns may be NULL: a mediad of the version before still writes entries without them.
    """
    for name, type_ in _NEW.items():
        op.add_column(_TABLE, sa.Column(name, type_))
    chains = op.create_table(
        "audit_chains",
        sa.Column("customer_id", sa.String(36), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    if context.is_offline_mode():
        context.get_context().impl.static_output(
            "-- The entries that audit_logs has are chained by `mediad migrate` itself only.\n"
        )
    else:
        _chain(op.get_bind(), chains)
    op.create_index("uq_audit_logs_sequence", _TABLE, ["customer_id", "sequence"], unique=True)
    op.create_index(
        "idx_audit_logs_customer_actor", _TABLE, ["customer_id", "actor_id", "tm_create", "id"]
    )


def _chain(connection: sa.Connection, chains: sa.Table) -> None:
    """Chain what is there. A crash within leaves it half done, as of any step in MySQL."""
    customers = sa.select(_LOGS.c.customer_id).distinct().order_by(_LOGS.c.customer_id)
    for customer_id in connection.execute(customers).scalars().all():
        sequence, hash = 0, "0" * 64
        for page in _pages(connection, customer_id):
            links = []
            for row in page:
                sequence += 1
                entry = row | {"sequence": sequence, "prev_hash": hash}
                hash = _hash_of(entry)
                links.append(
                    {
                        "key": row["id"],
                        "number": sequence,
                        "before": entry["prev_hash"],
                        "own": hash,
                    }
                )
            _write(connection, links)
        connection.execute(
            chains.insert(), {"customer_id": customer_id, "sequence": sequence, "hash": hash}
        )


def _pages(connection: sa.Connection, customer_id: str) -> Iterator[list[dict[str, Any]]]:
    time, id = _LOGS.c.tm_create, _LOGS.c.id
    query = sa.select(_LOGS).where(_LOGS.c.customer_id == customer_id)
    query = query.order_by(time, id).limit(_PAGE)
    page = [dict(row) for row in connection.execute(query).mappings()]
    while page:
        yield page
        last = page[-1]
        is_after = sa.or_(time > last["tm_create"], id > last["id"])
        rest = query.where(time >= last["tm_create"], is_after)
        page = [dict(row) for row in connection.execute(rest).mappings()]


def _hash_of(entry: dict[str, Any]) -> str:
    columns = {name: value for name, value in entry.items() if name != "hash"}
    time = entry["tm_create"].isoformat(timespec="microseconds") + "+00:00"
    text = json.dumps(columns | {"tm_create": time}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _write(connection: sa.Connection, links: list[dict[str, Any]]) -> None:
    update = (
        sa.update(_LOGS)
        .where(_LOGS.c.id == sa.bindparam("key"))
        .values(
            sequence=sa.bindparam("number"),
            prev_hash=sa.bindparam("before"),
            hash=sa.bindparam("own"),
        )
    )
    # In SQLite all of the migration is one transaction; in MySQL each statement would be one.
    is_mysql = connection.dialect.name == "mysql"
    if is_mysql:
        connection.exec_driver_sql("BEGIN")
    connection.execute(update, links)
    if is_mysql:
        connection.exec_driver_sql("COMMIT")
