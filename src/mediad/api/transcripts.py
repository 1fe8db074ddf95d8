"""Transcripts: what was said on a call, segment by segment, in its order."""

from typing import Annotated

from fastapi import APIRouter, Query

from mediad.api.access import Viewer
from mediad.api.lists import INVALID, NOT_FOUND, Id, ListOf, PageSize, PageToken, checking, found
from mediad.api.services import ServicesOf
from mediad.store import transcripts
from mediad.store.pages import DEFAULT_LIMIT
from mediad.store.transcripts import Transcript

__all__ = ["router"]

router = APIRouter(prefix="/transcripts", tags=["transcripts"])


@router.get("", responses=INVALID)
async def list_transcripts(
    access: Viewer,
    services: ServicesOf,
    call_id: Annotated[str, Query(min_length=1, max_length=36)],
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[Transcript]:
    """List what was said on a call, segment by segment, in its order."""
    with checking():
        async with services.database.read() as connection:
            page = await transcripts.list_of_call(
                connection, access.customer_id, call_id, token=page_token, limit=page_size
            )
    return ListOf[Transcript].of(page)


@router.get("/{transcript_id}", responses=NOT_FOUND)
async def get_transcript(transcript_id: Id, access: Viewer, services: ServicesOf) -> Transcript:
    """Return one segment of what was said: who, when, and the words."""
    async with services.database.read() as connection:
        row = await transcripts.get(connection, access.customer_id, transcript_id)
    return found(row, "transcript", transcript_id)
