"""The link to the service that thinks: a conversation to it, the agent's next words back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mediad.ai.connect import CallInfo
from mediad.ai.services.asked import Request
from mediad.ai.services.connection import Connection
from mediad.ai.services.events import LlmEvents, Times
from mediad.ai.services.link import ServiceLink
from mediad.ai.services.service import Service
from mediad.wire import service as wire
from mediad.wire.frames import Text
from mediad.wire.service import Done, FromService, Generate, Start

__all__ = ["MAX_REPLY", "LlmLink"]

MAX_REPLY = 65_536
"""The longest answer, in characters: over an hour of speech. One that is longer has failed."""


class LlmLink(ServiceLink):
    """The agent's words for one call."""

    def __init__(self, service: Service, call: CallInfo, language: str, events: LlmEvents) -> None:
        super().__init__(service, call, Start("llm", call.call_id, language), events)
        self._events = events

    def generate(
        self,
        n: int,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Ask how the conversation goes on; both lists are as in OpenAI's chat completions."""
        self._ask(n, wire.encode(Generate(n, messages, tools)))

    def _take_output(
        self, connection: Connection, item: FromService, message: bytes, now: float
    ) -> bool:
        head = connection.asked.head
        if not isinstance(item, Text) or head is None or item.id not in (0, head.n):
            self._counts.count_discarded("unasked")
            return False
        if connection.asked.hear(len(item.text), now) is None:  # it is not sent yet
            self._counts.count_discarded("unasked")
            return False
        if head.size > MAX_REPLY:
            self._stop_head(connection, "flood")
            return False
        self._events.on_text(head.n, item.text)
        return True

    def _finish(self, request: Request, done: Done, times: Times) -> None:
        # A service's own n may be larger: that ends what was asked before it, too.
        self._events.on_llm_done(replace(done, n=request.n), times)
