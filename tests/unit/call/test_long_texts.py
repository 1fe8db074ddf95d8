"""Texts longer than the playout holds, on a virtual clock: heard whole. What is not heard is not in
the history.
"""

import pytest

from mediad.ai.tts_cache import NoStore
from mediad.wire.frames import Text
from mediad.wire.service import Generate
from tests import virtual_time
from tests.fakes.memory_pipeline import MemoryCall, memory_call

S_PER_CHAR = 0.08
"""Slower than what is expected of a voice that has not spoken yet."""

LONG = " ".join(f"This is sentence number {number} of them." for number in range(10, 60))


async def said(call: MemoryCall) -> str:
    """Let the caller speak, and return what the language model is told that the agent has said."""
    await call.speak(0.6)
    await call.be_quiet(1.0)
    asked = [asked for asked in call.asked if isinstance(asked, Generate)][-1]
    return [str(said["content"]) for said in asked.messages if said["role"] == "assistant"][-1]


async def speak(call: MemoryCall, text: str, source: str) -> None:
    """Have the agent say a text."""
    if source == "say":
        call.session.say(text)
    elif source == "llm":
        call.reply = text
        await call.speak(0.6)


@pytest.mark.parametrize("source", ["say", "llm", "first_message"])
@pytest.mark.parametrize("playout_max_s", [6.0, 60.0])
def test_a_text_longer_than_the_playout_is_heard_whole(
    monkeypatch: pytest.MonkeyPatch, source: str, playout_max_s: float
) -> None:
    async def talk() -> None:
        first = LONG if source == "first_message" else "Hello."
        async with memory_call(
            monkeypatch, NoStore(), playout_max_s=playout_max_s, first_message=first
        ) as call:
            call.s_per_char = S_PER_CHAR
            if source != "first_message":
                await call.be_quiet(2.0)
            await speak(call, LONG, source)
            so_far = len(call.written)
            length_s = len(LONG) * S_PER_CHAR
            await call.be_quiet(length_s + 2.0)
            assert call.session.line.counters().refused_bytes == 0
            heard_s = sum(has_sound for _, has_sound in call.written[so_far:]) * 0.02
            assert heard_s == pytest.approx(length_s, rel=0.03)
            texts = [asked.text for asked in call.asked if isinstance(asked, Text)]
            assert max(map(len, texts)) < 40
            assert (await said(call)).endswith(LONG)

    virtual_time.run(talk())


def test_what_the_playout_refuses_is_not_in_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        text = " ".join(["word"] * 40)  # 16 s, and no place at which it could be cut
        async with memory_call(
            monkeypatch, NoStore(), playout_max_s=2.0, first_message=text
        ) as call:
            call.s_per_char = S_PER_CHAR
            await call.be_quiet(4.0)
            assert call.session.line.counters().refused_bytes > 0
            # The bytes of two seconds, as a share of the sixteen, rounded down to a word.
            assert await said(call) == " ".join(["word"] * 5)

    virtual_time.run(talk())
