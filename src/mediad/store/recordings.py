"""Recordings of calls: where each file is, not the sound itself."""

from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import rows
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Row
from mediad.store.tables import recordings

__all__ = ["Recording", "get", "list_recordings"]


class Recording(Row):
    """A recording."""

    customer_id: str
    status: str
    """running or completed."""
    call_id: str
    format: str
    path: str
    duration_ms: int | None
    size_bytes: int | None


async def get(connection: AsyncConnection, customer_id: str, recording_id: str) -> Recording | None:
    """Return one of the customer's recordings."""
    return await rows.find(connection, recordings, Recording, customer_id, recording_id)


async def list_recordings(
    connection: AsyncConnection,
    customer_id: str,
    *,
    call_id: str | None = None,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Recording]:
    """List the customer's recordings, newest first; perhaps those of one call only.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    conditions = () if call_id is None else (recordings.c.call_id == call_id,)
    return await rows.list_rows(
        connection, recordings, Recording, customer_id, *conditions, token=token, limit=limit
    )
