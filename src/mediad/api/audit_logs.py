"""The audit log: who changed what, what it was before and is since, and who was refused."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, JsonValue

from mediad.api.access import Admin, check_role
from mediad.api.lists import INVALID, ListOf, PageToken, checking
from mediad.api.services import ServicesOf
from mediad.store import audit
from mediad.store.accesskeys import Moment
from mediad.store.audit import Entry, EntryFilter
from mediad.store.pages import Page

__all__ = ["router"]

router = APIRouter(prefix="/audit_logs", tags=["audit_logs"])

MAX_PAGE = 50
"""Entries of a page: 200 KB are the largest, and all of a page is read before it is cut."""

Word = Annotated[str | None, Query(max_length=50)]

_EXAMPLE: dict[str, JsonValue] = {
    "id": "0d6f3a52-6a0e-4a55-9b55-3a4b0f0c2b61",
    "customer_id": "default",
    "sequence": 42,
    "action": "update",
    "resource_type": "number",
    "resource_id": "c3c1b2f4-77a5-4f0e-8c60-5d1f4a7f1b11",
    "actor_id": "8b1e1d0a-4a4b-4b52-9a1c-2f2f6f0d7c55",
    "ip": "192.0.2.7",
    "user_agent": "curl/8.14.1",
    "request_id": "1f0e7a86-0a6e-4d3c-9a57-6f3c1d2e4b5a",
    "duration_ms": 6,
    "success": True,
    "error": None,
    "before_state": {"number": "+4989456", "status": "active"},
    "after_state": {"number": "+4989456", "status": "inactive"},
    "changed_fields": ["status"],
    "prev_hash": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
    "hash": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
    "tm_create": "2026-01-02T03:04:05.678901Z",
}


class AuditLog(BaseModel):
    """A change, or one that was refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    customer_id: str
    sequence: int | None
    """Rises by one within the customer, from 1."""
    action: str
    """create, update, delete; of webhooks also rotate_secret and test, of deliveries redeliver, of
    access keys, if it was refused, rotate."""
    resource_type: str
    resource_id: str
    """Empty where something was refused before it had an id."""
    actor_id: str | None
    """The access key, or `mediad keys`; null is mediad itself."""
    ip: str | None
    """Where the request came from; past proxies that are trusted."""
    user_agent: str | None
    request_id: str | None
    """What the answer has as X-Request-Id."""
    duration_ms: int | None
    """From the beginning of the request until this was written."""
    success: bool
    error: str | None
    """The reason of the refusal."""
    before_state: dict[str, JsonValue] | None
    """What there was; null if nothing."""
    after_state: dict[str, JsonValue] | None
    """What there is; null if nothing."""
    changed_fields: list[str] | None
    """What differs, and secrets that do; null where all of it was made or deleted."""
    prev_hash: str | None
    """Of the entry before."""
    hash: str | None
    """Over all of this; `mediad audit verify` checks it."""
    tm_create: datetime

    @classmethod
    def of(cls, entry: Entry) -> "AuditLog":
        """Return an entry as it is answered."""
        return cls(**asdict(entry), success=entry.success)


@router.get("", responses=INVALID)
async def list_audit_logs(
    access: Admin,
    services: ServicesOf,
    resource_type: Word = None,
    resource_id: Annotated[str | None, Query(max_length=36)] = None,
    actor_id: Annotated[str | None, Query(max_length=36, description="Who did it.")] = None,
    action: Word = None,
    success: Annotated[bool | None, Query(description="Done, or refused.")] = None,
    since: Annotated[Moment | None, Query(description="Then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Before.")] = None,
    customer_id: Annotated[
        str | None,
        Query(max_length=36, description="Whose log, for root; it may be deleted by now."),
    ] = None,
    page_token: PageToken = None,
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
) -> ListOf[AuditLog]:
    """List changes, newest first: who made each and from where, what there was before it and after
    it; and who was refused one.
    """
    if customer_id is not None:
        check_role(access, "root")
    which = EntryFilter(resource_type, resource_id, actor_id, action, success, since, until)
    with checking():
        async with services.database.read() as connection:
            page = await audit.list_entries(
                *(connection, customer_id or access.customer_id, which),
                token=page_token,
                limit=page_size,
            )
    return ListOf[AuditLog].of(Page([AuditLog.of(entry) for entry in page.items], page.next_token))
