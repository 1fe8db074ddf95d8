"""What an event is. A fact is told twice under one id: at once, live, and again with its number
when the database has it (durable). All else is live only.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

__all__ = ["DEFAULT_CUSTOMER", "FACTS", "Event", "new_event_id"]

DEFAULT_CUSTOMER = "default"

FACTS = frozenset(
    (
        "call_created",
        "call_updated",
        "call_hungup",
        "dtmf_received",
        "transcribe_started",
        "transcript_created",
        "transcribe_done",
        "recording_started",
        "recording_finished",
    )
)
"""Types that are kept: they go to the journal, and from there to the database."""


def new_event_id() -> str:
    """Return an id for an event; interim words pass it on to the final ones."""
    return str(uuid.uuid4())


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
    def is_fact(self) -> bool:
        """Whether the event is one that is kept."""
        return self.type in FACTS

    @property
    def is_durable(self) -> bool:
        """Whether the database has it."""
        return self.sequence is not None
