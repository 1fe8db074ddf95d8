"""The LLM service in front of any HTTP API that speaks OpenAI's chat completions."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast, get_args

import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

from mediad.speech.roles.call import Answer, Handler, OpenHandler, Refused, Request, Send
from mediad.wire.frames import AudioFrame, Text
from mediad.wire.service import Done, Generate, Reason, Start, Voice

__all__ = ["openai_service"]

_TIMEOUT_S = 30.0  # between two pieces of an answer; mediad has given up long before
_MAX_ARGUMENTS = 16_384  # characters, of one tool call
_MAX_TOOL_CALLS = 16
_RETRY_STATUS = (408, 409, 429)


class OpenAILLM:
    """Passes the conversations of one call on, and the answers back as they come."""

    sample_rate = 0

    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self._client = client
        self._model = model
        self._knows_tools = True

    def take(self, message: AudioFrame | Voice) -> None:
        """There is nothing to take."""

    def ask(self, request: Request) -> Answer:
        """Have a conversation continued."""
        assert isinstance(request, Generate)
        return self._answer(request)

    async def _answer(self, request: Generate) -> Answer:
        reason, usage, tools = None, {}, _ToolCalls()
        try:
            async with await self._stream(request) as chunks:
                async for chunk in chunks:
                    if chunk.usage:
                        usage = {
                            "prompt_tokens": chunk.usage.prompt_tokens,
                            "completion_tokens": chunk.usage.completion_tokens,
                        }
                    for choice in chunk.choices[:1]:
                        if choice.delta.content:
                            yield Text(request.n, choice.delta.content)
                        tools.add(choice.delta.tool_calls or [])
                        reason = choice.finish_reason or reason
        except openai.APIStatusError as exc:
            retry = exc.status_code in _RETRY_STATUS or exc.status_code >= 500
            raise Refused(f"http_{exc.status_code}", exc.message, retry=retry) from exc
        except openai.APIError as exc:  # no connection, a timeout, or an error within the stream
            raise Refused("unavailable", exc.message, retry=True) from exc
        if reason is None:
            raise Refused("cut_off", "the answer ended in the middle", retry=True)
        known = reason if reason in get_args(Reason) else "stop"
        yield Done(request.n, cast(Reason, known), usage, tools.calls)

    async def _stream(self, request: Generate) -> AsyncStream[ChatCompletionChunk]:
        tools = list(request.tools) if self._knows_tools else []
        try:
            return await self._create(request, tools)
        except openai.BadRequestError as exc:
            if not tools or "tool" not in exc.message.lower():
                raise
        # There are models that know no tools, and their servers refuse whoever offers some.
        self._knows_tools = False
        return await self._create(request, [])

    async def _create(
        self, request: Generate, tools: list[Mapping[str, Any]]
    ) -> AsyncStream[ChatCompletionChunk]:
        return await self._client.chat.completions.create(
            model=self._model,
            messages=cast(Any, list(request.messages)),
            tools=cast(Any, tools) or openai.omit,
            stream=True,
            stream_options={"include_usage": True},
        )


class _ToolCalls:
    """Puts tool calls together: they come in pieces, told apart by an index."""

    def __init__(self) -> None:
        self._of_index: dict[int, dict[str, Any]] = {}

    def add(self, pieces: list[ChoiceDeltaToolCall]) -> None:
        """Take some pieces."""
        for piece in pieces:
            if piece.index not in self._of_index and len(self._of_index) >= _MAX_TOOL_CALLS:
                raise Refused("too_large", f"more than {_MAX_TOOL_CALLS} tool calls")
            call = self._of_index.setdefault(
                piece.index,
                {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
            )
            call["id"] = piece.id or call["id"]
            if piece.function:
                function = call["function"]
                function["name"] += piece.function.name or ""
                function["arguments"] += piece.function.arguments or ""
                if len(function["arguments"]) > _MAX_ARGUMENTS:
                    raise Refused("too_large", "the arguments of a tool call are too long")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """All of them, as OpenAI writes them in a message."""
        return [self._of_index[index] for index in sorted(self._of_index)]


def openai_service(url: str, model: str, api_key: str) -> OpenHandler:
    """Return the service.

    Args:
        url: Where ``/chat/completions`` is, as ``http://127.0.0.1:11434/v1``.
        api_key: May be empty, for a server of your own.
    """
    # One client, so that calls share its connections. Whether to try again is mediad's to decide.
    client = AsyncOpenAI(base_url=url, api_key=api_key or "none", timeout=_TIMEOUT_S, max_retries=0)

    @asynccontextmanager
    async def open_handler(_: Start, __: Send) -> AsyncGenerator[Handler]:
        yield OpenAILLM(client, model)

    return open_handler
