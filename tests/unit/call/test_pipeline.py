"""A pipeline on a virtual clock, whose services answer at once: what it itself lets a caller wait,
counted in ticks.
"""

import asyncio
from typing import Any

import pytest

from mediad.ai.spoken import SpeechKey, unpack
from mediad.ai.tts_cache import LINGER_S, NoStore
from mediad.call.pipeline_tools import HANG_UP, UNKNOWN, called
from mediad.call.ticker import TICK_S
from mediad.wire import frames, service
from mediad.wire.audiosocket import Digit
from mediad.wire.frames import AudioFrame, Text
from mediad.wire.service import Generate, Interim, StoppedSpeaking
from tests import virtual_time
from tests.fakes.memory_pipeline import MemoryStore, memory_call

PHASES_S = [0.0, 0.003, 0.0071, 0.0099, 0.0101, 0.0152, 0.0199]
TURNS = 3
EPSILON_S = 1e-6


@pytest.mark.parametrize("end_silence_s", [0.5, 0.507, 0.2])
@pytest.mark.parametrize("phase_s", PHASES_S)
@pytest.mark.parametrize("is_kept", [False, True])
def test_the_tick_after_the_end_of_a_turn_is_the_first_of_the_answer(
    monkeypatch: pytest.MonkeyPatch, end_silence_s: float, phase_s: float, is_kept: bool
) -> None:
    async def talk() -> None:
        store = MemoryStore() if is_kept else NoStore()
        options: dict[str, Any] = {"first_message": "Hello.", "end_silence_s": end_silence_s}
        async with memory_call(monkeypatch, store, phase_s, **options) as call:
            await call.be_quiet(2.0)
            for turn in range(TURNS):
                await call.speak(0.6)
                await call.be_quiet(end_silence_s + 0.3)
                at, written = call.decided[-1]
                first = call.first_sound(written)
                # A tick of the very moment comes before what the services answer.
                later = [tick - at > EPSILON_S for tick, _ in call.written[written:first]]
                assert not any(later), f"turn {turn}"
                assert call.written[first][0] - at <= TICK_S + EPSILON_S
                # The gate adds at most a block, and the ticks as much as one.
                waited_s = call.written[first][0] - call.said_at
                assert waited_s <= end_silence_s + 0.010 + TICK_S + EPSILON_S
                await call.be_quiet(1.0 + LINGER_S)
            assert len([asked for asked in call.asked if isinstance(asked, Text)]) == (
                2 if is_kept else 1 + TURNS
            )

    virtual_time.run(talk())


def test_it_is_known_who_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(0.5)
            assert call.session.look().speaking == ("agent",)
            await call.speak(0.3)  # it is undecided whether this is a barge-in
            assert call.session.look().speaking == ("agent", "caller")
            await call.speak(0.7)
            assert call.session.look().speaking == ("caller",)
            await call.be_quiet(0.3)
            assert call.session.look().speaking == ()

    virtual_time.run(talk())


def test_a_muted_agent_takes_its_turns_unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(2.0)
            call.session.mute("agent", True)
            so_far = len(call.written)
            await call.speak(0.6)
            await call.be_quiet(3.0)
            assert not any(has_sound for _, has_sound in call.written[so_far:])
            assert call.metric("mediad_turns_total", how="finished") == 2
            assert call.metric("mediad_turns_total", how="failed") == 0
            call.session.mute("agent", False)
            so_far = len(call.written)
            await call.speak(0.6)
            await call.be_quiet(3.0)
            assert any(has_sound for _, has_sound in call.written[so_far:])

    virtual_time.run(talk())


@pytest.mark.parametrize("way", ["digit", "inject"])
def test_a_key_or_a_text_is_no_late_final(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(2.0)
            call.hangs.add(StoppedSpeaking)
            await call.speak(0.6)
            call.sockets["stt"].deliver(service.encode(Interim("one two")))
            await call.be_quiet(2.0)  # now that is answered, and its final may still come
            call.hangs.clear()
            call.heard = ""
            if way == "digit":
                call.session.receive([Digit("5")])
            else:
                call.session.inject("5", run_immediately=True)
            await call.be_quiet(1.0)
            asked = [asked for asked in call.asked if isinstance(asked, Generate)]
            assert [one.messages[-1]["content"] for one in asked] == ["one two", "5"]

    virtual_time.run(talk())


def call_of(name: object) -> dict[str, object]:
    """Return a tool's call."""
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}


