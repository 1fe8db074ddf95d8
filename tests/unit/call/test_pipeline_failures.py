"""Services that hang, at the settings' defaults and on a virtual clock: when that is found, whose
fault it is said to be, and what the caller hears.
"""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from mediad.ai.tts_cache import NoStore, SpeechStore
from mediad.call.mouth import MAX_GAP_S
from mediad.wire import service
from mediad.wire.frames import Text, Transcription
from mediad.wire.service import Done, FromMediad, FromService, Generate, Role, StoppedSpeaking
from tests import virtual_time
from tests.fakes.memory_pipeline import MemoryCall, MemoryStore, memory_call

TEXTS: dict[str, Any] = {"first_message": "Hello.", "fallback_prompt": "Sorry."}
NEARLY_S = 0.07
"""What the gate, the playout and two ticks add."""


async def ask(call: MemoryCall, quiet_s: float) -> float:
    """Let the caller speak, and then be quiet; return how long nothing was heard, in seconds."""
    await call.speak(0.6)
    await call.be_quiet(quiet_s)
    at, written = call.decided[-1]
    return call.written[call.first_sound(written)][0] - at


def texts(call: MemoryCall) -> list[str]:
    """What the TTS service was asked for."""
    return [asked.text for asked in call.asked if isinstance(asked, Text)]


def blamed(call: MemoryCall) -> dict[str, float]:
    """How many turns each service has failed."""
    roles = ("stt", "llm", "tts")
    return {role: call.metric("mediad_fallbacks_total", role=role) for role in roles}


def ended(call: MemoryCall, role: str, outcome: str) -> float:
    """How many requests to a service ended so."""
    return call.metric("mediad_service_requests_total", role=role, outcome=outcome)


def test_a_voice_that_hangs_has_its_budget_however_slow_the_model_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            call.hangs.add(Text)
            call.delays_s[Generate] = 1.5
            assert await ask(call, 9.0) == pytest.approx(1.5 + 5.0, abs=NEARLY_S)
            assert blamed(call) == {"stt": 0, "llm": 0, "tts": 1}
            assert ended(call, "tts", "timeout") == 1
            assert "Sorry." not in texts(call)
            assert not call.is_hung_up

    virtual_time.run(talk())


def test_a_language_model_has_all_of_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            call.hangs.add(Generate)
            assert await ask(call, 13.0) == pytest.approx(10.0, abs=NEARLY_S)
            assert blamed(call) == {"stt": 0, "llm": 1, "tts": 0}
            assert (ended(call, "llm", "timeout"), ended(call, "llm", "cancelled")) == (1, 0)
            assert texts(call) == ["Hello.", "Sorry."]

    virtual_time.run(talk())


def test_ears_that_hang_are_found_by_their_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            call.hangs.add(StoppedSpeaking)
            assert await ask(call, 5.0) == pytest.approx(2.0, abs=NEARLY_S)
            assert blamed(call) == {"stt": 1, "llm": 0, "tts": 0}
            assert texts(call) == ["Hello.", "Sorry."]
            assert call.metric("mediad_turns_total", how="empty") == 0

    virtual_time.run(talk())


