"""What a call tells the bus: its facts with their offsets, words whose interim and final form share
an event id, and the transcribe they belong to. Not what happens on a call (`session`).

A registered call is told of before it has a time zero: `tell_expected`, and `tell_missing` if its
AudioSocket never comes.
"""

import time
from typing import Any

from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.bus.commands import Ended, Expect
from mediad.bus.events import Event, new_event_id
from mediad.line import Counters
from mediad.wire import rtvi

__all__ = ["Facts", "tell_expected", "tell_missing"]

_UNDETERMINED = "und"


class Facts:
    """The events of one call. Made at the call's time zero."""

    def __init__(self, bus: Bus, call: CallInfo) -> None:
        self._bus = bus
        self._call = call
        self.language = ""
        """That the call is held in, as BCP 47 has it; empty: an agent does not say."""
        self._started_at = time.monotonic()
        self._interim_id: str | None = None  # event id of the caller's words so far
        self._transcribe_id: str | None = None  # from the first final words on

    @property
    def age_s(self) -> float:
        """How long the call has lasted, in seconds."""
        return time.monotonic() - self._started_at

    def publish(self, type_: str, data: dict[str, Any], event_id: str | None = None) -> None:
        """Publish an event with the offset of now."""
        call = self._call
        event_id = event_id or new_event_id()
        offset_s = round(self.age_s, 4)
        self._bus.publish(Event(type_, call.call_id, offset_s, data, event_id, call.customer_id))

    def words(self, who: str, text: str, final: bool) -> None:
        """Publish what was said: live while it may change, durable in the end, one event id."""
        text = text[: rtvi.MAX_TEXT]
        if not text:
            return
        data = {"direction": "in" if who == "caller" else "out", "text": text}
        if who == "agent":
            self._transcribed(data)
            return
        self._interim_id = self._interim_id or new_event_id()
        if not final:
            self.publish("transcript_interim", data, self._interim_id)
            return
        self._transcribed(data, self._interim_id)
        self._interim_id = None

    def _transcribed(self, data: dict[str, Any], event_id: str | None = None) -> None:
        if self._transcribe_id is None:
            self._transcribe_id = new_event_id()
            language = self.language or _UNDETERMINED
            started = {"transcribe_id": self._transcribe_id, "language": language}
            self.publish("transcribe_started", started)
        data["transcribe_id"] = self._transcribe_id
        self.publish("transcript_created", data, event_id)

    def created(self) -> None:
        """Tell of a call that nobody registered, the first of its facts."""
        data = {
            "direction": "inbound",
            "status": "in-progress",
            "source": self._call.source,
            "destination": self._call.destination,
        }
        self.publish("call_created", data)

    def arrived(self) -> None:
        """Tell that a registered call is there."""
        self.publish("call_updated", {"status": "in-progress"})

    def agent_awaited(self, token: str) -> None:
        """Tell the token with which the call's agent may dial in. Live only: it is a secret, and
        soon worth nothing.
        """
        self.publish("agent_awaited", {"agent_token": token})

    def hung_up(self, by: str, cause: str, has_spoken: bool, counters: Counters) -> Ended:
        """Tell of the call's end, its last fact; return it."""
        if self._transcribe_id is not None:
            self.publish("transcribe_done", {"transcribe_id": self._transcribe_id})
        end = Ended("completed" if has_spoken else "failed", by, cause)
        self.publish("call_hungup", _end(end, round(self.age_s, 3), counters._asdict()))
        return end


def tell_expected(bus: Bus, call_id: str, call: Expect) -> None:
    """Tell of a call that was registered, the first of its facts."""
    data = {
        "direction": call.direction,
        "status": "ringing",
        "source": call.source,
        "destination": call.destination,
        "agent_id": call.agent_id,
        "number_id": call.number_id,
        "agent_config": call.agent_config,
        "metadata": call.metadata,
    }
    bus.publish(Event("call_created", call_id, 0.0, data, customer_id=call.customer_id))


def tell_missing(bus: Bus, call_id: str, call: Expect, end: Ended) -> None:
    """Tell of the end of a registered call that never came."""
    data = _end(end, 0.0, {})
    bus.publish(Event("call_hungup", call_id, 0.0, data, customer_id=call.customer_id))


def _end(end: Ended, duration_s: float, counters: dict[str, int]) -> dict[str, Any]:
    return {
        "status": end.status,
        "duration_s": duration_s,
        "hangup_by": end.hangup_by,
        "hangup_cause": end.hangup_cause,
        "counters": counters,
    }
