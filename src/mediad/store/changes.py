"""What facts change in the tables. Pure: `apply` writes it.

A call's status only moves down this list, and its end is the last move. What does not move it so
(an answer that comes after the end, a second end) is left out, event and all.

    initiated
    ringing
    in-progress
    completed, failed, no-answer, busy, canceled

Every value comes from the facts, none from the clock, so that the same facts make the same rows
whenever they are applied.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from mediad.bus.events import Event
from mediad.store.open_calls import RECOVERED
from mediad.store.types import NEVER

__all__ = ["ENDED", "MAX_PARTY", "AgentCalls", "Changes", "Recovered"]

ENDED = frozenset(("completed", "failed", "no-answer", "busy", "canceled"))
"""What a call's status is when it is over."""

MAX_PARTY = 255
"""Characters of source and destination, which the caller's side chooses."""

_RANKS = {"initiated": 0, "ringing": 1, "in-progress": 2} | dict.fromkeys(ENDED, 3)

Row = dict[str, Any]


class Recovered(NamedTuple):
    """A call that ended because its process was gone."""

    end: Event
    status: str
    """Its status before."""


class AgentCalls(NamedTuple):
    """What an agent's ended calls add to its figures."""

    calls: int = 0
    completed: int = 0
    duration_ms: int = 0


class Changes:
    """What facts change, in their order.

    Args:
        statuses: Of the calls that the database has, by their ids.
        agents: The ids of these calls' agents, of those that have one.
    """

    def __init__(self, statuses: Mapping[str, str], agents: Mapping[str, str] = {}) -> None:
        self.events: list[Event] = []
        """The facts that count."""
        self.new_calls: dict[str, Row] = {}
        self.moved_calls: list[Row] = []
        self.ended_calls: list[Row] = []
        self.recovered: list[Recovered] = []
        self.calls_by_customer: Counter[str] = Counter()
        self.calls_by_agent: dict[tuple[str, str], AgentCalls] = {}
        """By customer and agent: calls that have ended."""
        self.transcribes: list[Row] = []
        self.done_transcribes: list[Row] = []
        self.transcripts: list[Row] = []
        self.recordings: list[Row] = []
        self.finished_recordings: list[Row] = []
        self._statuses = dict(statuses)
        self._agents = dict(agents)

    @property
    def call_ids(self) -> set[str]:
        """The calls whose rows change."""
        changed = (*self.moved_calls, *self.ended_calls)
        return {*self.new_calls, *(row["key"] for row in changed)}

    def add(self, fact: Event) -> None:
        """Take up a fact.

        Raises:
            ValueError, TypeError, KeyError: If it is not what a fact of its type is.
        """
        if fact.timestamp.tzinfo is None:
            raise ValueError(f"{fact.timestamp} has no time zone")
        if _TAKE[fact.type](self, fact):
            self.events.append(fact)

    def _call_created(self, fact: Event) -> bool:
        if fact.call_id in self._statuses:
            return False
        data, at = fact.data, fact.timestamp
        status = _status(data)
        self.new_calls[fact.call_id] = {
            "id": fact.call_id,
            "customer_id": fact.customer_id,
            "status": status,
            "direction": _text(data, "direction"),
            "source": _text(data, "source")[:MAX_PARTY],
            "destination": _text(data, "destination")[:MAX_PARTY],
            "agent_id": data.get("agent_id"),
            "flow_id": data.get("flow_id"),
            "number_id": data.get("number_id"),
            "agent_config": data.get("agent_config"),
            "metadata": data.get("metadata"),
            "tm_start": at,
            "tm_answer": at if status == "in-progress" else None,
            "tm_hangup": None,
            "duration_ms": None,
            "hangup_by": None,
            "hangup_cause": None,
            "counters": None,
            **_born(fact),
        }
        self.calls_by_customer[fact.customer_id] += 1
        self._statuses[fact.call_id] = status
        if data.get("agent_id") is not None:
            self._agents[fact.call_id] = _text(data, "agent_id")
        return True

    def _call_updated(self, fact: Event) -> bool:
        status = _status(fact.data)
        if status in ENDED:
            raise ValueError(f"{status} is how a call ends, and a call_hungup says so")
        before = self._statuses.get(fact.call_id)
        if before is None:
            return True  # the call itself was refused; what else is known of it is kept
        if _RANKS[status] < _RANKS[before]:
            return False
        if status != before:
            self._statuses[fact.call_id] = status
            self._move(fact, status)
        return True

    def _move(self, fact: Event, status: str) -> None:
        answered = fact.timestamp if status == "in-progress" else None
        if row := self.new_calls.get(fact.call_id):
            row |= {"status": status, "tm_answer": answered, "tm_update": fact.timestamp}
        else:
            self.moved_calls.append(_key(fact) | {"status": status, "tm_answer": answered})

    def _call_hungup(self, fact: Event) -> bool:
        data = fact.data
        status = _status(data)
        if status not in ENDED:
            raise ValueError(f"{status} is no status of a call that is over")
        duration_ms = _milliseconds(data)
        end = {
            "status": status,
            "tm_hangup": fact.timestamp,
            "duration_ms": duration_ms,
            "hangup_by": _text(data, "hangup_by"),
            "hangup_cause": _text(data, "hangup_cause"),
            "counters": data.get("counters"),
            "tm_update": fact.timestamp,
        }
        before = self._statuses.get(fact.call_id)
        if before is None:
            return True
        if before in ENDED:
            return False
        self._statuses[fact.call_id] = status
        if row := self.new_calls.get(fact.call_id):
            row |= end
        else:
            self.ended_calls.append(_key(fact) | end)
        if end["hangup_cause"] == RECOVERED:
            self.recovered.append(Recovered(fact, before))
        if (agent_id := self._agents.get(fact.call_id)) is not None:
            self._count(fact.customer_id, agent_id, status == "completed", duration_ms)
        return True

    def _count(self, customer_id: str, agent_id: str, is_completed: bool, ms: int) -> None:
        calls, completed, duration_ms = self.calls_by_agent.get((customer_id, agent_id), (0, 0, 0))
        self.calls_by_agent[customer_id, agent_id] = AgentCalls(
            calls + 1, completed + is_completed, duration_ms + ms
        )

    def _dtmf_received(self, fact: Event) -> bool:
        return True  # its event is all that is kept of it

    def _transcribe_started(self, fact: Event) -> bool:
        row = {
            "id": _text(fact.data, "transcribe_id"),
            "customer_id": fact.customer_id,
            "status": "running",
            "reference_type": "call",
            "reference_id": fact.call_id,
            "language": _text(fact.data, "language"),
        }
        self.transcribes.append(row | _born(fact))
        return True

    def _transcript_created(self, fact: Event) -> bool:
        row = {
            "id": fact.event_id,
            "customer_id": fact.customer_id,
            "transcribe_id": _text(fact.data, "transcribe_id"),
            "direction": _text(fact.data, "direction"),
            "message": _text(fact.data, "text"),
            "tm_transcript": round(fact.offset_s * 1_000_000),
        }
        self.transcripts.append(row | _born(fact))
        return True

    def _transcribe_done(self, fact: Event) -> bool:
        self.done_transcribes.append(_key(fact, "transcribe_id"))
        return True

    def _recording_started(self, fact: Event) -> bool:
        row = {
            "id": _text(fact.data, "recording_id"),
            "customer_id": fact.customer_id,
            "status": "running",
            "call_id": fact.call_id,
            "format": _text(fact.data, "format"),
            "path": _text(fact.data, "path"),
            "duration_ms": None,
            "size_bytes": None,
        }
        self.recordings.append(row | _born(fact))
        return True

    def _recording_finished(self, fact: Event) -> bool:
        row = {"duration_ms": _milliseconds(fact.data), "size_bytes": int(fact.data["size_bytes"])}
        self.finished_recordings.append(_key(fact, "recording_id") | row)
        return True


