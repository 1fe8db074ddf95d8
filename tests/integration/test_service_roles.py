"""``mediad agent --role``: the offline services, as mediad meets them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from mediad.speech.check.suite import check_service
from mediad.wire import frames, service
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import (
    Done,
    Failure,
    FromMediad,
    FromService,
    Generate,
    Ready,
    Role,
    Start,
    StoppedSpeaking,
    Voice,
    Word,
)
from tests.own_stalls import no_longer_than
from tests.telephone import AGENT_RATE_HZ, say

START_S = 30.0
ANSWER_S = 10.0
_FRAME_BYTES = AGENT_RATE_HZ // 50 * 2

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def run_role(
    role: Role, *options: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run ``mediad agent --role`` on a free port; give its URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "agent", "--role", role, "--port", "0", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith(f"{role} listening on ws://127.0.0.1:")
        yield line.split()[-1], process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def urls() -> AsyncIterator[dict[Role, str]]:
    async with run_role("stt") as stt, run_role("llm") as llm, run_role("tts") as tts:
        yield {"stt": stt[0], "llm": llm[0], "tts": tts[0]}


class Call:
    """mediad's end of one connection."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket

    async def send(self, message: FromMediad) -> None:
        await self.websocket.send(service.encode(message))

    async def receive(self) -> FromService:
        async with asyncio.timeout(ANSWER_S):
            message = await self.websocket.recv()
        assert isinstance(message, bytes)
        read = service.from_service(message)
        assert read is not None
        assert not isinstance(read, service.Malformed)
        return read

    async def answer(self, request: StoppedSpeaking | Generate | Text) -> list[FromService]:
        """Ask, and return all that comes, the done last."""
        await self.send(request)
        answer = [await self.receive()]
        while not isinstance(answer[-1], Done):
            answer.append(await self.receive())
        return answer

    async def hear(self, pcm: bytes) -> None:
        """Send the caller's audio, faster than in real time."""
        for start in range(0, len(pcm), _FRAME_BYTES):
            await self.send(AudioFrame(pcm[start : start + _FRAME_BYTES], AGENT_RATE_HZ, 1))


@asynccontextmanager
async def call(urls: dict[Role, str], role: Role, **start: str | float) -> AsyncIterator[Call]:
    """Connect and start."""
    async with connect(urls[role], compression=None, max_size=frames.MAX_MESSAGE_SIZE) as websocket:
        call = Call(websocket)
        await call.send(Start(role, "a-call", **start))  # type: ignore[arg-type]
        ready = await call.receive()
        assert isinstance(ready, Ready)
        yield call


def texts(answer: list[FromService]) -> str:
    return "".join(part.text for part in answer if isinstance(part, Text))


def audio(answer: list[FromService]) -> bytes:
    return b"".join(part.audio for part in answer if isinstance(part, AudioFrame))


@pytest.mark.parametrize("role", get_args(Role))
async def test_it_passes_the_check(role: Role, urls: dict[Role, str]) -> None:
    results = [result async for result in check_service(urls[role], role)]
    assert [result for result in results if result.result != "passed"] == []


async def test_words_are_heard_turn_by_turn(urls: dict[Role, str]) -> None:
    async with call(urls, "stt") as caller:
        for n, word in enumerate(("yes", "no", "lemonade", "repeat"), 1):
            await caller.hear(bytes(3 * 2 * AGENT_RATE_HZ))  # while the agent speaks
            await caller.hear(say(word))
            heard = await caller.answer(StoppedSpeaking(n))
            said = [part.text for part in heard if isinstance(part, Transcription)]
            assert said == ([] if word == "lemonade" else [word])
            assert heard[-1] == Done(n)


async def test_what_is_said_after_a_turn_belongs_to_the_next(urls: dict[Role, str]) -> None:
    async with call(urls, "stt") as caller:
        await caller.hear(say("yes"))
        await caller.send(StoppedSpeaking(1))
        await caller.hear(say("no"))
        second = await caller.answer(StoppedSpeaking(2))
        rest = [await caller.receive(), await caller.receive()]
    said = [part.text for part in (*second, *rest) if isinstance(part, Transcription)]
    assert said == ["yes", "no"]


async def test_audio_of_another_rate_is_refused(urls: dict[Role, str]) -> None:
    async with connect(urls["stt"], compression=None) as websocket:
        caller = Call(websocket)
        await caller.send(Start("stt", "a-call", sample_rate=8000))
        failure = await caller.receive()
        assert isinstance(failure, Failure)
        assert (failure.n, failure.code) == (None, "sample_rate")


async def test_the_dialogue_follows_the_conversation(urls: dict[Role, str]) -> None:
    async with call(urls, "llm") as caller:
        greeting = await caller.answer(Generate(1, []))
        assert texts(greeting).startswith("Hello, this is the mediad agent. You can say")
        assert len(greeting) > 10  # it comes word by word
        messages = [
            {"role": "assistant", "content": texts(greeting)},
            {"role": "user", "content": "yes"},
        ]
        story = texts(await caller.answer(Generate(2, messages)))
        assert story.startswith("Here is the story")
        messages += [
            {"role": "assistant", "content": story[:20]},  # the caller talked over the rest
            {"role": "user", "content": "stop"},
        ]
        assert texts(await caller.answer(Generate(3, messages))).startswith("All right")
        again = [*messages[:2], {"role": "user", "content": "5*"}]
        assert texts(await caller.answer(Generate(4, again))).startswith("You pressed five, star.")


