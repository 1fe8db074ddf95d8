"""Access keys. A key is shown once, when it is made."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from mediad.api.access import Access, Admin, check_role
from mediad.api.endpoint_limits import limited
from mediad.api.errors import ApiError, ErrorBody
from mediad.api.lists import INVALID, NOT_FOUND, Id, ListOf, PageSize, PageToken, checking, found
from mediad.api.services import Services, ServicesOf
from mediad.store import accesskeys
from mediad.store.accesskeys import AccessKey, AccessKeyFields, KeyExpired, Moment
from mediad.store.pages import DEFAULT_LIMIT

__all__ = ["router"]

router = APIRouter(prefix="/accesskeys", tags=["accesskeys"])

_MAX_OVERLAP_S = 7 * 86_400

_EXPIRED: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorBody, "description": "The new key would be as expired as this one"}
}


class NewAccessKey(AccessKeyFields):
    """An access key that is to be made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "exchange", "role": "operator"}]}
    )


class Rotation(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: Annotated[int, Field(ge=0, le=_MAX_OVERLAP_S)] = 86_400
    """How long the one before is good, too, in seconds."""
    tm_expire: Moment | None = None
    """Until when the new key is good; null is for ever. Left out, it is as the one before."""


class ShownAccessKey(AccessKey):
    """An access key with the key itself, which is shown this once."""

    key: str = Field(repr=False)


@router.post("", status_code=201, dependencies=[limited("accesskeys:create")], responses=INVALID)
async def create_accesskey(
    new: NewAccessKey, access: Admin, services: ServicesOf
) -> ShownAccessKey:
    """Make a key, with at most the role of the one that asks. Keep it: it is shown once."""
    check_role(access, new.role)
    async with services.database.write() as connection:
        made = await accesskeys.create(connection, access.customer_id, new, access.actor)
    return ShownAccessKey(**made.row.model_dump(), key=made.key)


@router.get("", responses=INVALID)
async def list_accesskeys(
    access: Admin,
    services: ServicesOf,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[AccessKey]:
    """List access keys, newest first: how each begins, never the key itself."""
    with checking():
        async with services.database.read() as connection:
            page = await accesskeys.list_keys(
                connection, access.customer_id, token=page_token, limit=page_size
            )
    return ListOf[AccessKey].of(page)


@router.get("/{accesskey_id}", responses=NOT_FOUND)
async def get_accesskey(accesskey_id: Id, access: Admin, services: ServicesOf) -> AccessKey:
    """Return what is known of an access key, without the key itself."""
    return await _get(services, access, accesskey_id)


@router.post(
    "/{accesskey_id}/rotate",
    dependencies=[limited("accesskeys:create")],
    responses=NOT_FOUND | INVALID | _EXPIRED,
)
async def rotate_accesskey(
    accesskey_id: Id, rotation: Rotation, access: Admin, services: ServicesOf
) -> ShownAccessKey:
    """Make a key like this one, which is good until the overlap is over. It is shown once."""
    check_role(access, (await _get(services, access, accesskey_id)).role)
    try:
        async with services.database.write() as connection:
            made = await accesskeys.rotate(
                *(connection, access.customer_id, accesskey_id),
                changes=rotation.model_dump(include={"tm_expire"}, exclude_unset=True),
                overlap_s=rotation.overlap_s,
                actor=access.actor,
            )
    except KeyExpired as exc:
        message = "the new key would be good no longer: say when it expires (tm_expire)"
        raise ApiError(409, "expired", message) from exc
    services.keys.forget()
    made = found(made, "accesskey", accesskey_id)
    return ShownAccessKey(**made.row.model_dump(), key=made.key)


@router.delete("/{accesskey_id}", status_code=204, responses=NOT_FOUND)
async def delete_accesskey(accesskey_id: Id, access: Admin, services: ServicesOf) -> Response:
    """Revoke a key: at once in this process, within 5 s in others."""
    check_role(access, (await _get(services, access, accesskey_id)).role)
    async with services.database.write() as connection:
        await accesskeys.delete(connection, access.customer_id, accesskey_id, access.actor)
    services.keys.forget()
    return Response(status_code=204)


async def _get(services: Services, access: Access, accesskey_id: str) -> AccessKey:
    async with services.database.read() as connection:
        row = await accesskeys.get(connection, access.customer_id, accesskey_id)
    return found(row, "accesskey", accesskey_id)
