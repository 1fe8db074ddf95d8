"""The offline LLM service: the scripted dialogue, as far as the conversation has come."""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mediad.speech.dialogue import Dialogue, Reply
from mediad.speech.roles.call import Answer, Handler, OpenHandler, Request, Send
from mediad.wire.frames import AudioFrame, Text
from mediad.wire.service import Done, Generate, Start, Voice

__all__ = ["HANG_UP", "ScriptedLLM", "reply_to", "script_service"]

HANG_UP = "hang_up"
"""The tool that ends the call, if mediad offers it."""

_DIGITS = re.compile(r"[0-9*#]+")


class ScriptedLLM:
    """Answers the conversations of one call."""

    sample_rate = 0

    def take(self, message: AudioFrame | Voice) -> None:
        """There is nothing to take."""

    def ask(self, request: Request) -> Answer:
        """Go on with a conversation, word by word."""
        assert isinstance(request, Generate)
        return _answer(request)


async def _answer(request: Generate) -> Answer:
    reply = reply_to(request.messages)
    text = " ".join(reply.sentences)
    words = re.findall(r"\S+\s*", text)
    for word in words:
        yield Text(request.n, word)
    usage = {"completion_tokens": len(words)}
    offered = [tool.get("function") for tool in request.tools]
    if reply.ends and any(isinstance(f, dict) and f.get("name") == HANG_UP for f in offered):
        call = {
            "id": f"call_{request.n}",
            "type": "function",
            "function": {"name": HANG_UP, "arguments": "{}"},
        }
        yield Done(request.n, "tool_calls", usage, [call])
    else:
        yield Done(request.n, "stop", usage)


def reply_to(messages: Sequence[Mapping[str, Any]]) -> Reply:
    """Return what the dialogue says next.

    The conversation is all it knows: who did not hear an answer to its end has talked over it.
    """
    dialogue = Dialogue()
    reply = dialogue.greet()
    heard: str | None = None  # of the last reply; None: there was none to hear
    asked = False
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str):
            continue
        if message.get("role") == "assistant":
            heard = content
        elif message.get("role") == "user":
            # The first thing said may be another greeting than the dialogue's.
            over_agent = asked and heard is not None and _words(heard) != _words(*reply.sentences)
            if _DIGITS.fullmatch(content.strip()):
                reply = dialogue.press(content.strip())
            else:
                reply = dialogue.hear(content, over_agent=over_agent)
            asked, heard = True, None
    return reply


def _words(*texts: str) -> list[str]:
    return " ".join(texts).split()


def script_service() -> OpenHandler:
    """Return the service."""

    @asynccontextmanager
    async def open_handler(_: Start, __: Send) -> AsyncGenerator[Handler]:
        yield ScriptedLLM()

    return open_handler