def test_the_call_ends_at_the_tick_after_all_that_was_said_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(2.0)
            greeting = sum(has_sound for _, has_sound in call.written)
            call.llm_done = {"reason": "tool_calls", "tool_calls": [call_of(HANG_UP)]}
            await call.speak(0.6)
            await call.be_quiet(3.0)
            assert call.is_hung_up
            sounds = [has_sound for _, has_sound in call.written]
            assert sum(sounds) == 2 * greeting  # the same tone for every text
            assert sounds[-1]
            (asked,) = [asked for asked in call.asked if isinstance(asked, Generate)]
            assert [tool["function"]["name"] for tool in asked.tools] == [HANG_UP]

    virtual_time.run(talk())


@pytest.mark.parametrize("reply", ["", "Goodbye."])
def test_a_model_may_hang_up_without_a_word(monkeypatch: pytest.MonkeyPatch, reply: str) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(2.0)
            call.reply = reply
            call.llm_done = {"reason": "tool_calls", "tool_calls": [call_of(HANG_UP)]}
            await call.speak(0.6)
            await call.be_quiet(3.0)
            assert call.is_hung_up
            assert call.session.ended is not None
            end = call.session.ended
            assert (end.hangup_by, end.hangup_cause) == ("agent", "normal_clearing")

    virtual_time.run(talk())


def test_other_tools_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(2.0)
            call.llm_done = {"reason": "tool_calls", "tool_calls": [call_of("play_chess")]}
            await call.speak(0.6)
            await call.be_quiet(3.0)
            assert not call.is_hung_up
            assert call.metric("mediad_tool_calls_total", tool=UNKNOWN) == 1
            assert call.metric("mediad_fallbacks_total", role="llm") == 0

    virtual_time.run(talk())


@pytest.mark.parametrize(
    "call", [{}, {"function": None}, {"function": "hang_up"}, call_of(None), call_of(["hang_up"])]
)
def test_a_call_of_no_tool_is_unknown(call: dict[str, object]) -> None:
    assert list(called([call, call_of(HANG_UP)])) == [UNKNOWN, HANG_UP]


@pytest.mark.parametrize("first_frame_s", [0.0, 0.018, 0.09])
@pytest.mark.parametrize("rate_hz", [8000, 16_000])
def test_speech_is_kept_as_the_callers_line_plays_it(
    monkeypatch: pytest.MonkeyPatch, rate_hz: int, first_frame_s: float
) -> None:
    async def talk() -> None:
        store = MemoryStore()
        options: dict[str, Any] = {"is_sending": False, "first_message": "Hello."}
        async with memory_call(monkeypatch, store, **options) as call:
            await asyncio.sleep(first_frame_s)
            call.send_silence(rate_hz)
            await call.be_quiet(2.0)
        key = SpeechKey("ws://127.0.0.1:8773", "", "", 1.0, rate_hz, "Hello.")
        items = unpack(store.values[key.digest()])
        assert items is not None
        assert isinstance(items[-1], bytes)
        audio = frames.decode(items[-1])
        assert isinstance(audio, AudioFrame)
        assert audio.sample_rate == rate_hz

    virtual_time.run(talk())


def test_a_caller_who_sends_nothing_is_greeted_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        options: dict[str, Any] = {"is_sending": False, "first_message": "Hello."}
        async with memory_call(monkeypatch, NoStore(), **options) as call:
            await asyncio.sleep(2.0)
            silent = call.written[: call.first_sound(0)]
            assert len(silent) * TICK_S == pytest.approx(0.1, abs=2 * TICK_S)

    virtual_time.run(talk())
