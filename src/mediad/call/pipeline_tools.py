"""The tools that a pipeline offers its language model, and which of them an answer calls. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["HANG_UP", "TOOLS", "UNKNOWN", "called"]

HANG_UP = "hang_up"
"""Ends the call when all that was said with it has been heard."""

UNKNOWN = "unknown"
"""Any tool that is not offered."""

TOOLS: Sequence[Mapping[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": HANG_UP,
            "description": "End the call. Say goodbye first; it is heard before the call ends.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
"""As in OpenAI's chat completions."""


def called(calls: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Tell the tool of each call in an answer: ``HANG_UP`` or ``UNKNOWN``."""
    for call in calls:
        function = call.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        yield HANG_UP if name == HANG_UP else UNKNOWN
