"""What each role makes of a Pipecat service's frames."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    FunctionCallsStartedFrame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSUpdateSettingsFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.settings import TTSSettings
from pipecat.transcriptions.language import Language

from mediad.speech.roles.call import Answer, Handler, OpenHandler, Refused, Request, Send
from mediad.speech.roles.chunks import chunks
from mediad.speech.roles.pipeline import FramePipe
from mediad.wire.frames import AudioFrame, Text, Transcription
from mediad.wire.service import Done, Generate, Interim, Role, Start, StoppedSpeaking, Voice

__all__ = ["pipeline_service", "spoken_language"]

_FINALS_S = 1.0  # after the end of a turn: a provider that heard no word says nothing
_SETTLED_S = 0.2  # the same where all words are final: only some say that nothing more comes
_FIRST_S = 10.0  # for something of an answer to come; mediad has given up long before
_ERROR_S = 0.05  # an error and the end of the answer come on two ways


class PipecatSTT:
    """Has a provider hear one call."""

    def __init__(self, pipe: FramePipe, send: Send) -> None:
        self.sample_rate = pipe.in_rate_hz
        self._pipe = pipe
        self._send = send
        self._turn_is_open = False
        # Whether all words of the turn are final. None without an interim: what comes then may be
        # the late end of the turn before.
        self._is_settled: bool | None = None
        pipe.on_frame = self._on_frame

    def take(self, message: AudioFrame | Voice) -> None:
        """Pass on what the caller says."""
        if isinstance(message, AudioFrame):
            if not self._turn_is_open:
                self._turn_is_open = True
                self._pipe.send(VADUserStartedSpeakingFrame())
            self._pipe.send(InputAudioRawFrame(*message))

    def ask(self, request: Request) -> Answer:
        """Wait for the rest of a turn."""
        if self._turn_is_open:
            self._turn_is_open = False
            self._pipe.forget()  # of sentences within the turn: only the last one ends the waiting
            self._pipe.send(VADUserStoppedSpeakingFrame())
        return self._finish()

    async def _finish(self) -> Answer:
        while frame := await self._pipe.receive(_SETTLED_S if self._is_settled else _FINALS_S):
            if isinstance(frame, TranscriptionFrame) and frame.finalized:
                break
        self._is_settled = None
        return
        yield  # what was heard has been sent already

    async def _on_frame(self, frame: Frame) -> bool:
        """Send at once what was heard: providers also end sentences within a turn."""
        match frame:
            case InterimTranscriptionFrame():
                self._is_settled = False
                await self._send(Interim(frame.text))
            case TranscriptionFrame():
                self._is_settled = None if self._is_settled is None else True
                await self._send(Transcription(frame.text, frame.user_id, frame.timestamp))
                return True
            case ProposedUserStoppedSpeakingFrame():  # it finds the end of a turn by itself
                await self._send(StoppedSpeaking())
        return False


class PipecatLLM:
    """Has a provider answer the conversations of one call."""

    sample_rate = 0

    def __init__(self, pipe: FramePipe, _: Send) -> None:
        self._pipe = pipe
        pipe.on_frame = _keep(LLMTextFrame, LLMFullResponseEndFrame, FunctionCallsStartedFrame)
        provider: Any = pipe.provider
        provider.register_function(None, _leave_to_mediad)

    def take(self, message: AudioFrame | Voice) -> None:
        """There is nothing to take."""

    def ask(self, request: Request) -> Answer:
        """Have a conversation continued."""
        assert isinstance(request, Generate)
        return _interrupting(self._pipe, self._answer(request))

    async def _answer(self, request: Generate) -> Answer:
        messages: Any = list(request.messages)
        tools = ToolsSchema(standard_tools=list(_functions(request)))
        self._pipe.send(LLMContextFrame(LLMContext(messages, tools)))
        calls: list[dict[str, Any]] = []
        said = False
        while True:
            match await self._pipe.receive(_FIRST_S):
                case None:
                    raise Refused("provider", "the provider is silent", retry=True)
                case LLMTextFrame() as frame:
                    said = True
                    yield Text(request.n, frame.text)
                case FunctionCallsStartedFrame() as frame:
                    calls += map(_tool_call, frame.function_calls)
                case LLMFullResponseEndFrame():
                    break
        if not said and not calls:
            await self._pipe.receive(_ERROR_S)
        yield Done(request.n, "tool_calls" if calls else "stop", {}, calls)


class PipecatTTS:
    """Has a provider say the texts of one call."""

    def __init__(self, pipe: FramePipe, _: Send) -> None:
        provider: Any = pipe.provider
        self.sample_rate = int(provider.sample_rate)
        self._pipe = pipe
        pipe.on_frame = _keep(TTSAudioRawFrame, TTSStoppedFrame)

    def take(self, message: AudioFrame | Voice) -> None:
        """Change the voice and its language; its pace stays as it was at the start."""
        if isinstance(message, Voice):
            chosen = {"voice": message.voice, "language": spoken_language(message.language)}
            given: dict[str, Any] = {name: value for name, value in chosen.items() if value}
            if given:
                self._pipe.send(TTSUpdateSettingsFrame(delta=TTSSettings(**given)))

    def ask(self, request: Request) -> Answer:
        """Have a text said."""
        assert isinstance(request, Text)
        return _interrupting(self._pipe, self._say(request.text))

    async def _say(self, text: str) -> Answer:
        if not any(map(str.isalnum, text)):
            return  # a provider would say nothing, not even that it is done
        self._pipe.send(TTSSpeakFrame(text, append_to_context=False))
        while True:
            match await self._pipe.receive(_FIRST_S):
                case None:
                    raise Refused("provider", "the provider is silent", retry=True)
                case TTSStoppedFrame():
                    return
                case TTSAudioRawFrame() as frame:
                    audio = AudioFrame(frame.audio, frame.sample_rate, frame.num_channels)
                    for chunk in chunks(audio):
                        yield chunk


def spoken_language(name: str) -> Language | str:
    """Return a language as Pipecat has it, which knows each provider's own name for it."""
    return Language(name) if name in set(Language) else name


