"""Files that are played on a pipeline's call, on a virtual clock: each is a turn of the agent's."""

from typing import Any

import pytest

from mediad.ai.tts_cache import NoStore
from mediad.call.pipeline import MAX_TEXTS
from mediad.errors import CommandRefused
from mediad.wire import frames
from mediad.wire.frames import Text
from tests import virtual_time
from tests.fakes.memory_pipeline import RATE_HZ, MemoryCall, memory_call

ROLES = ("stt", "llm", "tts")
OPTIONS: dict[str, Any] = {"first_message": "Hello.", "no_input_prompt": "Are you there?"}


def play(call: MemoryCall, seconds: int) -> None:
    """Have something played."""
    sound = (9000).to_bytes(2, "little") * RATE_HZ * seconds
    call.session.play(frames.encode_audio(sound, RATE_HZ), seconds * 1000)


def texts(call: MemoryCall) -> list[str]:
    """What the TTS service was asked for."""
    return [asked.text for asked in call.asked if isinstance(asked, Text)]


def heard_s(call: MemoryCall, since: int) -> float:
    """How much sound there was, in seconds."""
    return sum(has_sound for _, has_sound in call.written[since:]) * 0.02


def test_a_file_is_heard_whole_and_the_caller_asked_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **OPTIONS) as call:
            await call.be_quiet(2.0)
            so_far = len(call.written)
            play(call, 30)
            await call.be_quiet(37.0)
            assert heard_s(call, so_far) == pytest.approx(30.0, abs=0.03)
            assert texts(call) == ["Hello."]
            await call.be_quiet(1.5)
            assert texts(call) == ["Hello.", "Are you there?"]
            assert call.metric("mediad_turns_total", how="finished") == 2
            assert sum(call.metric("mediad_fallbacks_total", role=role) for role in ROLES) == 0

    virtual_time.run(talk())


def test_a_file_is_held_for_a_cough_and_dropped_by_a_barge_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **OPTIONS) as call:
            await call.be_quiet(2.0)
            play(call, 15)
            await call.be_quiet(2.0)
            call.heard = ""
            await call.speak(0.3)
            assert not call.written[-1][1]
            await call.be_quiet(1.0)
            assert call.written[-1][1]
            call.heard = "hello"
            await call.speak(1.0)
            assert call.session.line.held_ms == 0
            await call.be_quiet(1.0)
            assert call.metric("mediad_turns_total", how="interrupted") == 1
            assert texts(call) == ["Hello.", "Yes."]

    virtual_time.run(talk())


def test_files_and_texts_are_heard_in_their_order_after_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **OPTIONS) as call:
            await call.be_quiet(2.0)
            await call.speak(0.6)
            play(call, 3)
            call.session.say("And now the news.")
            play(call, 2)
            await call.be_quiet(2.0)
            assert texts(call) == ["Hello.", "Yes."]
            await call.be_quiet(3.0)
            assert texts(call) == ["Hello.", "Yes.", "And now the news."]
            assert call.session.line.held_ms < 1000
            await call.be_quiet(2.0)
            assert call.session.line.held_ms > 0
            await call.be_quiet(2.0)
            assert call.metric("mediad_turns_total", how="finished") == 5

    virtual_time.run(talk())


def test_a_file_is_heard_while_the_agent_is_muted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **OPTIONS) as call:
            await call.be_quiet(2.0)
            call.session.mute("agent", True)
            so_far = len(call.written)
            play(call, 2)
            await call.be_quiet(3.0)
            assert heard_s(call, so_far) == pytest.approx(2.0, abs=0.03)

    virtual_time.run(talk())


def test_no_more_waits_than_the_playout_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), playout_max_s=10.0, **OPTIONS) as call:
            await call.be_quiet(2.0)
            await call.speak(0.6)
            play(call, 6)
            with pytest.raises(CommandRefused) as refused:
                play(call, 6)
            assert refused.value.reason == "playout_full"
            for _ in range(MAX_TEXTS - 1):
                call.session.say("Hello?")
            with pytest.raises(CommandRefused) as refused:
                play(call, 1)
            assert refused.value.reason == "too_many_texts"

    virtual_time.run(talk())
