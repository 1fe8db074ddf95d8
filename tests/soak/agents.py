"""Agents of a soak: most of them talk, are interrupted and listen; some are faulty."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.fakes.agent import AgentConnection, FakeAgent
from tests.sound import tone

__all__ = ["RandomAgent"]

_RATES_HZ = (8000, 16000, 24000, 48000)
_TONES = {rate: tone(440, 2.0, rate) for rate in _RATES_HZ}
_RECONNECTED = (1006, 1011, 1012)
_FINAL = (1000, 1001, 4000)

Ways = dict[Callable[[AgentConnection, random.Random], Awaitable[None]], int]


class RandomAgent(FakeAgent):
    """Each connection is one of `_WAYS`, by a seed. It keeps nothing of what is over."""

    def __init__(self, seed: int) -> None:
        super().__init__(self._behave)
        self._random = random.Random(seed)

    async def _behave(self, agent: AgentConnection) -> None:
        rng = random.Random(self._random.random())
        (way,) = rng.choices(list(_WAYS), list(_WAYS.values()))
        try:
            await way(agent, rng)
            await agent.ws.wait_closed()
        finally:
            self.connections.remove(agent)


async def _talk(agent: AgentConnection, rng: random.Random) -> None:
    """Say things of any length and format, faster than can be played; sometimes take one back."""
    while not agent.closed_at:
        rate_hz = rng.choice(_RATES_HZ)
        size = 2 * rng.randrange(rate_hz // 50, 2 * rate_hz)
        await agent.tell("bot-started-speaking")
        await agent.say(_TONES[rate_hz][:size], rate_hz)
        await agent.tell("bot-transcription", text=f"{rate_hz} Hz, {size} bytes")
        await agent.tell("bot-stopped-speaking")
        await asyncio.sleep(rng.uniform(0.1, 1.5))
        if rng.random() < 0.3:
            await agent.interrupt()
            await agent.tell("user-transcription", text="wait", final=True)
        agent.audio.clear()


async def _listen(agent: AgentConnection, rng: random.Random) -> None:
    """Say nothing at all."""


async def _leave(agent: AgentConnection, rng: random.Random) -> None:
    """Talk, and close in the middle of it; mediad looks for another one, or ends the call."""
    await agent.say(_TONES[16000])
    await asyncio.sleep(rng.uniform(0, 2))
    await agent.close(rng.choice(_RECONNECTED if rng.random() < 0.8 else _FINAL))


async def _be_deaf(agent: AgentConnection, rng: random.Random) -> None:
    """Talk, and read nothing for some seconds."""
    await agent.say(_TONES[16000])
    agent.ws.transport.pause_reading()
    await asyncio.sleep(rng.uniform(1, 4))
    agent.ws.transport.resume_reading()
    await _talk(agent, rng)


async def _talk_nonsense(agent: AgentConnection, rng: random.Random) -> None:
    """Send what cannot be read between what can."""
    for _ in range(20):
        await agent.ws.send(rng.randbytes(rng.randrange(0, 200)))
        await agent.tell(rng.choice(("error", "bot-llm-text", "no such type")), text="x")
    await _talk(agent, rng)


_WAYS: Ways = {_talk: 12, _listen: 2, _leave: 3, _be_deaf: 2, _talk_nonsense: 1}
