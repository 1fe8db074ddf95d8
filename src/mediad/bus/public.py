"""An event as people outside see it: one JSON object, the same in webhooks and on the events
WebSocket. Pure.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mediad.bus.events import Event

__all__ = ["NOBODY", "Parties", "iso", "public_event"]


class Parties(NamedTuple):
    """Who a call is between."""

    source: str | None
    destination: str | None


NOBODY = Parties(None, None)
"""Of a call that is not known."""

_RESOURCES = (
    ("call_", "call", None),
    ("dtmf_", "dtmf", None),
    ("transcribe_", "transcribe", "transcribe_id"),
    ("transcript_", "transcript", None),
    ("recording_", "recording", "recording_id"),
)
"""By how its events' types begin: a resource's type, and what names it in their data."""

_HIDDEN = frozenset(("agent_config", "counters"))
"""Configuration may hold what is nobody else's business; counters are for whoever runs mediad."""


def public_event(event: Event, parties: Parties) -> dict[str, Any]:
    """Return an event's JSON.

    ``id`` is the event's, ``sequence`` its number among the customer's (null while it is live), and
    ``data`` what it is about: a call, or what belongs to ``call_id``.
    """
    kind, id = _resource(event)
    data: dict[str, Any] = {
        "id": id,
        "type": kind,
        "customer_id": event.customer_id,
        "call_id": event.call_id,
        "source": parties.source,
        "destination": parties.destination,
        "offset": event.offset_s,
    }
    for name, value in event.data.items():
        if name not in _HIDDEN:
            data["duration" if name == "duration_s" else name] = value
    if kind == "call":
        for name in ("status", "duration", "hangup_cause"):
            data.setdefault(name, None)
    return {
        "id": event.event_id,
        "type": event.type,
        "created": iso(event.timestamp),
        "sequence": event.sequence,
        "data": data,
    }


def iso(time: datetime) -> str:
    """Return a time as text in UTC, with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _resource(event: Event) -> tuple[str, str]:
    """Return the type and the id of what an event is about."""
    for prefix, kind, key in _RESOURCES:
        if event.type.startswith(prefix):
            if kind == "call":
                return kind, event.call_id
            id: Mapping[str, Any] | Any = event.data.get(key) if key else event.event_id
            return kind, str(id or event.event_id)
    return "call", event.call_id
