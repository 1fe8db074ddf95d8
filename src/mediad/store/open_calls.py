"""Calls that have begun and not ended, as the journal knows them from their facts, and the facts
that end those whose process is gone. Pure.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid5

from mediad.bus.events import Event

__all__ = ["RECOVERED", "OpenCall", "advance", "end_of"]

RECOVERED = "recovery_on_timer_expiry"
"""``hangup_cause`` of a call whose process was gone (Q.850, cause 102)."""

_NAMESPACE = UUID("5f0a3c0e-6b8e-4d0b-9a37-8b1f6f2c1d55")


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that has not ended."""

    call_id: str
    customer_id: str
    transcribe_id: str | None
    """The transcribe that is open."""
    tm_last: datetime
    """When its last fact happened."""
    offset_s: float
    """The offset of its last fact, in seconds."""


def advance(call: OpenCall | None, event: Event) -> OpenCall | None:
    """Return a call as it is after one of its facts; None when it is over, or was never seen."""
    if event.type == "call_created":
        return OpenCall(event.call_id, event.customer_id, None, event.timestamp, event.offset_s)
    if call is None or event.type == "call_hungup":
        return None
    transcribe_id = call.transcribe_id
    if event.type == "transcribe_started":
        transcribe_id = event.data.get("transcribe_id")
    elif event.type == "transcribe_done":
        transcribe_id = None
    return replace(
        call,
        transcribe_id=transcribe_id,
        tm_last=max(call.tm_last, event.timestamp),
        offset_s=max(call.offset_s, event.offset_s),
    )


def end_of(call: OpenCall) -> list[Event]:
    """Return the facts that end a call at its last fact.

    Their ids come from the call's: a copy of the journal that is replayed, too, ends it once.
    """
    ends: list[tuple[str, dict[str, object]]] = []
    if call.transcribe_id is not None:
        ends.append(("transcribe_done", {"transcribe_id": call.transcribe_id}))
    hungup = {
        "status": "failed",
        "duration_s": round(call.offset_s, 3),
        "hangup_by": "system",
        "hangup_cause": RECOVERED,
        "counters": {},  # they were in the process that is gone
    }
    ends.append(("call_hungup", hungup))
    return [
        Event(
            type_,
            call.call_id,
            call.offset_s,
            data,
            str(uuid5(_NAMESPACE, f"{call.call_id} {type_}")),
            call.customer_id,
            call.tm_last,
        )
        for type_, data in ends
    ]
