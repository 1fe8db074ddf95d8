"""Transcribes: a run of writing down what is said on a call. What was said is in `transcripts`."""

from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import rows
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Row
from mediad.store.tables import transcribes

__all__ = ["Transcribe", "get", "list_transcribes"]


class Transcribe(Row):
    """A run of transcription."""

    customer_id: str
    status: str
    """running or completed."""
    reference_type: str
    """call or conference."""
    reference_id: str
    language: str


async def get(
    connection: AsyncConnection, customer_id: str, transcribe_id: str
) -> Transcribe | None:
    """Return one of the customer's transcribes."""
    return await rows.find(connection, transcribes, Transcribe, customer_id, transcribe_id)


async def list_transcribes(
    connection: AsyncConnection,
    customer_id: str,
    *,
    call_id: str | None = None,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Transcribe]:
    """List the customer's transcribes, newest first; perhaps those of one call only.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    table = transcribes.c
    one_call = (table.reference_id == call_id, table.reference_type == "call")
    conditions = () if call_id is None else one_call
    return await rows.list_rows(
        connection, transcribes, Transcribe, customer_id, *conditions, token=token, limit=limit
    )
