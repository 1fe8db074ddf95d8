"""What is measured and counted of turns, on a virtual clock."""

import pytest

from mediad.ai.tts_cache import NoStore
from mediad.call.ticker import TICK_S
from mediad.wire.frames import Text
from mediad.wire.service import Generate, StoppedSpeaking
from tests import virtual_time
from tests.fakes.memory_pipeline import MemoryCall, memory_call

PARTS = ("transcript", "token", "audio", "frame")
HISTOGRAMS = (*PARTS, "latency")


def counts(call: MemoryCall) -> dict[str, float]:
    """How often each histogram was told something."""
    return {name: call.metric(f"mediad_turn_{name}_seconds_count") for name in HISTOGRAMS}


def sums(call: MemoryCall) -> dict[str, float]:
    """What it was told, added up."""
    return {name: call.metric(f"mediad_turn_{name}_seconds_sum") for name in HISTOGRAMS}


def test_each_part_of_a_turn_is_measured_once_and_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(2.0)
            count, so_far = counts(call), sums(call)
            assert count == {"transcript": 0, "token": 0, "audio": 1, "frame": 1, "latency": 0}
            call.delays_s = {StoppedSpeaking: 0.1, Generate: 0.2, Text: 0.3}
            await call.speak(0.6)
            await call.be_quiet(3.0)
            assert counts(call) == {name: count[name] + 1 for name in HISTOGRAMS}
            took = {name: total - so_far[name] for name, total in sums(call).items()}
            assert took["transcript"] == pytest.approx(0.1)
            assert took["token"] == pytest.approx(0.2)
            assert took["audio"] == pytest.approx(0.3)
            assert 0.0 < took["frame"] <= TICK_S + 1e-6
            assert took["latency"] == pytest.approx(sum(took[part] for part in PARTS), abs=0.002)

    virtual_time.run(talk())


def test_a_cough_is_not_a_turn_that_is_answered_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            await call.be_quiet(2.0)
            call.heard = ""
            await call.speak(0.4)
            await call.be_quiet(2.0)
            assert call.metric("mediad_turns_total", how="empty") == 1
            call.session.say("Are you well?")
            await call.be_quiet(2.0)
            assert call.metric("mediad_turns_total", how="finished") == 2
            assert counts(call)["latency"] == 0

    virtual_time.run(talk())


def test_a_cough_over_the_agent_is_noise_and_no_transcript(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            call.heard = ""
            await call.be_quiet(0.6)
            await call.speak(0.2)
            await call.be_quiet(2.0)
            assert len([asked for asked in call.asked if isinstance(asked, StoppedSpeaking)]) == 1
            assert counts(call)["transcript"] == 0
            assert call.metric("mediad_false_barge_ins_total") == 1

    virtual_time.run(talk())


def test_noise_that_cuts_an_answer_short_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), first_message="Hello.") as call:
            call.heard = ""
            call.s_per_char = 0.6
            await call.be_quiet(0.6)
            await call.speak(1.0)
            await call.be_quiet(1.5)
            assert call.metric("mediad_turns_total", how="interrupted") == 1
            assert call.metric("mediad_false_barge_ins_total") == 1

    virtual_time.run(talk())
