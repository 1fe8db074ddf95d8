"""Facts of made-up calls, for tests of what keeps them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mediad.bus.events import DEFAULT_CUSTOMER, Event, new_event_id

__all__ = ["START", "CallFacts"]

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""When the calls begin."""


class CallFacts:
    """Makes one call's facts; each happens a second after the one before."""

    def __init__(self, call_id: str = "", customer_id: str = DEFAULT_CUSTOMER) -> None:
        self.call_id = call_id or new_event_id()
        self.transcribe_id = new_event_id()
        self.recording_id = new_event_id()
        self._customer_id = customer_id
        self._offset_s = -1.0

    def fact(self, type_: str, **data: Any) -> Event:
        """Return the next fact."""
        self._offset_s += 1.0
        timestamp = START + timedelta(seconds=self._offset_s)
        event = Event(type_, self.call_id, self._offset_s, data)
        return replace(event, customer_id=self._customer_id, timestamp=timestamp)

    def created(self, status: str = "in-progress", source: str = "alice", **others: Any) -> Event:
        """The call begins."""
        data = {"source": source, "destination": "bob"} | others
        return self.fact("call_created", direction="inbound", status=status, **data)

    def updated(self, status: str) -> Event:
        """Its status changes."""
        return self.fact("call_updated", status=status)

    def digit(self, digit: str = "5") -> Event:
        """A key is pressed."""
        return self.fact("dtmf_received", digit=digit)

    def started(self) -> Event:
        """Its transcribe begins."""
        return self.fact("transcribe_started", transcribe_id=self.transcribe_id, language="und")

    def said(self, text: str, direction: str = "in") -> Event:
        """Somebody says something."""
        data = {"transcribe_id": self.transcribe_id, "direction": direction, "text": text}
        return self.fact("transcript_created", **data)

    def done(self) -> Event:
        """Its transcribe ends."""
        return self.fact("transcribe_done", transcribe_id=self.transcribe_id)

    def recording(self) -> Event:
        """A recording begins."""
        data = {"recording_id": self.recording_id, "format": "wav", "path": "/tmp/a.wav"}
        return self.fact("recording_started", **data)

    def recorded(self) -> Event:
        """It ends."""
        data = {"recording_id": self.recording_id, "duration_s": 1.5, "size_bytes": 24_044}
        return self.fact("recording_finished", **data)

    def hungup(self, status: str = "completed", cause: str = "normal_clearing") -> Event:
        """The call ends."""
        return self.fact(
            "call_hungup",
            status=status,
            duration_s=round(self._offset_s + 1, 3),
            hangup_by="caller",
            hangup_cause=cause,
            counters={"frames": 3},
        )

    def whole(self, words: int = 3) -> list[Event]:
        """A call from its beginning to its end."""
        facts = [self.created(), self.started()]
        facts += [self.said(f"word {number} 🙂") for number in range(words)]
        return [*facts, self.done(), self.hungup()]
