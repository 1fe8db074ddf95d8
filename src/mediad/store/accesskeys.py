"""Access keys: who may use the API, for which customer, and with what role.

A key is 256 random bits, shown once when it is made; the row has its SHA-256. A slow hash such as
bcrypt is for passwords, which can be guessed; such a key cannot.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, Field
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.store import audit, rows
from mediad.store.audit import Actor
from mediad.store.pages import DEFAULT_LIMIT, Page
from mediad.store.rows import Fields, Row
from mediad.store.tables import accesskeys, customers
from mediad.store.types import NEVER, utc_now

__all__ = [
    "AccessKey",
    "AccessKeyFields",
    "KeyExpired",
    "Moment",
    "Role",
    "WithKey",
    "count",
    "create",
    "delete",
    "find",
    "get",
    "hash_key",
    "list_keys",
    "rotate",
]

Role = Literal["viewer", "operator", "admin", "root"]

_PREFIX = "mk_"
_SHOWN = 9  # characters of a key that stay visible

Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC)),
]


def _not_as_number(network: object) -> object:
    """Refuse what the standard library takes for a network, and nobody means: 1, or true."""
    if isinstance(network, int | bytes):
        raise ValueError("a network is written as 192.0.2.0/24")
    return network


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_not_as_number)]


class KeyExpired(Exception):  # noqa: N818  # it is the key's state, not an error of ours
    """A key would be good no longer when it is made."""


class AccessKeyFields(Fields):
    """What a person says of an access key."""

    name: Annotated[str, Field(max_length=255)] = ""
    role: Role = "viewer"
    allowed_ips: Annotated[list[Network], Field(max_length=100)] | None = None
    """Networks that it may be used from; null is all."""
    tm_expire: Moment | None = None
    """It is good until then; null is for ever."""


class AccessKey(Row):
    """An access key, without the key."""

    customer_id: str
    name: str
    role: Role
    prefix: str
    """How the key begins, to tell it from others."""
    allowed_ips: list[str] | None
    tm_expire: datetime | None


@dataclass(frozen=True, slots=True)
class WithKey:
    """An access key's row, and the key that is not shown again."""

    row: AccessKey
    key: str = field(repr=False)


def hash_key(key: str) -> str:
    """Return what the database has of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


async def create(
    connection: AsyncConnection, customer_id: str, fields: AccessKeyFields, actor: Actor
) -> WithKey:
    """Insert an access key; return it with the key."""
    key = _PREFIX + secrets.token_urlsafe(32)
    row = await rows.add(
        *(connection, accesskeys, AccessKey, customer_id, fields, actor),
        key_hash=hash_key(key),
        prefix=key[:_SHOWN],
    )
    return WithKey(row, key)


async def get(connection: AsyncConnection, customer_id: str, key_id: str) -> AccessKey | None:
    """Return one of the customer's access keys."""
    return await rows.find(connection, accesskeys, AccessKey, customer_id, key_id)


async def list_keys(
    connection: AsyncConnection,
    customer_id: str,
    *,
    token: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[AccessKey]:
    """List the customer's access keys, newest first.

    Raises:
        ValueError: If the token or the limit is wrong.
    """
    return await rows.list_rows(
        connection, accesskeys, AccessKey, customer_id, token=token, limit=limit
    )


async def rotate(
    connection: AsyncConnection,
    customer_id: str,
    key_id: str,
    *,
    changes: Mapping[str, object],
    overlap_s: float,
    actor: Actor,
) -> WithKey | None:
    """Make a key like this one, which is good for ``overlap_s`` seconds more; None if the customer
    has none of this id.

    Args:
        changes: What of the new key's `AccessKeyFields` is another way.

    Raises:
        KeyExpired: If the new key would not be good, as the one before is not.
    """
    before = await rows.find_locked(connection, accesskeys, AccessKey, customer_id, key_id)
    if before is None:
        return None
    now = utc_now()
    same = before.model_dump(include=set(AccessKeyFields.model_fields))
    fields = AccessKeyFields.model_validate(same | dict(changes))
    if fields.tm_expire is not None and fields.tm_expire <= now:
        raise KeyExpired
    end = now + timedelta(seconds=overlap_s)
    if before.tm_expire is not None:
        end = min(end, before.tm_expire)
    values = {"tm_expire": end, "tm_update": now}
    await connection.execute(
        update(accesskeys)
        .where(accesskeys.c.customer_id == customer_id, accesskeys.c.id == key_id)
        .values(values)
    )
    after = before.model_copy(update=values)
    states = (before.model_dump(mode="json"), after.model_dump(mode="json"))
    change = audit.Change(customer_id, "update", "accesskey", key_id, *states)
    await audit.record(connection, actor, [change])
    return await create(connection, customer_id, fields, actor)


async def delete(
    connection: AsyncConnection, customer_id: str, key_id: str, actor: Actor
) -> AccessKey | None:
    """Revoke an access key and return it."""
    return await rows.remove(connection, accesskeys, AccessKey, customer_id, key_id, actor)


async def find(connection: AsyncConnection, key_hash: str) -> AccessKey | None:
    """Return the access key with this hash, expired or not, if its customer is active. A query over
    all customers: the key says which one it is.
    """
    columns = [accesskeys.c[name] for name in AccessKey.model_fields]
    query = (
        select(*columns)
        .join(customers, customers.c.id == accesskeys.c.customer_id)
        .where(
            accesskeys.c.key_hash == key_hash,
            accesskeys.c.tm_delete == NEVER,
            customers.c.tm_delete == NEVER,
            customers.c.status == "active",
        )
    )
    row: Mapping[Any, Any] | None = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else AccessKey.model_validate(dict(row))


async def count(connection: AsyncConnection) -> int:
    """Return how many access keys there ever were, of all customers."""
    return (await connection.execute(select(func.count()).select_from(accesskeys))).scalar_one()