@pytest.mark.parametrize("earlier", ["", "I want to"])
@pytest.mark.parametrize("later", ["", "to Rome"])
def test_ears_that_die_while_the_caller_speaks_have_failed_the_turn(
    monkeypatch: pytest.MonkeyPatch, earlier: str, later: str
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            await call.speak(1.0)
            if earlier:
                final = service.encode(Transcription(earlier, "", ""))
                call.sockets["stt"].deliver(final)
            call.heard = later  # by the next one, which is there at once
            call.sockets["stt"].close()
            assert await ask(call, 3.0) == pytest.approx(0.0, abs=NEARLY_S)
            assert blamed(call) == {"stt": 1, "llm": 0, "tts": 0}
            assert texts(call) == ["Hello.", "Sorry."]
            assert call.metric("mediad_turns_total", how="failed") == 1
            assert call.metric("mediad_turns_total", how="empty") == 0
            call.heard = "to Rome"
            await ask(call, 3.0)
            assert texts(call) == ["Hello.", "Sorry.", "Yes."]

    virtual_time.run(talk())


@pytest.mark.parametrize(("away_s", "is_heard"), [(0.9, True), (2.6, False)])
def test_ears_that_are_away_while_the_caller_speaks_have_failed_the_turn(
    monkeypatch: pytest.MonkeyPatch, away_s: float, is_heard: bool
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            call.connect_s = away_s
            call.sockets["stt"].close()
            call.heard = "to Rome"
            await call.be_quiet(0.2)
            await ask(call, 4.0)
            assert texts(call) == ["Hello.", "Yes." if is_heard else "Sorry."]
            assert blamed(call) == {"stt": 0 if is_heard else 1, "llm": 0, "tts": 0}

    virtual_time.run(talk())


def test_a_fallback_that_the_voice_fails_too_is_heard_as_a_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            call.hangs |= {Generate, Text}
            assert await ask(call, 18.0) == pytest.approx(10.0 + 5.0, abs=NEARLY_S)
            assert blamed(call) == {"stt": 0, "llm": 1, "tts": 1}
            assert not call.is_hung_up
            call.hangs.clear()
            assert await ask(call, 3.0) == pytest.approx(0.0, abs=NEARLY_S)

    virtual_time.run(talk())


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
def test_a_done_with_a_larger_number_ends_what_was_asked(
    monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    kinds: dict[Role, type] = {"stt": StoppedSpeaking, "llm": Generate, "tts": Text}

    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            good = call.answer

            def miscount(asked: FromMediad) -> list[FromService]:
                answers = good(asked)
                if isinstance(asked, kinds[role]):
                    done = answers[-1]
                    assert isinstance(done, Done)
                    answers[-1] = replace(done, n=done.n + 1)
                return answers

            monkeypatch.setattr(call, "answer", miscount)
            for turn in range(3):
                assert await ask(call, 3.0) == pytest.approx(0.0, abs=NEARLY_S)
                assert call.session.look().speaking == ()
                assert call.metric("mediad_turns_total", how="finished") == turn + 2
            assert blamed(call) == {"stt": 0, "llm": 0, "tts": 0}

    virtual_time.run(talk())


@pytest.mark.parametrize("store", [NoStore(), MemoryStore()])
def test_a_fallback_is_not_asked_of_a_voice_that_has_just_failed(
    monkeypatch: pytest.MonkeyPatch, store: SpeechStore
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, store, **TEXTS) as call:
            await call.be_quiet(2.0)
            call.hangs = {Generate}
            await ask(call, 13.0)  # now the cache has the fallback, if there is one
            assert texts(call) == ["Hello.", "Sorry."]
            call.hangs = {Text}
            assert await ask(call, 7.0) == pytest.approx(5.0, abs=NEARLY_S)
            assert texts(call).count("Sorry.") == 1
            hits = call.metric("mediad_tts_cache_reads_total", outcome="hit")
            assert hits == (1 if isinstance(store, MemoryStore) else 0)
            assert blamed(call) == {"stt": 0, "llm": 1, "tts": 1}

    virtual_time.run(talk())


@pytest.mark.parametrize(("begins", "silent_s"), [("", 25.0), ("Yes. ", MAX_GAP_S)])
def test_a_model_that_comes_to_no_sentence_is_to_blame_for_the_silence(
    monkeypatch: pytest.MonkeyPatch, begins: str, silent_s: float
) -> None:
    async def talk() -> None:
        loop = asyncio.get_running_loop()
        async with memory_call(monkeypatch, NoStore(), **TEXTS) as call:
            await call.be_quiet(2.0)
            good = call.answer

            def drip(asked: FromMediad) -> list[FromService]:
                """A word a second: always in time, and never anything to speak."""
                if not isinstance(asked, Generate):
                    return good(asked)
                word, socket = service.encode(Text(asked.n, "and ")), call.sockets["llm"]
                for second in range(1, 50):
                    loop.call_later(second, socket.deliver, word)
                return [Text(asked.n, begins)] if begins else []

            monkeypatch.setattr(call, "answer", drip)
            await ask(call, silent_s + 3.0)
            asked_at = call.decided[-1][0]
            sounds = [at for at, has_sound in call.written if has_sound and at > asked_at]
            gaps_s = [at - before for before, at in pairwise([asked_at, *sounds])]
            assert max(gaps_s) == pytest.approx(silent_s, abs=NEARLY_S)
            assert blamed(call) == {"stt": 0, "llm": 1, "tts": 0}
            assert texts(call) == ["Hello.", *([begins.strip()] if begins else []), "Sorry."]

    virtual_time.run(talk())


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
@pytest.mark.parametrize("state", ["overlap", "delay"])
def test_a_call_ends_though_its_service_is_gone_while_the_agent_holds_its_tongue(
    monkeypatch: pytest.MonkeyPatch, role: Role, state: str
) -> None:
    async def talk() -> None:
        delay_ms = 0 if state == "overlap" else 5000
        agent = {"first_message": "Hello.", "flow": {"response_delay_ms": delay_ms}}
        async with memory_call(monkeypatch, NoStore(), agent=agent) as call:
            if state == "overlap":
                await call.be_quiet(0.6)
                await call.speak(0.3)  # over the greeting, which lasts a second
            else:
                await call.be_quiet(2.0)
                await call.speak(0.6)
                await call.be_quiet(1.5)
            call.lose(role)
            assert call.session.line.held_ms > 0
            assert not call.written[-1][1]
            await call.be_quiet(3.0)
            assert call.is_hung_up
            assert call.session.ended is not None
            assert call.session.ended.hangup_cause == "destination_out_of_order"

    virtual_time.run(talk())
