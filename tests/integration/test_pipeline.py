"""Whole calls on which mediad takes the turns, between services that speak the real wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from mediad.bus.commands import Expect, Inject, Say
from mediad.caller import Caller
from mediad.config import Settings
from mediad.store.agents import AgentConfig
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import Done, Generate, StoppedSpeaking, Word
from tests.data.spoken import recordings
from tests.fakes.service import RATE_HZ, FakeService, Script, ServiceConnection, answer, pcm_of
from tests.integration.daemon import Daemon, eventually, running, settings

SPEECH = recordings("the weather is nice today")[0]
PHRASE = "one two three four five six seven eight nine ten"
PATIENCE = {"connect_timeout_s": 8, "timeout_s": 8, "budget_s": 16}
"""Of services that do not fail, on a machine that stands still at times."""


class Rig(NamedTuple):
    """A mediad, its services and a caller."""

    daemon: Daemon
    stt: FakeService
    llm: FakeService
    tts: FakeService
    caller: Caller

    def texts(self, direction: str) -> list[str]:
        """What was said, as the facts have it."""
        words = self.daemon.events("transcript_created")
        return [event.data["text"] for event in words if event.data["direction"] == direction]

    async def turn_ends(self, number: int) -> dict[str, Any]:
        """Wait for the end of a turn, counted from 0."""
        return dict((await self.daemon.event("turn_ended", number=number, timeout_s=15)).data)

    def speak(self) -> None:
        """Let the caller speak for two seconds."""
        self.caller.say(SPEECH.pcm, SPEECH.rate_hz)


@asynccontextmanager
async def rig(
    *,
    stt: Script = answer,
    llm: Script = answer,
    tts: Script = answer,
    agent: dict[str, Any] | None = None,
    **pipeline: Any,
) -> AsyncIterator[Rig]:
    """Have a call; of a registered agent, if its configuration is given."""
    async with AsyncExitStack() as stack:
        services = (
            await stack.enter_async_context(FakeService("stt", stt)),
            await stack.enter_async_context(FakeService("llm", llm)),
            await stack.enter_async_context(FakeService("tts", tts)),
        )
        wanted = settings().model_dump()
        tables = {service.role: {"url": [service.url]} | PATIENCE for service in services}
        link = "pipeline" if agent is None else "agent"  # which the agent's own goes before
        wanted["ai"] |= {"link": link, "agent_url": ["ws://127.0.0.1:9"]}
        wanted |= {"pipeline": pipeline} | tables
        daemon = await stack.enter_async_context(running(Settings.model_validate(wanted)))
        call_id = uuid4()
        if agent is not None:
            expect = Expect("default", agent_config=agent)
            await daemon.app.commands.send(str(call_id), expect)
        caller = await stack.enter_async_context(
            Caller(*daemon.app.audiosocket_address, call_id=call_id)
        )
        yield Rig(daemon, *services, caller)


async def test_a_conversation() -> None:
    async with rig(first_message="Welcome to the bank.") as it:
        assert await it.turn_ends(0) == {"n": 1, "how": "finished"}
        it.speak()
        assert await it.turn_ends(1) == {"n": 2, "how": "finished"}
        assert it.texts("in") == ["turn 2"]
        assert it.texts("out") == ["Welcome to the bank.", "turn 2"]
        (asked,) = it.llm.asked(Generate)
        assert asked.n == 2
        assert [(message["role"], message["content"]) for message in asked.messages[1:]] == [
            ("assistant", "Welcome to the bank."),
            ("user", "turn 2"),
        ]
        assert sum(len(audio) for audio in it.stt.connections[0].audio) > 32_000
        assert len(it.caller.heard.aligned(it.caller.started_at)) > 0
        it.caller.hang_up()
        end = (await it.daemon.event("call_hungup")).data
    assert (end["status"], end["hangup_by"]) == ("completed", "caller")


async def test_the_language_model_begins_without_a_first_message() -> None:
    async with rig() as it:
        assert await it.turn_ends(0) == {"n": 1, "how": "finished"}
        (asked,) = it.llm.asked(Generate)
        assert "Begin the conversation" in asked.messages[-1]["content"]


async def more(connection: ServiceConnection, known: int) -> list[Any]:
    """Wait for what a service is asked next."""
    await connection.wait(lambda asked: len(asked.got) > known)
    return connection.got[known:]


async def slow_speech(connection: ServiceConnection) -> None:
    """A TTS whose letters take a tenth of a second each: long enough to be talked over."""
    said = 0
    while not connection.is_over:
        for message in await more(connection, said):
            said += 1
            if not isinstance(message, Text):
                continue
            pcm = pcm_of(message.text)
            stretched = b"".join(pcm[at : at + 160] * 10 for at in range(0, len(pcm), 160))
            await connection.send(AudioFrame(stretched, RATE_HZ, 1))
            at = 0
            for word in message.text.split(" "):
                await connection.send(Word(message.id, word, 100 * at))
                at += len(word) + 1
            await connection.send(Done(message.id))


async def hears_a_word(connection: ServiceConnection) -> None:
    """An STT that recognises a word half a second after the caller began to speak."""
    await connection.wait(lambda c: any(_is_loud(audio) for audio in c.audio))
    await asyncio.sleep(0.5)
    await connection.send(Transcription("wait", "", ""))
    await answer(connection)


def _is_loud(pcm: bytes) -> bool:
    return max(memoryview(pcm).cast("h"), default=0) > 1000


async def test_what_was_not_heard_is_not_in_the_history() -> None:
    async with rig(stt=hears_a_word, tts=slow_speech, first_message=PHRASE) as it:
        await eventually(lambda: it.caller.heard.audible_s > 1.0)
        it.speak()
        assert await it.turn_ends(0) == {"n": 1, "how": "interrupted"}
        cut = (await it.daemon.event("interrupted")).data
        heard = cut["heard"]
        assert PHRASE.startswith(heard)
        assert 5 <= len(heard) < 30
        assert cut["discarded_ms"] > 1000
        assert not cut["estimated"]
        assert cut["reason"] == "barge_in"
        # 100 ms a letter: as long as it was heard before the barge-in, and no word more.
        await it.turn_ends(1)
        (asked, *_) = it.llm.asked(Generate)
        said = {message["role"]: message["content"] for message in asked.messages[1:]}
        assert said["assistant"] == heard
        assert said["user"].startswith("wait")
        assert it.texts("out")[0] == heard


async def test_the_history_is_what_the_callers_recording_shows() -> None:
    async with rig(stt=hears_a_word, tts=slow_speech, first_message=PHRASE) as it:
        await eventually(lambda: it.caller.heard.audible_s > 1.0)
        it.speak()
        assert await it.turn_ends(0) == {"n": 1, "how": "interrupted"}
        await it.turn_ends(1)
        (asked, *_) = it.llm.asked(Generate)
        (told,) = [one["content"] for one in asked.messages if one["role"] == "assistant"]
        recorded_s = _first_sound_s(bytes(it.caller.heard.pcm))
        assert it.texts("out")[0] == told
    words, begin = [], 0
    for word in PHRASE.split(" "):
        if begin * 0.1 < recorded_s:  # each letter lasts 100 ms
            words.append(word)
        begin += len(word) + 1
    assert 2 <= len(words) < 8
    assert told == " ".join(words)


def _first_sound_s(pcm: bytes) -> float:
    """Return how long the first sound is, up to a silence of 200 ms, in seconds."""
    audible = np.flatnonzero(np.frombuffer(pcm, "<i2"))
    ends = np.flatnonzero(np.diff(audible) > RATE_HZ // 5)
    return float(audible[ends[0]] + 1 - audible[0]) / RATE_HZ


async def hears_no_word(connection: ServiceConnection) -> None:
    """An STT for which nothing is a word."""
    done = 0
    while not connection.is_over:
        for message in await more(connection, done):
            done += 1
            if isinstance(message, StoppedSpeaking) and message.n is not None:
                await connection.send(Done(message.n))


async def test_a_cough_stops_nothing_for_long() -> None:
    cough = SPEECH.pcm[: SPEECH.rate_hz * 2 * 35 // 100]  # a longer one would be speech
    async with rig(stt=hears_no_word, tts=slow_speech, first_message=PHRASE) as it:
        await eventually(lambda: it.caller.heard.audible_s > 1.0)
        it.caller.say(cough, SPEECH.rate_hz)
        assert await it.turn_ends(0) == {"n": 1, "how": "finished"}
        assert it.texts("out") == [PHRASE]
        assert await it.daemon.metric("mediad_false_barge_ins_total") >= 1
        assert not it.tts.asked(Interruption)


async def fails(connection: ServiceConnection) -> None:
    """Say that every request has failed."""
    done = 0
    while not connection.is_over:
        for message in await more(connection, done):
            done += 1
            if isinstance(message, Text):
                await connection.send(Done(message.id, "error"))
            elif isinstance(message, Generate | StoppedSpeaking) and message.n is not None:
                await connection.send(Done(message.n, "error"))


async def test_the_caller_hears_of_a_language_model_that_fails() -> None:
    async with rig(llm=fails, first_message="Hello.", fallback_prompt="Sorry.") as it:
        await it.turn_ends(0)
        it.speak()
        assert await it.turn_ends(1) == {"n": 2, "how": "failed"}
        (dropped,) = it.daemon.events("interrupted")
        assert (dropped.data["n"], dropped.data["reason"]) == (2, "failed")
        assert await it.turn_ends(2) == {"n": 3, "how": "finished"}
        assert it.texts("out") == ["Hello.", "Sorry."]
        assert await it.daemon.metric("mediad_fallbacks_total", role="llm") == 1
        assert it.caller.end is None


async def test_without_a_voice_a_tone_is_heard_and_the_call_ends() -> None:
    async with rig(tts=fails, fallback_prompt="Sorry.") as it:
        end = (await it.daemon.event("call_hungup", timeout_s=40)).data
        assert (end["hangup_by"], end["hangup_cause"]) == ("system", "destination_out_of_order")
        assert await it.daemon.metric("mediad_fallbacks_total", role="tts") >= 1
        assert it.caller.heard.last_audible is not None
        assert it.texts("out") == []


async def test_a_silent_caller_is_asked_and_then_let_go() -> None:
    async with rig(first_message="Hello.", no_input_prompt="Still there?", no_input_s=1) as it:
        end = (await it.daemon.event("call_hungup", timeout_s=30)).data
        assert (end["hangup_by"], end["hangup_cause"]) == ("system", "no_user_response")
        assert it.texts("out") == ["Hello.", "Still there?", "Still there?"]


async def test_the_same_words_are_spoken_once() -> None:
    async with rig(first_message="Hello.") as it:
        await it.turn_ends(0)
        async with Caller(*it.daemon.app.audiosocket_address):
            await it.turn_ends(1)
        assert len(it.tts.asked(Text)) == 1
        assert await it.daemon.metric("mediad_tts_cache_reads_total") == 2


async def test_a_text_is_said_on_command() -> None:
    async with rig(first_message="Hello.") as it:
        call_id = str(it.caller.call_id)
        await it.daemon.app.commands.send(call_id, Say("default", "First."))
        await it.daemon.app.commands.send(call_id, Say("default", "Second."))
        for number in range(3):
            assert (await it.turn_ends(number))["how"] == "finished"
        assert it.texts("out") == ["Hello.", "First.", "Second."]


async def test_a_text_from_outside_is_answered() -> None:
    async with rig(first_message="Hello.") as it:
        await it.turn_ends(0)
        await it.daemon.app.commands.send(str(it.caller.call_id), Inject("default", "What now?"))
        await it.turn_ends(1)
        (asked,) = it.llm.asked(Generate)
        assert asked.messages[-1]["content"].startswith("What now?")


async def test_a_digit_is_answered() -> None:
    async with rig(first_message="Hello.") as it:
        await it.turn_ends(0)
        it.caller.press("5")
        await it.turn_ends(1)
        (asked,) = it.llm.asked(Generate)
        assert asked.messages[-1]["content"].startswith("5")


async def test_an_agent_has_its_calls_linked_to_the_pipeline() -> None:
    config = AgentConfig(
        prompt="You sell tickets.",
        link="pipeline",
        first_message="Tickets. How many?",
        language="de-DE",
    )
    async with rig(agent=config.model_dump(mode="json"), first_message="Not this one.") as it:
        assert await it.turn_ends(0) == {"n": 1, "how": "finished"}
        it.speak()
        assert await it.turn_ends(1) == {"n": 2, "how": "finished"}
        assert it.texts("out")[0] == "Tickets. How many?"
        assert [text.text for text in it.tts.asked(Text)][:2] == ["Tickets.", "How many?"]
        (asked,) = it.llm.asked(Generate)
        assert asked.messages[0] == {"role": "system", "content": "You sell tickets."}
        starts = [service.connections[0].start for service in (it.stt, it.llm, it.tts)]
        assert [start and start.language for start in starts] == ["de-DE"] * 3
