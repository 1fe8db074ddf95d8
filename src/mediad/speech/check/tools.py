"""The tool that an LLM service is offered, and what is wrong with how it is called. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mediad.wire.service import Done

__all__ = ["CONVERSATION", "OFFERED", "wrong_in"]

_NAME = "hang_up"
_MAX_SHOWN = 100  # characters

OFFERED: Sequence[Mapping[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": _NAME,
            "description": "End the call. Say goodbye first; it is heard before the call ends.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
"""As mediad offers it on a call."""

CONVERSATION: Sequence[Mapping[str, Any]] = [
    {"role": "assistant", "content": "Anything else? If not, say stop, and I hang up."},
    {"role": "user", "content": "Stop"},
]
"""Whoever knows tools may well call it now."""


def wrong_in(done: Done) -> str | None:
    """Tell what is wrong with the tool calls of an answer; None if nothing is, or it has none."""
    if done.reason != "tool_calls":
        return f"tool_calls come with the reason {done.reason}" if done.tool_calls else None
    if not done.tool_calls:
        return "the reason is tool_calls, and tool_calls is no list of objects"
    return next(filter(None, map(_wrong_in_call, done.tool_calls)), None)


def _wrong_in_call(call: Mapping[str, Any]) -> str | None:
    function = call.get("function")
    if call.get("type") != "function" or not isinstance(function, Mapping):
        return f"a tool call is not of the type function, or has none: {_shown(call)}"
    if not call.get("id") or not isinstance(call["id"], str):
        return f"a tool call has no id: {_shown(call)}"
    name, arguments = function.get("name"), function.get("arguments")
    if name != _NAME:
        return f"a tool is called that was not offered: {_shown(name)}"
    if not _is_object(arguments):
        return f"the arguments of {_NAME} are no text with a JSON object: {_shown(arguments)}"
    return None


def _is_object(arguments: object) -> bool:
    if not isinstance(arguments, str):
        return False
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
