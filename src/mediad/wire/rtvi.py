"""RTVI, the JSON that a stock Pipecat agent speaks inside MessageFrames, protocol version 2.

Only what mediad uses: ``client-ready``, ``dtmf`` and ``send-text`` go out; transcripts, speaking
states and errors come in.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "MAX_JSON",
    "MAX_TEXT",
    "PROTOCOL_VERSION",
    "AgentError",
    "AgentReady",
    "Event",
    "Speaking",
    "Transcript",
    "client_ready",
    "dtmf",
    "parse",
    "send_text",
]

PROTOCOL_VERSION = "2.0.0"
_LABEL = "rtvi-ai"
MAX_JSON = 65_536
"""The longest JSON read, in characters: reading it holds the event loop (1 ms for 64 KiB)."""

MAX_TEXT = 16_384
"""The longest transcript or error text kept, in characters; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class AgentReady:
    """The agent has answered ``client-ready``."""


@dataclass(frozen=True, slots=True)
class Speaking:
    """Somebody starts or stops speaking, as the agent hears it."""

    who: str
    """``caller`` or ``agent``."""
    started: bool


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words that were said."""

    who: str
    """``caller`` or ``agent``."""
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class AgentError:
    """The agent reports an error."""

    text: str
    fatal: bool


Event = AgentReady | Speaking | Transcript | AgentError

_SPEAKING = {
    "user-started-speaking": Speaking("caller", True),
    "user-stopped-speaking": Speaking("caller", False),
    "bot-started-speaking": Speaking("agent", True),
    "bot-stopped-speaking": Speaking("agent", False),
}


def client_ready(message_id: str, details: Mapping[str, Any]) -> str:
    """Return the first message to an agent.

    Args:
        message_id: Any id; the agent's answer repeats it.
        details: What the agent may want to know of the call; goes into ``about.platform_details``.
    """
    about = {"library": "mediad", "platform": "telephone", "platform_details": dict(details)}
    return _message("client-ready", message_id, {"version": PROTOCOL_VERSION, "about": about})


def dtmf(message_id: str, digit: str) -> str:
    """Return a pressed digit. Agents before Pipecat 1.6.0 do not know the type and answer with an
    error.
    """
    return _message("dtmf", message_id, {"buttons": [digit]})


def send_text(message_id: str, text: str, run_immediately: bool) -> str:
    """Return words for the agent, as if the caller had written them.

    Args:
        message_id: Any id.
        text: The words.
        run_immediately: Whether the agent answers at once, and stops what it is saying.
    """
    options = {"run_immediately": run_immediately, "audio_response": True}
    return _message("send-text", message_id, {"content": text, "options": options})


def _message(type_: str, message_id: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"label": _LABEL, "type": type_, "id": message_id, "data": data})


def parse(data: str) -> Event | None:
    """Read a MessageFrame's JSON; None for what is no RTVI, too long, or of no interest."""
    if len(data) > MAX_JSON:
        return None
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("label") != _LABEL:
        return None
    type_, body = message.get("type"), message.get("data")
    body = body if isinstance(body, dict) else {}
    if not isinstance(type_, str):
        return None
    if type_ in _SPEAKING:
        return _SPEAKING[type_]
    return _parse_body(type_, body)


def _parse_body(type_: str, body: dict[str, Any]) -> Event | None:
    match type_:
        case "user-transcription":
            return Transcript("caller", _text(body.get("text")), body.get("final") is True)
        case "bot-transcription":
            return Transcript("agent", _text(body.get("text")), True)
        case "bot-ready":
            return AgentReady()
        case "error":
            return AgentError(
                _text(body.get("error") or body.get("message")), body.get("fatal") is True
            )
        case "error-response":
            return AgentError(_text(body.get("error")), False)
        case _:
            return None


def _text(value: object) -> str:
    # Half a surrogate pair ("\\ud800" is legal JSON) could not be written as UTF-8 anywhere.
    return value[:MAX_TEXT].encode(errors="replace").decode() if isinstance(value, str) else ""
