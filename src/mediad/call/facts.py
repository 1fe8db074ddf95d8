"""What a call tells the bus: its facts with their offsets, and words whose interim and final form
share an event id. Not what happens on a call (`session`).
"""

import time
from typing import Any

from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.bus.events import Event, new_event_id
from mediad.line import Counters
from mediad.wire import rtvi

__all__ = ["Facts"]


class Facts:
    """The events of one call. Made at the call's time zero."""

    def __init__(self, bus: Bus, call: CallInfo) -> None:
        self._bus = bus
        self._call = call
        self._started_at = time.monotonic()
        self._interim_id: str | None = None  # event id of the caller's words so far

    @property
    def age_s(self) -> float:
        """How long the call has lasted, in seconds."""
        return time.monotonic() - self._started_at

    def publish(self, type_: str, data: dict[str, Any], event_id: str | None = None) -> None:
        """Publish an event with the offset of now."""
        event_id = event_id or new_event_id()
        self._bus.publish(Event(type_, self._call.call_id, round(self.age_s, 4), data, event_id))

    def words(self, who: str, text: str, final: bool) -> None:
        """Publish what was said: live while it may change, durable in the end, one event id."""
        text = text[: rtvi.MAX_TEXT]
        if not text:
            return
        data = {"direction": "in" if who == "caller" else "out", "text": text}
        if who == "agent":
            self.publish("transcript_created", data)
            return
        self._interim_id = self._interim_id or new_event_id()
        type_ = "transcript_created" if final else "transcript_interim"
        self.publish(type_, data, self._interim_id)
        if final:
            self._interim_id = None

    def created(self, token: str | None) -> None:
        """Tell of the call, and of the token for an agent that dials in."""
        data = {
            "status": "in-progress",
            "source": self._call.source,
            "destination": self._call.destination,
        }
        self.publish("call_created", data | ({"agent_token": token} if token else {}))

    def renewed_token(self, token: str) -> None:
        """An agent that dials in may come again, with this token."""
        self.publish("call_updated", {"status": "in-progress", "agent_token": token})

    def hung_up(self, by: str, cause: str, has_spoken: bool, counters: Counters) -> None:
        """Tell of the call's end, its last fact."""
        data = {
            "status": "completed" if has_spoken else "failed",
            "duration_s": round(self.age_s, 3),
            "hangup_by": by,
            "hangup_cause": cause,
            "counters": counters._asdict(),
        }
        self.publish("call_hungup", data)