async def _interrupting(pipe: FramePipe, answer: Answer) -> Answer:
    """Give an answer; interrupt the provider if it does not come to its end."""
    ended = False
    try:
        async with aclosing(answer):
            async for message in answer:
                yield message
        ended = True
    finally:
        if not ended:
            await pipe.interrupt()


def _keep(*types: type[Frame]) -> Callable[[Frame], Awaitable[bool]]:
    """Return what lets only these types through."""

    async def on_frame(frame: Frame) -> bool:
        return isinstance(frame, types)

    return on_frame


def _functions(request: Generate) -> Iterator[FunctionSchema]:
    """Turn OpenAI's tools into Pipecat's."""
    for tool in request.tools:
        function = tool.get("function")
        if not isinstance(function, dict):
            continue
        parameters = function.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        yield FunctionSchema(
            str(function.get("name")),
            str(function.get("description", "")),
            parameters.get("properties") or {},
            parameters.get("required") or [],
        )


def _tool_call(call: FunctionCallFromLLM) -> dict[str, Any]:
    function = {"name": call.function_name, "arguments": json.dumps(dict(call.arguments))}
    return {"id": call.tool_call_id, "type": "function", "function": function}


async def _leave_to_mediad(params: FunctionCallParams) -> None:
    """Do nothing: mediad runs the tools."""
    await params.result_callback(None)


_HANDLERS: dict[Role, Callable[[FramePipe, Send], Handler]] = {
    "stt": PipecatSTT,
    "llm": PipecatLLM,
    "tts": PipecatTTS,
}


def pipeline_service(role: Role, make: Callable[[Start], Any]) -> OpenHandler:
    """Return the service.

    Args:
        make: Makes the Pipecat service of one call.
    """

    @asynccontextmanager
    async def open_handler(start: Start, send: Send) -> AsyncGenerator[Handler]:
        pipe = FramePipe(make(start), start.sample_rate)
        async with pipe.running():
            yield _HANDLERS[role](pipe, send)

    return open_handler
