"""Calls that ask for the same texts a little apart: who speaks them, and how often."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from mediad.ai import speaker as speaker_module
from mediad.ai.connect import CallInfo
from mediad.ai.services.events import Failed, Times
from mediad.ai.speaker import Speaker
from mediad.ai.tts_cache import NoStore, TtsCache
from mediad.metrics import Metrics
from mediad.wire import frames
from mediad.wire.service import Role, Voice
from tests import virtual_time

SPEAKING_S = 0.3
"""How long a service takes for a text; its audio comes in the end."""
TEXTS = ("Welcome.", "How can I help you?", "Please speak now.")


class Link:
    """A call's connection to its service, which speaks one text after the other."""

    asked: Counter[str]

    def __init__(self, _service: object, _call: object, _voice: object, _: int, events: Any):
        self.address = "ws://tts"
        self._events = events
        self._waiting: list[tuple[int, str]] = []

    @property
    def backlog(self) -> int:
        return len(self._waiting)

    def speak(self, n: int, text: str, _: Voice) -> None:
        self.asked[text] += 1
        self._waiting.append((n, text))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(SPEAKING_S, self._spoken)

    def _spoken(self) -> None:
        n, _ = self._waiting.pop(0)
        if self._waiting:
            asyncio.get_running_loop().call_later(SPEAKING_S, self._spoken)
        self._events.on_audio(n, frames.encode_audio(bytes(320), 8000))
        now = asyncio.get_running_loop().time()
        self._events.on_tts_done(n, Times(now, now, now, now, 1, self.address))


class Caller:
    """A call that asks for texts; when it has heard each of them, in seconds since it asked."""

    def __init__(self, cache: TtsCache, texts: tuple[str, ...]) -> None:
        self.heard_s: list[float] = []
        self._began = asyncio.get_running_loop().time()
        service: Any = None
        voice = Voice("anna", "en-US", 1.0)
        self.speaker = Speaker(cache, service, CallInfo("a-call"), voice, 8000, self)
        for n, text in enumerate(texts, start=1):
            self.speaker.speak(n, text)

    def on_service_open(self, role: Role, connect_s: float) -> None:
        """Not here."""

    def on_service_lost(self, role: Role, why: str) -> None:
        """Not here."""

    def on_audio(self, n: int, message: bytes) -> None:
        assert n == len(self.heard_s) + 1

    def on_word(self, n: int, text: str, offset_ms: int) -> None:
        """Not here."""

    def on_tts_done(self, n: int, times: Times) -> None:
        self.heard_s.append(asyncio.get_running_loop().time() - self._began)

    def on_failed(self, failed: Failed) -> None:
        raise AssertionError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What the services of all calls are asked for."""
    monkeypatch.setattr(speaker_module, "TtsLink", Link)
    counts: Counter[str] = Counter()
    monkeypatch.setattr(Link, "asked", counts, raising=False)
    return counts


async def ask_apart(prompts: Sequence[tuple[str, ...]], apart_s: float) -> list[Caller]:
    """Let a call come for each prompt, so far apart; return them when all is over."""
    cache = TtsCache(NoStore(), Metrics())
    callers = []
    for texts in prompts:
        callers.append(Caller(cache, texts))
        await asyncio.sleep(apart_s)
    await asyncio.sleep(10 * SPEAKING_S)
    return callers


@pytest.mark.parametrize("apart_s", [0.0, 0.001, 0.004])
def test_two_hundred_calls_some_ms_apart_have_each_sentence_spoken_once(
    apart_s: float, asked: Counter[str]
) -> None:
    callers = virtual_time.run(ask_apart([TEXTS] * 200, apart_s))
    assert asked == dict.fromkeys(TEXTS, 1)
    for caller in callers:
        assert len(caller.heard_s) == len(TEXTS)
        for place, after_s in enumerate(caller.heard_s, start=1):  # as if it were alone
            assert after_s <= place * SPEAKING_S + 0.001


def test_who_would_wait_for_another_call_s_texts_takes_the_next_ones_with_him(
    asked: Counter[str],
) -> None:
    """The first is late with the text: it has another one to say before."""
    callers = virtual_time.run(ask_apart([TEXTS[:2], *[TEXTS[1:2]] * 199], 0.001))
    assert asked == {TEXTS[0]: 1, TEXTS[1]: 2}
    assert max(caller.heard_s[0] for caller in callers) <= SPEAKING_S + 0.001


def test_calls_with_a_greeting_of_their_own_share_what_somebody_has_begun(
    asked: Counter[str],
) -> None:
    """Until then each has it spoken itself, and so nobody waits longer than alone."""
    prompts = [(f"Hello, number {n}.", TEXTS[1]) for n in range(200)]
    callers = virtual_time.run(ask_apart(prompts, 0.004))
    assert max(caller.heard_s[1] for caller in callers) <= 2 * SPEAKING_S + 0.001
    early = int(SPEAKING_S / 0.004) + 1
    assert asked[TEXTS[1]] <= early + 1
