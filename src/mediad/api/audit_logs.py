"""The audit log: who changed what, and what it was before."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, JsonValue

from mediad.api.access import Admin
from mediad.api.lists import INVALID, ListOf, PageSize, PageToken, checking
from mediad.api.services import ServicesOf
from mediad.store import audit
from mediad.store.pages import DEFAULT_LIMIT, Page

__all__ = ["router"]

router = APIRouter(prefix="/audit_logs", tags=["audit_logs"])


class AuditLog(BaseModel):
    """One change."""

    id: str
    customer_id: str
    action: str
    """create, update, delete; of webhooks also rotate_secret and test, of deliveries redeliver."""
    resource_type: str
    resource_id: str
    actor_id: str | None
    """The access key, or `mediad keys`; null is mediad itself."""
    before_state: dict[str, JsonValue] | None
    tm_create: datetime


@router.get("", responses=INVALID)
async def list_audit_logs(
    access: Admin,
    services: ServicesOf,
    resource_id: Annotated[str | None, Query(max_length=36)] = None,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[AuditLog]:
    """List changes, newest first: who made each, and what there was before it."""
    with checking():
        async with services.database.read() as connection:
            page = await audit.list_entries(
                *(connection, access.customer_id),
                resource_id=resource_id,
                token=page_token,
                limit=page_size,
            )
    entries = [AuditLog.model_validate(asdict(entry)) for entry in page.items]
    return ListOf[AuditLog].of(Page(entries, page.next_token))
