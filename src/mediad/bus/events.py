"""What an event is. Durable ones are numbered per customer; live ones (interim text, speaking) are
not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

__all__ = ["DEFAULT_CUSTOMER", "DURABLE_TYPES", "Event", "new_event_id"]

DEFAULT_CUSTOMER = "default"

DURABLE_TYPES = frozenset(
    ("call_created", "call_updated", "call_hungup", "dtmf_received", "transcript_created")
)
"""Types that are facts worth keeping; all others are live: dropped first and never numbered."""


def new_event_id() -> str:
    """Return an id for an event; a live event passes it on to the durable one that follows."""
    return str(uuid4())


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a call."""

    type: str
    call_id: str
    offset_s: float
    """Seconds since the call's time zero, the arrival of its UUID, on the monotonic clock."""
    data: Mapping[str, Any] = field(default_factory=dict)
    event_id: str = field(default_factory=new_event_id)
    customer_id: str = DEFAULT_CUSTOMER
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    sequence: int | None = None
    """Rises by one per customer and durable event; None for live ones."""

    @property
    def durable(self) -> bool:
        """Whether the event is kept and numbered."""
        return self.type in DURABLE_TYPES
