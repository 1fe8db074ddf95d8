"""Webhooks: where a customer wants to be told what happens, and of what.

A secret is returned once, when it is made; rows that are read do not have it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import audit, rows
from mediad.store.audit import Actor
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Fields, Row
from mediad.store.tables import event_sequences, webhooks
from mediad.store.types import NEVER, utc_now

__all__ = [
    "MAX_WEBHOOKS",
    "TooManyWebhooks",
    "Webhook",
    "WebhookFields",
    "change",
    "create",
    "delete",
    "get",
    "list_webhooks",
    "rotate_secret",
]

MAX_WEBHOOKS = 20
"""Of one customer."""


class TooManyWebhooks(Exception):  # noqa: N818  # it is the customer's state, not an error of ours
    """A customer has MAX_WEBHOOKS already."""


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:  # a port that is no port, brackets that do not match
        raise ValueError(f"no address: {exc}") from exc
    if not parts.hostname or port == 0:
        raise ValueError("no address: it needs a host")
    if parts.username or parts.password:
        raise ValueError("an address must not hold user and password: check the signature")
    return url


Url = Annotated[
    str, Field(max_length=2000, pattern=r"^https?://[!-~]+$"), AfterValidator(_checked_url)
]
EventType = Annotated[str, Field(pattern=r"^[a-z_]{1,49}\*?$")]


class WebhookFields(Fields):
    """What a person says of a webhook."""

    name: Annotated[str, Field(max_length=255)] = ""
    detail: Annotated[str, Field(max_length=10_000)] = ""
    status: Literal["active", "inactive"] = "active"
    """What happens while it is inactive is never told."""
    url: Url
    events: Annotated[tuple[EventType, ...], Field(max_length=20)] = ()
    """Types that are told, as call_hungup or transcript_*; none is all of them."""


class Webhook(Row):
    """A webhook."""

    customer_id: str
    name: str
    detail: str
    status: str
    url: str
    events: list[str]


async def create(
    connection: AsyncConnection,
    customer_id: str,
    fields: WebhookFields,
    secret: str,
    actor: Actor,
) -> Webhook:
    """Insert a webhook and return it. It is told what happens from now on.

    Raises:
        TooManyWebhooks: If the customer has too many.
    """
    count = select(func.count()).where(
        webhooks.c.customer_id == customer_id, webhooks.c.tm_delete == NEVER
    )
    if (await connection.execute(count)).scalar_one() >= MAX_WEBHOOKS:
        raise TooManyWebhooks
    last = await _last_sequence(connection, customer_id)
    return await rows.add(
        *(connection, webhooks, Webhook, customer_id, fields, actor),
        secret=secret,
        last_sequence=last,
    )


async def get(connection: AsyncConnection, customer_id: str, webhook_id: str) -> Webhook | None:
    """Return one of the customer's webhooks."""
    return await rows.find(connection, webhooks, Webhook, customer_id, webhook_id)


async def list_webhooks(
    connection: AsyncConnection,
    customer_id: str,
    *,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Webhook]:
    """List the customer's webhooks, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    return await rows.list_rows(
        connection, webhooks, Webhook, customer_id, token=token, limit=limit
    )


async def change(
    connection: AsyncConnection,
    customer_id: str,
    webhook_id: str,
    changes: Mapping[str, object],
    actor: Actor,
) -> Webhook | None:
    """Change a webhook's `WebhookFields` and return it.

    Raises:
        ValueError: If a change is wrong.
    """
    before = await rows.find_locked(connection, webhooks, Webhook, customer_id, webhook_id)
    after = await rows.change(
        connection, webhooks, Webhook, customer_id, webhook_id, WebhookFields, changes, actor
    )
    if before and after and (before.status, after.status) == ("inactive", "active"):
        last = await _last_sequence(connection, customer_id)
        await connection.execute(
            update(webhooks).where(*_is(customer_id, webhook_id)).values(last_sequence=last)
        )
    return after


async def rotate_secret(
    connection: AsyncConnection,
    customer_id: str,
    webhook_id: str,
    secret: str,
    overlap_s: float,
    actor: Actor,
) -> Webhook | None:
    """Give a webhook a new secret; the one before signs, too, for so long."""
    before = await rows.find_locked(connection, webhooks, Webhook, customer_id, webhook_id)
    if before is None:
        return None
    now = utc_now()
    values = {
        "old_secret": webhooks.c.secret,
        "tm_old_secret": now + timedelta(seconds=overlap_s),
        "tm_update": now,
    }
    where = _is(customer_id, webhook_id)
    # Two statements: in MySQL the first assignment is seen by the second, in SQLite it is not.
    await connection.execute(update(webhooks).where(*where).values(values))
    await connection.execute(update(webhooks).where(*where).values(secret=secret))
    after = before.model_copy(update={"tm_update": now})
    states = (before.model_dump(mode="json"), after.model_dump(mode="json"))
    change = audit.Change(
        customer_id, "rotate_secret", "webhook", webhook_id, *states, secrets=("secret",)
    )
    await audit.record(connection, actor, [change])
    return after


async def delete(
    connection: AsyncConnection, customer_id: str, webhook_id: str, actor: Actor
) -> Webhook | None:
    """Delete a webhook and return it. What it was not yet told it never is."""
    return await rows.remove(connection, webhooks, Webhook, customer_id, webhook_id, actor)


def _is(customer_id: str, webhook_id: str) -> tuple[ColumnElement[bool], ...]:
    return webhooks.c.customer_id == customer_id, webhooks.c.id == webhook_id


async def _last_sequence(connection: AsyncConnection, customer_id: str) -> int:
    query = select(event_sequences.c.last).where(event_sequences.c.customer_id == customer_id)
    return (await connection.execute(query)).scalar_one_or_none() or 0
