"""What was said last is in a call's transcript: of the agent as far as it was heard when the call
ended, of the caller also what was answered before the STT service was certain.
"""

import math
from typing import Any

import pytest

from mediad.ai.tts_cache import NoStore
from mediad.call.pipeline_tools import HANG_UP
from mediad.wire import service
from mediad.wire.frames import Text
from mediad.wire.service import Generate, Interim, StoppedSpeaking
from tests import virtual_time
from tests.fakes.memory_pipeline import MemoryCall, memory_call

S_PER_CHAR = 0.05
SENTENCES = ("The office opens at nine.", "It is closed on Sundays.", "Please come again.")
ANSWER = " ".join(SENTENCES)


def cut(seconds: float) -> str:
    """Return what was heard of the answer when so much of its sound was: whole words."""
    heard: list[str] = []
    for sentence in SENTENCES:
        chars = math.floor(seconds / S_PER_CHAR + 1e-6)
        seconds -= len(sentence) * S_PER_CHAR
        if seconds >= -1e-6:
            heard.append(sentence)
        elif chars > 0:
            is_whole = sentence[chars : chars + 1] == " "
            heard.append(sentence[:chars] if is_whole else sentence[:chars].rpartition(" ")[0])
            break
    return " ".join(filter(None, heard))


def heard_s(call: MemoryCall, since: int) -> float:
    """Return how much of the agent's sound the caller got."""
    return sum(has_sound for _, has_sound in call.written[since:]) * 0.02


def answer(call: MemoryCall) -> list[str]:
    """Return what the transcript has of the agent after its greeting."""
    greeting, *rest = call.said("out")
    assert greeting == "Hi."
    return rest


async def be_answered(call: MemoryCall) -> int:
    """Let the caller hear the greeting and ask; return how many frames were written before."""
    call.reply = ANSWER
    await call.be_quiet(1.5)
    call.s_per_char = S_PER_CHAR
    so_far = len(call.written)
    await call.speak(0.6)
    await call.be_quiet(0.8)  # what the end of the turn takes, and a tick
    return so_far


@pytest.mark.parametrize("quiet_s", [0.2, 1.0, 1.42, 2.3, 5.0])
def test_what_was_heard_when_the_caller_hangs_up_is_told(
    monkeypatch: pytest.MonkeyPatch, quiet_s: float
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hi.") as call:
            so_far = await be_answered(call)
            await call.be_quiet(quiet_s)
            seconds = heard_s(call, so_far)
        assert call.facts[-1].type == "call_hungup"
        assert " ".join(answer(call)) == cut(seconds)
        assert answer(call) or seconds < 0.3

    virtual_time.run(talk())


def test_what_was_heard_at_the_session_timeout_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        agent: dict[str, Any] = {
            "first_message": "Hi.",
            "session_timeout_s": 5,
            "flow": {"response_delay_ms": 0},
        }
        async with memory_call(monkeypatch, NoStore(), agent=agent) as call:
            so_far = await be_answered(call)
            await call.be_quiet(3.0)
            assert call.is_hung_up
            seconds = heard_s(call, so_far)
            assert 1.0 < seconds < 3.0
            assert answer(call) == [cut(seconds)]

    virtual_time.run(talk())


def test_all_that_was_said_with_hang_up_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hi.") as call:
            function = {"name": HANG_UP, "arguments": "{}"}
            calls = [{"id": "call_1", "type": "function", "function": function}]
            call.llm_done = {"reason": "tool_calls", "tool_calls": calls}
            await be_answered(call)
            await call.be_quiet(5.0)
            assert call.is_hung_up
            assert answer(call) == [ANSWER]

    virtual_time.run(talk())


def test_what_is_heard_after_a_service_was_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends when what is queued was heard; of a sentence nothing more comes."""

    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hi.") as call:
            so_far = await be_answered(call)
            call.refused.add("llm")
            call.lose("llm")
            await call.be_quiet(0.3)
            assert not answer(call)
            asked = [asked.text for asked in call.asked if isinstance(asked, Text)]
            assert asked == ["Hi.", *SENTENCES]
            await call.be_quiet(6.0)
            assert call.is_hung_up
            assert call.session.ended is not None
            assert call.session.ended.hangup_cause == "destination_out_of_order"
            assert heard_s(call, so_far) == pytest.approx(len(ANSWER) * S_PER_CHAR, abs=0.2)
            assert answer(call) == [ANSWER]

    virtual_time.run(talk())


@pytest.mark.parametrize("quiet_s", [2.2, 6.0])
def test_words_that_never_became_final_are_told_when_they_were_answered(
    monkeypatch: pytest.MonkeyPatch, quiet_s: float
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hi.") as call:
            await call.be_quiet(1.5)
            call.hangs.add(StoppedSpeaking)
            await call.speak(0.6)
            call.sockets["stt"].deliver(service.encode(Interim("I want tea")))
            await call.be_quiet(quiet_s)
            (asked,) = [asked for asked in call.asked if isinstance(asked, Generate)]
            assert asked.messages[-1]["content"] == "I want tea"
        assert call.said("in") == ["I want tea"]

    virtual_time.run(talk())
