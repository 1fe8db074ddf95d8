"""Transcribes: runs of writing down what is said on a call."""

from typing import Annotated

from fastapi import APIRouter, Query

from mediad.api.access import Viewer
from mediad.api.lists import INVALID, NOT_FOUND, Id, ListOf, PageSize, PageToken, checking, found
from mediad.api.services import ServicesOf
from mediad.store import transcribes
from mediad.store.pages import DEFAULT_LIMIT
from mediad.store.transcribes import Transcribe

__all__ = ["router"]

router = APIRouter(prefix="/transcribes", tags=["transcribes"])


@router.get("", responses=INVALID)
async def list_transcribes(
    access: Viewer,
    services: ServicesOf,
    call_id: Annotated[str | None, Query(max_length=36)] = None,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[Transcribe]:
    """List the transcribes of a call, or all of yours, newest first."""
    with checking():
        async with services.database.read() as connection:
            page = await transcribes.list_transcribes(
                connection, access.customer_id, call_id=call_id, token=page_token, limit=page_size
            )
    return ListOf[Transcribe].of(page)


@router.get("/{transcribe_id}", responses=NOT_FOUND)
async def get_transcribe(transcribe_id: Id, access: Viewer, services: ServicesOf) -> Transcribe:
    """Return a transcribe: when writing down a call began and ended."""
    async with services.database.read() as connection:
        row = await transcribes.get(connection, access.customer_id, transcribe_id)
    return found(row, "transcribe", transcribe_id)
