"""Webhooks: where the customer's own servers want to be told what happens."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mediad.api.access import Admin, Operator, Viewer
from mediad.api.endpoint_limits import limited
from mediad.api.errors import ApiError, ErrorBody, not_found
from mediad.api.lists import Id
from mediad.api.services import ServicesOf
from mediad.store import webhook_deliveries, webhooks
from mediad.store.pages import DEFAULT_LIMIT, MAX_LIMIT
from mediad.store.webhook_deliveries import Delivery
from mediad.store.webhooks import MAX_WEBHOOKS, TooManyWebhooks, Webhook, WebhookFields
from mediad.webhooks.signing import new_secret

__all__ = ["router"]

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

_MAX_OVERLAP_S = 7 * 86_400

_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody}}
_INVALID: dict[int | str, dict[str, Any]] = {422: {"model": ErrorBody}}
_CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody}}


class NewWebhook(WebhookFields):
    """A webhook that is to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.com/mediad", "events": ["call_hungup"]}]
        }
    )


class WebhookChanges(BaseModel):
    """What is to be another way; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"events": ["call_*"]}]}
    )

    name: Annotated[str, Field(max_length=255)] = ""
    detail: Annotated[str, Field(max_length=10_000)] = ""
    status: Literal["active", "inactive"] = "active"
    url: webhooks.Url = ""
    events: Annotated[tuple[webhooks.EventType, ...], Field(max_length=20)] = ()


class Rotation(BaseModel):
    """How a secret is changed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: Annotated[int, Field(ge=0, le=_MAX_OVERLAP_S)] = 86_400
    """How long the one before signs, too, in seconds."""


class SecretWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field(repr=False)


class WebhookList(BaseModel):
    """Webhooks, newest first."""

    result: list[Webhook]
    next_page_token: str | None


@router.post("", status_code=201, responses=_INVALID | _CONFLICT)
async def create_webhook(new: NewWebhook, access: Admin, services: ServicesOf) -> SecretWebhook:
    """Make a webhook. It is told what happens from now on. Keep its secret: it is shown once."""
    secret = new_secret()
    try:
        async with services.database.write() as connection:
            row = await webhooks.create(connection, access.customer_id, new, secret, access.actor)
    except TooManyWebhooks as exc:
        message = f"a customer has at most {MAX_WEBHOOKS} webhooks"
        raise ApiError(409, "too_many_webhooks", message) from exc
    return SecretWebhook(**row.model_dump(), secret=secret)


@router.get("", responses=_INVALID)
async def list_webhooks(
    access: Viewer,
    services: ServicesOf,
    page_token: Annotated[str | None, Query(max_length=200)] = None,
    page_size: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> WebhookList:
    """List your webhooks, newest first, without their secrets."""
    try:
        async with services.database.read() as connection:
            page = await webhooks.list_webhooks(
                connection, access.customer_id, token=page_token, limit=page_size
            )
    except ValueError as exc:
        raise ApiError(422, "bad_page_token", str(exc)) from exc
    return WebhookList(result=page.items, next_page_token=page.next_token)


@router.get("/{webhook_id}", responses=_NOT_FOUND)
async def get_webhook(webhook_id: Id, access: Viewer, services: ServicesOf) -> Webhook:
    """Return a webhook without its secret, which was shown once."""
    async with services.database.read() as connection:
        return _found(await webhooks.get(connection, access.customer_id, webhook_id), webhook_id)


@router.patch("/{webhook_id}", responses=_NOT_FOUND | _INVALID)
async def change_webhook(
    webhook_id: Id, changes: WebhookChanges, access: Admin, services: ServicesOf
) -> Webhook:
    """Change a webhook. What happens while it is inactive it is never told."""
    values = changes.model_dump(exclude_unset=True)
    try:
        async with services.database.write() as connection:
            row = await webhooks.change(
                connection, access.customer_id, webhook_id, values, access.actor
            )
    except ValidationError as exc:
        raise ApiError(422, "invalid", exc.errors(include_url=False)[0]["msg"]) from exc
    return _found(row, webhook_id)


@router.delete("/{webhook_id}", status_code=204, responses=_NOT_FOUND)
async def delete_webhook(webhook_id: Id, access: Admin, services: ServicesOf) -> Response:
    """Delete a webhook. What it was not yet told it never is."""
    async with services.database.write() as connection:
        row = await webhooks.delete(connection, access.customer_id, webhook_id, access.actor)
    _found(row, webhook_id)
    return Response(status_code=204)


@router.post("/{webhook_id}/rotate_secret", responses=_NOT_FOUND | _INVALID)
async def rotate_secret(
    webhook_id: Id, rotation: Rotation, access: Admin, services: ServicesOf
) -> SecretWebhook:
    """Give a webhook a new secret, which is shown this once. Until the overlap is over requests
    have two signatures, the second one by the secret before.
    """
    secret = new_secret()
    async with services.database.write() as connection:
        row = await webhooks.rotate_secret(
            *(connection, access.customer_id, webhook_id, secret),
            overlap_s=rotation.overlap_s,
            actor=access.actor,
        )
    return SecretWebhook(**_found(row, webhook_id).model_dump(), secret=secret)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    dependencies=[limited("webhooks:test")],
    responses=_NOT_FOUND | _CONFLICT,
)
async def test_webhook(webhook_id: Id, access: Operator, services: ServicesOf) -> Delivery:
    """Send an event of the type ``test`` within a second or two. The delivery says what became of
    it.
    """
    async with services.database.write() as connection:
        row = _found(await webhooks.get(connection, access.customer_id, webhook_id), webhook_id)
        if row.status != "active":
            raise ApiError(409, "inactive", "an inactive webhook is told nothing")
        return await webhook_deliveries.add_test(
            connection, access.customer_id, webhook_id, access.actor
        )


def _found(row: Webhook | None, webhook_id: str) -> Webhook:
    if row is None:
        raise not_found("webhook", webhook_id)
    return row