async def test_the_end_of_the_dialogue_hangs_up_where_there_is_a_tool_for_it(
    urls: dict[Role, str],
) -> None:
    messages = [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "stop"}]
    tool = {"type": "function", "function": {"name": "hang_up", "parameters": {}}}
    async with call(urls, "llm") as caller:
        with_tool = (await caller.answer(Generate(1, messages, [tool])))[-1]
        without = (await caller.answer(Generate(2, messages)))[-1]
    assert isinstance(with_tool, Done)
    assert with_tool.reason == "tool_calls"
    assert with_tool.tool_calls[0]["function"]["name"] == "hang_up"
    assert isinstance(without, Done)
    assert without.reason == "stop"


async def test_words_have_offsets_that_rise_within_the_audio(urls: dict[Role, str]) -> None:
    async with call(urls, "tts") as caller:
        said = await caller.answer(Text(1, "One, two, three and four."))
    words = [part for part in said if isinstance(part, Word)]
    assert [word.text for word in words] == ["One,", "two,", "three", "and", "four."]
    offsets = [word.offset_ms for word in words]
    assert offsets == sorted(set(offsets))
    first = next(part for part in said if isinstance(part, AudioFrame))
    assert offsets[-1] < len(audio(said)) / 2 / first.sample_rate * 1000


async def test_voice_and_pace_change_with_the_texts_after_them(urls: dict[Role, str]) -> None:
    async with call(urls, "tts", rate=1.0) as caller:
        slow = audio(await caller.answer(Text(1, "One, two, three.")))
        await caller.send(Voice(rate=2.0))
        fast = audio(await caller.answer(Text(2, "One, two, three.")))
        await caller.send(Voice("de"))
        german = audio(await caller.answer(Text(3, "One, two, three.")))
        await caller.send(Voice("no-such-voice"))
        *_, failure, done = await caller.answer(Text(4, "One."))
        await caller.send(Voice("en-us"))
        assert audio(await caller.answer(Text(5, "One.")))
    assert len(fast) < 0.7 * len(slow)
    assert german not in (slow, fast)
    assert isinstance(failure, Failure)
    assert (failure.n, failure.code, failure.retry) == (4, "cannot_speak", False)
    assert done == Done(4, "error")


async def test_cancelling_a_long_text_takes_no_half_second(urls: dict[Role, str]) -> None:
    long = "A very long sentence that goes on and on. " * 45
    async with call(urls, "tts") as caller:
        for n in range(1, 20, 2):
            await caller.send(Text(n, long))
            await caller.send(Text(n + 1, long))
            assert isinstance(await caller.receive(), Word)
            async with no_longer_than(0.5):
                await caller.send(Interruption(n + 1))
                while await caller.receive() != Done(n + 1, "cancelled"):
                    pass
        assert isinstance((await caller.answer(Text(30, "Yes.")))[-1], Done)


async def test_numbers_that_do_not_rise_are_refused(urls: dict[Role, str]) -> None:
    async with call(urls, "tts") as caller:
        await caller.answer(Text(5, "Yes."))
        await caller.send(Text(5, "Yes."))
        failure = await caller.receive()
    assert isinstance(failure, Failure)
    assert (failure.n, failure.code) == (None, "bad_n")


async def test_start_of_another_role_closes(urls: dict[Role, str]) -> None:
    async with connect(urls["tts"], compression=None) as websocket:
        caller = Call(websocket)
        await caller.send(Start("llm", "a-call"))
        failure = await caller.receive()
        assert isinstance(failure, Failure)
        assert failure.code == "bad_start"
        with pytest.raises(ConnectionClosed):
            await caller.receive()


async def test_one_call_too_many_is_closed_with_1013() -> None:
    async with run_role("llm", "--max-calls", "1") as (url, _):
        async with connect(url, compression=None), connect(url, compression=None) as second:
            async with asyncio.timeout(ANSWER_S):
                await second.wait_closed()
            assert second.close_code == 1013


async def test_caller_that_vanishes_harms_no_other() -> None:
    long = "A very long sentence that goes on and on. " * 45
    async with run_role("tts") as (url, process), call({"tts": url}, "tts") as caller:
        for _ in range(5):
            async with call({"tts": url}, "tts") as vanishing:
                await vanishing.send(Text(1, long))
                await vanishing.send(Text(2, long))
                assert isinstance(await vanishing.receive(), Word)
                vanishing.websocket.transport.abort()
        assert audio(await caller.answer(Text(1, "Yes.")))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        async with asyncio.timeout(10):
            assert await process.stderr.read() == b""


async def test_what_cannot_be_read_harms_no_call(urls: dict[Role, str]) -> None:
    async with call(urls, "tts") as caller:
        await caller.websocket.send("text")
        await caller.websocket.send(b"\xff" * 10_000)
        await caller.websocket.send(service.encode(StoppedSpeaking(1)))  # of another role
        assert audio(await caller.answer(Text(2, "Yes.")))


async def test_ctrl_c_ends_it_with_calls_going_on() -> None:
    async with run_role("tts") as (url, process), call({"tts": url}, "tts") as caller:
        await caller.send(Text(1, "A very long sentence that goes on and on. " * 45))
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await process.wait()


async def test_voice_that_does_not_exist_is_told_at_the_start() -> None:
    options = ("--role", "tts", "--port", "0", "--voice", "no-such-voice")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "agent", *options),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode() == "Error: espeak-ng has no voice 'no-such-voice'\n"