_TAKE: dict[str, Callable[[Changes, Event], bool]] = {
    "call_created": Changes._call_created,
    "call_updated": Changes._call_updated,
    "call_hungup": Changes._call_hungup,
    "dtmf_received": Changes._dtmf_received,
    "transcribe_started": Changes._transcribe_started,
    "transcript_created": Changes._transcript_created,
    "transcribe_done": Changes._transcribe_done,
    "recording_started": Changes._recording_started,
    "recording_finished": Changes._recording_finished,
}


def _born(fact: Event) -> Row:
    return {"tm_create": fact.timestamp, "tm_update": fact.timestamp, "tm_delete": NEVER}


def _key(fact: Event, name: str | None = None) -> Row:
    """Return which row is changed, and when. Not by its columns' names: they are set as well."""
    key = fact.call_id if name is None else _text(fact.data, name)
    return {"key": key, "of": fact.customer_id, "tm_update": fact.timestamp}


def _status(data: Mapping[str, Any]) -> str:
    status = _text(data, "status")
    if status not in _RANKS:
        raise ValueError(f"{status!r} is no status of a call")
    return status


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is no text but {type(value).__name__}")
    return value


def _milliseconds(data: Mapping[str, Any]) -> int:
    return timedelta(seconds=data["duration_s"]) // timedelta(milliseconds=1)
