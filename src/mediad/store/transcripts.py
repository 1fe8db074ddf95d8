"""Transcripts: what was said, segment by segment."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import rows
from mediad.store.pages import DEFAULT_LIMIT, Page, Position, ascending, page_of
from mediad.store.rows import Row
from mediad.store.tables import transcribes, transcripts
from mediad.store.types import NEVER

__all__ = ["Transcript", "get", "list_of_call", "text"]


class Transcript(Row):
    """A segment: some words by one of the two."""

    customer_id: str
    transcribe_id: str
    direction: str
    """in: the caller; out: the agent."""
    message: str
    tm_transcript: int
    """Since the call's time zero, in microseconds."""


async def get(
    connection: AsyncConnection, customer_id: str, transcript_id: str
) -> Transcript | None:
    """Return one of the customer's segments."""
    return await rows.find(connection, transcripts, Transcript, customer_id, transcript_id)


async def list_of_call(
    connection: AsyncConnection,
    customer_id: str,
    call_id: str,
    *,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Transcript]:
    """List what was said on a call, in the order in which it was.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    # In two steps, not by a join: then the index has the order, and no page sorts the whole call.
    transcribe_ids = (await connection.execute(ids_query(customer_id, call_id))).scalars().all()
    query = list_query(customer_id, transcribe_ids, token, limit)
    result = await connection.execute(query)
    segments = (Transcript.model_validate(dict(row)) for row in result.mappings())
    return page_of(segments, limit, lambda segment: Position(segment.tm_transcript, segment.id))


def text(segments: Iterable[Transcript]) -> str:
    """Return the conversation as one text, a line for each segment."""
    speakers = {"in": "User", "out": "Agent"}
    return "\n".join(f"{speakers[segment.direction]}: {segment.message}" for segment in segments)


def ids_query(customer_id: str, call_id: str) -> Select[Any]:
    """Return the query of a call's transcribes: one, unless transcription was stopped meanwhile."""
    return select(transcribes.c.id).where(
        transcribes.c.reference_id == call_id,
        transcribes.c.reference_type == "call",
        transcribes.c.customer_id == customer_id,
        transcribes.c.tm_delete == NEVER,
    )


def list_query(
    customer_id: str, transcribe_ids: Sequence[str], token: str | None, limit: int
) -> Select[Any]:
    """Return the query of their segments."""
    query = rows.select_rows(transcripts, Transcript, customer_id).where(
        transcripts.c.transcribe_id.in_(transcribe_ids)
    )
    return ascending(query, transcripts.c.tm_transcript, transcripts.c.id, token, limit)
