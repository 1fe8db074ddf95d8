"""The column types that MySQL, MariaDB and SQLite spell differently but must answer alike."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import JSON, DateTime, Dialect, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["NEVER", "Id", "Json", "LongText", "UtcDateTime", "new_id", "utc_now"]

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""``tm_delete`` of a row that is not deleted. Not NULL, so that a unique index sees it."""


def new_id() -> str:
    """Return the id of a new row."""
    return str(uuid4())


def utc_now() -> datetime:
    """Return the time now, aware, with microseconds."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware in Python, UTC without a zone and with microseconds in the database.

    In SQLite it is text of fixed width, which sorts as time does.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """MySQL's DATETIME has whole seconds unless told otherwise."""
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a time without a zone: nobody knows when it is."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say what zone the database's times are in."""
        return None if value is None else value.replace(tzinfo=UTC)


def Id() -> String:  # noqa: N802  # stands where a type stands
    """A UUID as text, or a name such as ``default``."""
    return String(36)


def Json() -> JSON:  # noqa: N802
    """A JSON document; None is SQL's NULL, not JSON's."""
    return JSON(none_as_null=True)


def LongText() -> TypeEngine[str]:  # noqa: N802
    """Text of up to 16 MB; MySQL's TEXT ends at 64 kB."""
    return Text().with_variant(mysql.MEDIUMTEXT(), "mysql")
