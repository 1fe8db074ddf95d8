"""Customers: everything else belongs to one. Only root sees them."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from mediad.api.access import Root
from mediad.api.errors import ApiError, ErrorBody
from mediad.api.lists import INVALID, NOT_FOUND, Id, ListOf, PageSize, PageToken, checking, found
from mediad.api.services import ServicesOf
from mediad.store import customers
from mediad.store.customers import Customer, CustomerFields
from mediad.store.pages import DEFAULT_LIMIT

__all__ = ["router"]

router = APIRouter(prefix="/customers", tags=["customers"])

_IN_USE: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody}}


class NewCustomer(CustomerFields):
    """What is to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Bakery"}]})


class CustomerChanges(CustomerFields):
    """What is to be another way; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"detail": "Two shops in Berlin."}]})

    name: str = Field(default_factory=str, min_length=1, max_length=255)


@router.post("", status_code=201, responses=INVALID)
async def create_customer(new: NewCustomer, access: Root, services: ServicesOf) -> Customer:
    """Make a customer. Its first access key is made by root, acting for it."""
    async with services.database.write() as connection:
        row = await customers.create(connection, new, access.actor)
    return row


@router.get("", responses=INVALID)
async def list_customers(
    access: Root,
    services: ServicesOf,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[Customer]:
    """List all customers, newest first, with how many calls they had."""
    with checking():
        async with services.database.read() as connection:
            page = await customers.list_customers(connection, token=page_token, limit=page_size)
    return ListOf[Customer].of(page)


@router.get("/{customer_id}", responses=NOT_FOUND)
async def get_customer(customer_id: Id, access: Root, services: ServicesOf) -> Customer:
    """Return a customer and how many calls it ever had."""
    async with services.database.read() as connection:
        row = await customers.get(connection, customer_id)
    return found(row, "customer", customer_id)


@router.patch("/{customer_id}", responses=NOT_FOUND | INVALID | _IN_USE)
async def change_customer(
    customer_id: Id, changes: CustomerChanges, access: Root, services: ServicesOf
) -> Customer:
    """Change a customer. While it is inactive its keys are not good and its webhooks wait."""
    if customer_id == access.own_customer_id and changes.status == "inactive":
        raise ApiError(409, "in_use", "a customer does not lock itself out")
    values = changes.model_dump(mode="json", exclude_unset=True)
    with checking():
        async with services.database.write() as connection:
            row = await customers.update(connection, customer_id, values, access.actor)
    services.keys.forget()
    return found(row, "customer", customer_id)


@router.delete("/{customer_id}", status_code=204, responses=NOT_FOUND | _IN_USE)
async def delete_customer(customer_id: Id, access: Root, services: ServicesOf) -> Response:
    """Delete a customer, but not the one whose key asks. Its access keys are good no longer, its
    webhooks are told nothing, and its numbers may be anybody's; all else stays.
    """
    if customer_id == access.own_customer_id:
        raise ApiError(409, "in_use", "a customer does not delete itself")
    async with services.database.write() as connection:
        freed = await customers.delete(connection, customer_id, access.actor)
    freed = found(freed, "customer", customer_id)
    services.keys.forget()
    await services.reads.forget(*freed)
    return Response(status_code=204)
