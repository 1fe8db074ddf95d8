"""Flows: what a call does, action by action. They are kept here; no call runs them yet."""

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from mediad.api.access import Admin, Viewer
from mediad.api.lists import (
    INVALID,
    NOT_FOUND,
    Id,
    ListOf,
    PageSize,
    PageToken,
    check_json,
    checking,
    found,
)
from mediad.api.services import ServicesOf
from mediad.store import flows
from mediad.store.flows import Actions, Flow, FlowFields
from mediad.store.pages import DEFAULT_LIMIT

__all__ = ["router"]

router = APIRouter(prefix="/flows", tags=["flows"])


class NewFlow(FlowFields):
    """What is to be made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "hello", "actions": [{"type": "answer"}]}]}
    )


class FlowChanges(FlowFields):
    """What is to be another way; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"actions": [{"type": "hangup"}]}]})

    name: str = Field(default_factory=str, min_length=1, max_length=255)
    actions: Actions = Field(default_factory=list)


@router.post("", status_code=201, responses=INVALID)
async def create_flow(new: NewFlow, access: Admin, services: ServicesOf) -> Flow:
    """Make a flow: what a call does, action by action. It is kept; no call runs it yet."""
    check_json(new)
    async with services.database.write() as connection:
        row = await flows.create(connection, access.customer_id, new, access.actor)
    await services.reads.forget(row)
    return row


@router.get("", responses=INVALID)
async def list_flows(
    access: Viewer,
    services: ServicesOf,
    page_token: PageToken = None,
    page_size: PageSize = DEFAULT_LIMIT,
) -> ListOf[Flow]:
    """List your flows with their actions, newest first."""
    with checking():
        async with services.database.read() as connection:
            page = await flows.list_flows(
                connection, access.customer_id, token=page_token, limit=page_size
            )
    return ListOf[Flow].of(page)


@router.get("/{flow_id}", responses=NOT_FOUND)
async def get_flow(flow_id: Id, access: Viewer, services: ServicesOf) -> Flow:
    """Return a flow with its actions in their order."""
    async with services.database.read() as connection:
        row = await flows.get(connection, access.customer_id, flow_id)
    return found(row, "flow", flow_id)


@router.patch("/{flow_id}", responses=NOT_FOUND | INVALID)
async def change_flow(
    flow_id: Id, changes: FlowChanges, access: Admin, services: ServicesOf
) -> Flow:
    """Change a flow; actions replace those before as a whole."""
    check_json(changes)
    values = changes.model_dump(mode="json", exclude_unset=True)
    with checking():
        async with services.database.write() as connection:
            row = await flows.update(connection, access.customer_id, flow_id, values, access.actor)
    row = found(row, "flow", flow_id)
    await services.reads.forget(row)
    return row


@router.delete("/{flow_id}", status_code=204, responses=NOT_FOUND)
async def delete_flow(flow_id: Id, access: Admin, services: ServicesOf) -> Response:
    """Delete a flow. Numbers that lead to it keep its id."""
    async with services.database.write() as connection:
        row = await flows.delete(connection, access.customer_id, flow_id, access.actor)
    await services.reads.forget(found(row, "flow", flow_id))
    return Response(status_code=204)
