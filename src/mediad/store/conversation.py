"""What is known of a call while it lives, made from its facts. Not where it is kept: `sessions`."""

from collections import deque
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from mediad.bus.events import Event

__all__ = [
    "MAX_DIGITS",
    "MAX_HISTORY_BYTES",
    "MAX_MESSAGES",
    "Context",
    "Conversation",
    "Message",
    "Session",
    "Summary",
    "summarize",
]

MAX_MESSAGES = 200
"""Messages in a history; the oldest go first."""

MAX_HISTORY_BYTES = 65_536
"""Size of a history, in bytes of JSON; the oldest messages go first, the newest one stays."""

MAX_DIGITS = 64
"""Digits in a context; the oldest go first."""

# What a session takes over from its call's first fact.
_FROM_CALL = (
    "direction",
    "source",
    "destination",
    "agent_id",
    "flow_id",
    "number_id",
    "agent_config",
    "metadata",
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Message(_Model):
    """Something that was said on a call."""

    role: Literal["user", "assistant", "system"]
    """user is the caller, assistant the agent."""
    content: str
    timestamp: datetime


class Session(_Model):
    """A live call. Its id is the call's."""

    call_id: str
    customer_id: str
    status: Literal["active"] = "active"
    direction: str | None = None
    source: str | None = None
    destination: str | None = None
    agent_id: str | None = None
    flow_id: str | None = None
    number_id: str | None = None
    agent_config: dict[str, JsonValue] | None = None
    """The agent's as it was when the call began; what is changed later is for later calls."""
    metadata: dict[str, JsonValue] | None = None
    started_at: datetime
    last_activity_at: datetime


class Context(_Model):
    """What a live call's conversation is about, as far as it is known."""

    customer_id: str
    phone_number: str | None = None
    """The other end's, as far as it tells it."""
    language: str | None = None
    """BCP 47, of what is transcribed."""
    digits: str = ""
    """What was keyed in."""


class Summary(_Model):
    """What remains of a session when its call is over."""

    call_id: str
    customer_id: str
    status: Literal["ended"] = "ended"
    source: str | None = None
    destination: str | None = None
    agent_id: str | None = None
    call_status: str | None = None
    hangup_by: str | None = None
    hangup_cause: str | None = None
    started_at: datetime
    ended_at: datetime
    messages: int
    """How many the history had in the end."""


class Conversation:
    """The state of one live call.

    Args:
        created: The call's first fact, call_created.

    Raises:
        ValueError: If the fact is not as such a fact is.
    """

    def __init__(self, created: Event) -> None:
        at = created.timestamp
        known = {name: created.data[name] for name in _FROM_CALL if name in created.data}
        self.session = Session(
            call_id=created.call_id,
            customer_id=created.customer_id,
            started_at=at,
            last_activity_at=at,
            **known,
        )
        is_outbound = self.session.direction == "outbound"
        self.context = Context(
            customer_id=created.customer_id,
            phone_number=self.session.destination if is_outbound else self.session.source,
        )
        self._messages: deque[bytes] = deque()  # each as JSON: it is written again and again
        self._size = 0  # of all of them, in bytes

    @property
    def messages(self) -> int:
        """How many messages the history has."""
        return len(self._messages)

    @property
    def history(self) -> bytes:
        """The history as JSON, a list of `Message`."""
        return b"[" + b",".join(self._messages) + b"]"

    def apply(self, event: Event) -> bool:
        """Take in what happened; return whether that is something a conversation is about.

        Raises:
            KeyError, ValueError: If the event is not as such an event is.
        """
        data = event.data
        match event.type:
            case "transcript_created":
                is_caller = data["direction"] == "in"
                self._say("user" if is_caller else "assistant", data["text"], event.timestamp)
            case "dtmf_received":
                digits = (self.context.digits + data["digit"])[-MAX_DIGITS:]
                self.context = self.context.model_copy(update={"digits": digits})
            case "transcribe_started":
                self.context = self.context.model_copy(update={"language": data["language"]})
            case "call_updated":
                pass
            case _:
                return False
        self.session = self.session.model_copy(update={"last_activity_at": event.timestamp})
        return True

    def _say(self, role: Literal["user", "assistant"], content: str, at: datetime) -> None:
        message = Message(role=role, content=content, timestamp=at).model_dump_json().encode()
        self._messages.append(message)
        self._size += len(message)
        while len(self._messages) > 1 and (
            len(self._messages) > MAX_MESSAGES or self._size > MAX_HISTORY_BYTES
        ):
            self._size -= len(self._messages.popleft())


def summarize(event: Event, session: Session, messages: int) -> Summary:
    """Return what remains of a session, by its call's last fact, call_hungup."""
    return Summary(
        call_id=session.call_id,
        customer_id=session.customer_id,
        source=session.source,
        destination=session.destination,
        agent_id=session.agent_id,
        call_status=event.data.get("status"),
        hangup_by=event.data.get("hangup_by"),
        hangup_cause=event.data.get("hangup_cause"),
        started_at=session.started_at,
        ended_at=event.timestamp,
        messages=messages,
    )
