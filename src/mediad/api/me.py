"""Who asks."""

from fastapi import APIRouter
from pydantic import BaseModel

from mediad.api.access import Role, Viewer

__all__ = ["router"]

router = APIRouter(prefix="/me", tags=["me"])


class Me(BaseModel):
    """What an access key is good for."""

    customer_id: str
    accesskey_id: str
    role: Role


@router.get("")
async def get_me(access: Viewer) -> Me:
    """Return whose the access key is, and its role."""
    return Me(customer_id=access.customer_id, accesskey_id=access.key_id, role=access.role)
