"""A fact as the JSON that the journal keeps."""

import json
from datetime import datetime
from typing import Any

from mediad.bus.events import Event

__all__ = ["decode", "encode"]


def encode(event: Event) -> bytes:
    """Return a fact as JSON, in ASCII. Its number is the database's affair.

    Raises:
        ValueError, TypeError: If something in its data has no form in JSON.
    """
    fact = {
        "type": event.type,
        "call_id": event.call_id,
        "offset_s": event.offset_s,
        "data": dict(event.data),
        "event_id": event.event_id,
        "customer_id": event.customer_id,
        "timestamp": event.timestamp.isoformat(),
    }
    return json.dumps(fact, separators=(",", ":"), allow_nan=False).encode()


def decode(fact: bytes) -> Event:
    """Return a fact from its JSON.

    Raises:
        ValueError, TypeError, KeyError: If it is none.
    """
    fields: dict[str, Any] = json.loads(fact)
    return Event(**fields | {"timestamp": datetime.fromisoformat(fields["timestamp"])})
