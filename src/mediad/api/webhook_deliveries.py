"""Deliveries of webhooks: what was sent, what came back, and once more by hand."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from mediad.api.access import Operator, Viewer
from mediad.api.endpoint_limits import limited
from mediad.api.errors import ApiError, ErrorBody, not_found
from mediad.api.lists import Id
from mediad.api.services import ServicesOf
from mediad.store import webhook_deliveries, webhooks
from mediad.store.pages import DEFAULT_LIMIT, MAX_LIMIT
from mediad.store.webhook_deliveries import Delivery, DeliveryFilter

__all__ = ["router"]

router = APIRouter(prefix="/webhook_deliveries", tags=["webhook_deliveries"])

_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody}}
_CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody}}


class DeliveryList(BaseModel):
    """Deliveries, newest first."""

    result: list[Delivery]
    next_page_token: str | None


@router.get("", responses={422: {"model": ErrorBody}})
async def list_deliveries(
    access: Viewer,
    services: ServicesOf,
    webhook_id: Annotated[str | None, Query(max_length=36)] = None,
    status: Literal["pending", "delivered", "dead"] | None = None,
    page_token: Annotated[str | None, Query(max_length=200)] = None,
    page_size: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> DeliveryList:
    """List deliveries, newest first, of one webhook or of one status if you like."""
    which = DeliveryFilter(webhook_id, status)
    try:
        async with services.database.read() as connection:
            page = await webhook_deliveries.list_deliveries(
                connection, access.customer_id, which, token=page_token, limit=page_size
            )
    except ValueError as exc:
        raise ApiError(422, "bad_page_token", str(exc)) from exc
    return DeliveryList(result=page.items, next_page_token=page.next_token)


@router.get("/{delivery_id}", responses=_NOT_FOUND)
async def get_delivery(delivery_id: Id, access: Viewer, services: ServicesOf) -> Delivery:
    """Return a delivery with its last attempts and what was answered."""
    async with services.database.read() as connection:
        row = await webhook_deliveries.get(connection, access.customer_id, delivery_id)
    return _found(row, delivery_id)


@router.post(
    "/{delivery_id}/redeliver",
    status_code=202,
    dependencies=[limited("webhook_deliveries:redeliver")],
    responses=_NOT_FOUND | _CONFLICT,
)
async def redeliver(delivery_id: Id, access: Operator, services: ServicesOf) -> Delivery:
    """Send an event again, whatever became of it, within a second or two; under the same
    ``webhook-id``, and with eight attempts again.
    """
    async with services.database.write() as connection:
        row = await webhook_deliveries.get(connection, access.customer_id, delivery_id)
        webhook_id = _found(row, delivery_id).webhook_id
        webhook = await webhooks.get(connection, access.customer_id, webhook_id)
        if webhook is None or webhook.status != "active":
            raise ApiError(409, "inactive", "an inactive or deleted webhook is told nothing")
        row = await webhook_deliveries.redeliver(
            connection, access.customer_id, delivery_id, access.actor
        )
    return _found(row, delivery_id)


def _found(row: Delivery | None, delivery_id: str) -> Delivery:
    if row is None:
        raise not_found("delivery", delivery_id)
    return row
