"""Pipecat's services behind ours. Providers cannot be called here: offline ones stand in for them,
and what Pipecat's own classes are made with is looked at.
"""

import asyncio
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import serve

from mediad.errors import ConfigError
from mediad.speech.check.suite import check_service
from mediad.speech.hearing import Listener
from mediad.speech.roles.call import OpenHandler, serve_call
from mediad.speech.roles.choice import Choice, make_service
from mediad.wire import service
from mediad.wire.frames import AudioFrame, Text, Transcription
from mediad.wire.service import Done, Failure, FromService, Generate, Role, Start, StoppedSpeaking
from tests import virtual_time
from tests.fakes.openai_api import DONE, FakeApi, chunk, run_api
from tests.telephone import AGENT_RATE_HZ, say

_wait_for = asyncio.wait_for
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # here every warning is an error, and Pipecat has some
    from pipecat.frames.frames import (
        Frame,
        InterimTranscriptionFrame,
        ProposedUserStoppedSpeakingFrame,
        TranscriptionFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection
    from pipecat.services.openai.llm import OpenAILLMService

    from mediad.speech.roles import pipeline_roles, providers
    from mediad.speech.roles.pipeline import FramePipe
    from mediad.speech.roles.pipeline_roles import PipecatSTT, pipeline_service
    from mediad.speech.services import EspeakTTSService, PocketsphinxSTTService
# For Python 3.11 Pipecat puts another one in its place, by which other tests, of what knows nothing
# of Pipecat, would leave connections open when they cancel.
asyncio.wait_for = _wait_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@asynccontextmanager
async def serving(role: Role, handler: OpenHandler) -> AsyncIterator[str]:
    """Serve it here; give the URL."""
    one = partial(serve_call, role=role, open_handler=handler)
    async with serve(one, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def offline(role: Role, api_url: str) -> Callable[[Start], Any]:
    """Return what makes a Pipecat service that needs no network."""
    listener, executor = Listener(), ThreadPoolExecutor(1)

    def make(_: Start) -> Any:
        match role:
            case "stt":
                return PocketsphinxSTTService(listener, executor)
            case "llm":
                return OpenAILLMService(api_key="none", base_url=api_url)
            case "tts":
                return EspeakTTSService("en-us", 160)

    return make


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with run_api() as api:
        words = [chunk(f"word{n} ") for n in range(30)]
        api.events = [part for word in words for part in (word, 0.01)]
        api.events += [chunk(finish="stop"), DONE]
        yield api


async def speak(websocket: ClientConnection, pcm: bytes) -> None:
    """Send 16 kHz audio as mediad does, in frames of 20 ms."""
    for start in range(0, len(pcm), 640):
        frame = AudioFrame(pcm[start : start + 640], AGENT_RATE_HZ, 1)
        await websocket.send(service.encode(frame))


async def hear(websocket: ClientConnection) -> FromService:
    """Return the next that the service says."""
    message = await websocket.recv()
    assert isinstance(message, bytes)
    part = service.from_service(message)
    assert part is not None
    assert not isinstance(part, service.Malformed)
    return part


async def ask(
    role: Role, api: FakeApi, *requests: StoppedSpeaking | Generate | Text, pcm: bytes = b""
) -> list[FromService]:
    """Start, send, and return what comes up to the last done."""
    read: list[FromService] = []
    async with (
        serving(role, pipeline_service(role, offline(role, api.url))) as url,
        connect(url, compression=None) as websocket,
    ):
        await websocket.send(service.encode(Start(role, "a-call")))
        await speak(websocket, pcm)
        for request in requests:
            await websocket.send(service.encode(request))
        while len([part for part in read if isinstance(part, Done)]) < len(requests):
            read.append(await hear(websocket))
    return read


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
async def test_a_service_of_pipecat_passes_the_check(
    role: Role, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_roles, "_FINALS_S", 0.2)
    async with serving(role, pipeline_service(role, offline(role, api.url))) as url:
        results = [result async for result in check_service(url, role)]
    assert [result for result in results if result.result != "passed"] == []


async def test_what_is_heard_comes_before_the_done(api: FakeApi) -> None:
    pcm = say("yes", quiet_s=0.4)
    *_, heard, done = await ask("stt", api, StoppedSpeaking(1), pcm=pcm)
    assert isinstance(heard, Transcription)
    assert (heard.text, done) == ("yes", Done(1))


INTERIM, FINAL = InterimTranscriptionFrame("ye", "", ""), TranscriptionFrame("yes", "", "")
FINALIZED = TranscriptionFrame("yes", "", "", finalized=True)


@pytest.mark.parametrize(
    ("heard", "after", "waited_s"),
    [
        ([INTERIM, FINAL], [], 0.2),  # and of the finalizing, which finds no more, nothing is told
        ([INTERIM, FINAL, FINAL], [], 0.2),
        ([INTERIM, FINAL, INTERIM], [], 1.0),
        ([INTERIM, FINAL, INTERIM], [FINALIZED], 0.0),
        ([INTERIM], [FINAL], 0.2),
        ([FINAL], [], 1.0),  # it may be of the turn before, as with who hears whole turns only
        ([FINAL], [FINALIZED], 0.0),
        ([], [], 1.0),
    ],
)
def test_words_that_are_final_already_are_not_waited_for(
    heard: list[Frame], after: list[Frame], waited_s: float
) -> None:
    async def ask() -> None:
        sent: list[FromService] = []

        async def send(message: FromService) -> None:
            sent.append(message)

        pipe = FramePipe(PocketsphinxSTTService(Listener(), ThreadPoolExecutor(1)), AGENT_RATE_HZ)
        stt = PipecatSTT(pipe, send)
        for _ in range(2):  # of two turns one is as the other
            stt.take(AudioFrame(bytes(640), AGENT_RATE_HZ, 1))
            for frame in heard:
                await pipe.take(frame)
            asked_at = asyncio.get_running_loop().time()
            answer = stt.ask(StoppedSpeaking(1))
            for frame in after:
                await pipe.take(frame)
            assert [message async for message in answer] == []
            assert asyncio.get_running_loop().time() - asked_at == pytest.approx(waited_s)
        assert len(sent) == 2 * len(heard + after)

    virtual_time.run(ask())


async def test_tools_are_called_by_mediad(api: FakeApi) -> None:
    piece = {"index": 0, "id": "c1", "function": {"name": "hang_up", "arguments": '{"in": 3}'}}
    api.events = [chunk(tool_calls=[piece]), chunk(finish="tool_calls"), DONE]
    parameters = {"type": "object", "properties": {"in": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "hang_up", "parameters": parameters}}
    messages = [{"role": "user", "content": "Goodbye."}]
    *_, done = await ask("llm", api, Generate(1, messages, [tool]))
    assert isinstance(done, Done)
    assert done.reason == "tool_calls"
    assert done.tool_calls[0]["function"] == {"name": "hang_up", "arguments": '{"in": 3}'}
    assert api.requests[0]["tools"][0]["function"]["name"] == "hang_up"
    assert len(api.requests) == 1


async def test_an_error_of_a_provider_is_told(api: FakeApi) -> None:
    api.status = 401
    messages = [{"role": "user", "content": "Hello."}]
    *_, failure, done = await ask("llm", api, Generate(1, messages))
    assert isinstance(failure, Failure)
    assert (failure.n, failure.code, done) == (1, "provider", Done(1, "error"))


# By name.


@pytest.mark.parametrize(
    ("role", "provider", "name"),
    [
        ("stt", "openai", "OpenAISTTService"),
        ("llm", "openai", "OpenAILLMService"),
        ("tts", "openai", "OpenAITTSService"),
        ("tts", "deepgram", "DeepgramTTSService"),
        ("tts", "elevenlabs", "ElevenLabsTTSService"),
        ("stt", "elevenlabs:ElevenLabsRealtimeSTTService", "ElevenLabsRealtimeSTTService"),
        ("tts", "cartesia", "CartesiaTTSService"),
        ("stt", "cartesia", "CartesiaSTTService"),
        ("llm", "groq", "GroqLLMService"),
    ],
)
def test_providers_are_found_and_made(role: Role, provider: str, name: str) -> None:
    cls = providers.find_class(role, provider)
    assert cls.__name__ == name
    made = providers.make_provider(cls, "sesame", "", "")
    assert isinstance(made, cls)
    voice = "a-voice" if role == "tts" else ""
    made = providers.make_provider(cls, "sesame", "a-model", voice)
    assert made._settings.model == "a-model"
    assert role != "tts" or made._settings.voice == "a-voice"


@pytest.mark.parametrize(
    ("role", "provider", "message"),
    [
        ("stt", "nobody", "Pipecat has no stt service 'nobody'"),
        ("llm", "deepgram", "Pipecat has no llm service 'deepgram'"),
        ("tts", "../x", "'../x' is no name of a provider"),
        ("tts", "openai:Nothing", "pipecat.services.openai.tts has no Nothing"),
    ],
)
def test_a_provider_that_does_not_exist_is_told(role: Role, provider: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        providers.find_class(role, provider)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepgram", None)
    with pytest.raises(ConfigError, match=r"pip install 'pipecat-ai\[deepgram\]'"):
        providers.find_class("stt", "deepgram")


def test_a_provider_that_needs_more_than_a_key_says_so() -> None:
    cls = providers.find_class("llm", "azure")
    with pytest.raises(ConfigError, match="AzureLLMService cannot be made from a key"):
        providers.make_provider(cls, "sesame", "", "")


def test_a_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPGRAM_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="deepgram needs its API key .* DEEPGRAM_API_KEY"):
        make_service(Choice("tts", provider="deepgram"))
    monkeypatch.setenv("DEEPGRAM_API_KEY", "sesame")
    make_service(Choice("tts", provider="deepgram"))


@pytest.mark.parametrize(
    ("role", "provider"),
    [("stt", "openai"), ("stt", "cartesia"), ("tts", "elevenlabs"), ("tts", "cartesia")],
)
def test_a_provider_is_told_the_calls_language(role: Role, provider: str) -> None:
    cls = providers.find_class(role, provider)
    made = providers.make_provider(cls, "sesame", "", "", "de-DE")
    assert str(made._settings.language).startswith("de")


@pytest.mark.parametrize("provider", ["elevenlabs", "openai", "deepgram"])
def test_a_provider_is_told_the_calls_pace(provider: str) -> None:
    cls = providers.find_class("tts", provider)
    made = providers.make_provider(cls, "sesame", "", "", "de-DE", 1.1)
    assert made._settings.speed == 1.1
    own = providers.make_provider(cls, "sesame", "", "", "", 1.0)
    assert own._settings.speed is None


@pytest.mark.parametrize(
    ("role", "provider", "expected"),
    [
        ("tts", "cartesia", ["CartesiaTTSService takes no pace: calls hear its voice's own"]),
        ("tts", "openai", []),
        ("stt", "cartesia", []),
    ],
)
def test_a_pace_that_a_provider_does_not_take_is_told_once(
    role: Role,
    provider: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def only_make(_: Role, make: Callable[[Start], Any]) -> Any:
        return make

    monkeypatch.setattr(providers, "pipeline_service", only_make)
    make: Any = providers.provider_service(role, provider, "sesame")
    for rate in (1.0, 1.2, 0.9):
        make(Start(role, "a-call", rate=rate))
    told = [record.getMessage() for record in caplog.records if record.name == providers.__name__]
    assert told == expected


def test_a_provider_without_a_language_is_told_none() -> None:
    cls = providers.find_class("llm", "openai")
    assert isinstance(providers.make_provider(cls, "sesame", "a-model", "", "de-DE", 1.1), cls)


async def test_the_end_of_a_turn_that_a_provider_finds_is_passed_on(api: FakeApi) -> None:
    class Decisive(PocketsphinxSTTService):
        """It says after each transcript that the turn is over."""

        async def push_frame(
            self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
        ) -> None:
            await super().push_frame(frame, direction)
            if isinstance(frame, TranscriptionFrame):
                await self.broadcast_frame(ProposedUserStoppedSpeakingFrame)

    def make(_: Start) -> Any:
        return Decisive(Listener(), ThreadPoolExecutor(1))

    async with (
        serving("stt", pipeline_service("stt", make)) as url,
        connect(url, compression=None) as websocket,
    ):
        await websocket.send(service.encode(Start("stt", "a-call")))
        pcm = say("yes", quiet_s=0.4)
        await speak(websocket, pcm)
        await websocket.send(service.encode(StoppedSpeaking(1)))
        read: list[FromService] = []
        async with asyncio.timeout(20):
            while StoppedSpeaking() not in read:
                read.append(await hear(websocket))
    assert any(isinstance(part, Transcription) and part.text == "yes" for part in read)
