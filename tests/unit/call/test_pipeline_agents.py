"""What an agent's configuration changes about its calls, on a virtual clock."""

from typing import Any

import pytest

from mediad.ai.tts_cache import NoStore
from mediad.call.ticker import TICK_S
from mediad.store.agents import AgentConfig
from mediad.wire.frames import Text
from mediad.wire.service import Generate
from tests import virtual_time
from tests.fakes.memory_pipeline import MemoryCall, memory_call

EPSILON_S = 1e-6


def agent(**flow: Any) -> dict[str, Any]:
    """Return the configuration of an agent, as it comes with a call."""
    config = AgentConfig.model_validate(
        {"prompt": "You are helpful.", "first_message": "Hello.", "flow": flow}
    )
    return config.model_dump(mode="json", exclude={"link", "url", "variables"})


def sounds(call: MemoryCall, since: int = 0) -> list[bool]:
    """Tell of each 20 ms that the caller got whether there was a sound."""
    return [has_sound for _, has_sound in call.written[since:]]


@pytest.mark.parametrize(
    ("config", "language"), [({"language": "de-DE"}, "de-DE"), ({"language": ""}, "und")]
)
def test_the_transcribe_is_in_the_agents_language(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, str], language: str
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), agent=agent() | config) as call:
            await call.be_quiet(2.0)
            (started,) = [fact for fact in call.facts if fact.type == "transcribe_started"]
            assert started.data["language"] == language

    virtual_time.run(talk())


async def delay_of_answer(call: MemoryCall) -> float:
    """Return how long after the end of the caller's turn the agent is heard, in seconds."""
    await call.be_quiet(2.0)
    await call.speak(0.6)
    await call.be_quiet(4.0)
    at, written = call.decided[-1]
    return call.written[call.first_sound(written)][0] - at


@pytest.mark.parametrize("delay_ms", [0, 200, 500, 1500])
def test_a_response_comes_no_sooner_than_its_delay(
    monkeypatch: pytest.MonkeyPatch, delay_ms: int
) -> None:
    async def talk() -> None:
        config = agent(response_delay_ms=delay_ms)
        async with memory_call(monkeypatch, NoStore(), agent=config) as call:
            delay_s = await delay_of_answer(call)
            assert delay_ms / 1000 - EPSILON_S <= delay_s
            assert delay_s <= delay_ms / 1000 + 2 * TICK_S + EPSILON_S

    virtual_time.run(talk())


def test_the_delay_of_an_agent_that_names_none_is_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), agent=agent()) as call:
            assert await delay_of_answer(call) == pytest.approx(0.5, abs=2 * TICK_S)

    virtual_time.run(talk())


def test_what_the_services_take_is_within_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore(), agent=agent()) as call:
            await call.be_quiet(2.0)
            call.delays_s = {Generate: 0.2, Text: 0.2}
            assert await delay_of_answer(call) == pytest.approx(0.5, abs=2 * TICK_S)
            call.delays_s = {Generate: 0.5, Text: 0.5}
            assert await delay_of_answer(call) == pytest.approx(1.0, abs=2 * TICK_S)

    virtual_time.run(talk())


def test_a_caller_who_starts_first_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        config = agent(user_start_first=True)
        async with memory_call(monkeypatch, NoStore(), agent=config) as call:
            await call.be_quiet(4.0)
            assert not any(sounds(call))
            await call.speak(0.6)
            await call.be_quiet(3.0)
            assert [asked.text for asked in call.asked if isinstance(asked, Text)] == ["Hello."]
            assert any(sounds(call))

    virtual_time.run(talk())


@pytest.mark.parametrize("is_allowed", [True, False])
def test_who_may_not_interrupt_is_answered_afterwards(
    monkeypatch: pytest.MonkeyPatch, is_allowed: bool
) -> None:
    async def talk() -> None:
        config = agent(interruption={"allowed": is_allowed})
        async with memory_call(monkeypatch, NoStore(), agent=config) as call:
            call.s_per_char = 0.5  # three seconds of greeting
            await call.be_quiet(1.0)
            so_far = len(call.written)
            await call.speak(1.2)
            assert all(sounds(call, so_far)) is not is_allowed
            await call.be_quiet(4.0)
            interrupted = call.metric("mediad_turns_total", how="interrupted")
            assert interrupted == (1 if is_allowed else 0)
            assert len([asked for asked in call.asked if isinstance(asked, Generate)]) == 1

    virtual_time.run(talk())


def test_a_session_has_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        config = agent() | {"session_timeout_s": 3}
        async with memory_call(monkeypatch, NoStore(), agent=config) as call:
            await call.be_quiet(2.9)
            assert not call.is_hung_up
            await call.be_quiet(0.2)
            assert call.is_hung_up

    virtual_time.run(talk())
