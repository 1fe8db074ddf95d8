"""Recordings of calls: where each file is."""

from typing import Annotated

from fastapi import APIRouter, Query

from mediad.api.access import Viewer
from mediad.api.lists import INVALID, NOT_FOUND, Id, ListOf, PageSize, PageToken, checking, found
from mediad.api.services import ServicesOf
from mediad.store import recordings
from mediad.store.pages import DEFAULT_LIMIT
from mediad.store.recordings import Recording

__all__ = ["router"]

router = APIRouter(prefix="/recordings", tags=["recordings"])


@router.get("", responses=INVALID)
async def list_recordings(
    access: Viewer,
    services: ServicesOf,
    call_id: Annotated[str | None, Query(max_length=36)] = None,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[Recording]:
    """List the recordings of a call, or all of yours, newest first."""
    with checking():
        async with services.database.read() as connection:
            page = await recordings.list_recordings(
                connection, access.customer_id, call_id=call_id, token=page_token, limit=page_size
            )
    return ListOf[Recording].of(page)


@router.get("/{recording_id}", responses=NOT_FOUND)
async def get_recording(recording_id: Id, access: Viewer, services: ServicesOf) -> Recording:
    """Return a recording: its format, its length, and where the file is."""
    async with services.database.read() as connection:
        row = await recordings.get(connection, access.customer_id, recording_id)
    return found(row, "recording", recording_id)
