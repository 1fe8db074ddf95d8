"""Agents of a soak: most of them talk, are interrupted and listen; some are faulty, from the
handshake on.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.fakes.agent import AgentConnection, FakeAgent
from tests.half_open import vanish
from tests.sound import tone

__all__ = ["RandomAgent"]

_RATES_HZ = (8000, 16000, 24000, 48000)
_TONES = {rate: tone(440, 2.0, rate) for rate in _RATES_HZ}
_RECONNECTED = (1006, 1011, 1012)
_FINAL = (1000, 1001, 4000)
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_LONGEST_HANDSHAKE_S = 4.0  # longer than a call tries
_FLOOD_MESSAGES = 2_000  # more than an agent may send in a second
_GONE_S = 8.0  # longer than it takes until an agent that is gone is given up

Ways = dict[Callable[[AgentConnection, random.Random], Awaitable[None]], int]


class RandomAgent(FakeAgent):
    """Each connection is one of `_WAYS`, if it is not one of the tenth that fail within the
    handshake; by a seed. It keeps nothing of what is over.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(self._behave)
        self._random = random.Random(seed)

    async def _process_request(self, ws: ServerConnection, request: Request) -> Response | None:
        rng = random.Random(self._random.random())
        roll = rng.random()
        if roll >= 0.1:
            return None
        if roll < 0.02:
            await asyncio.sleep(rng.uniform(0, _LONGEST_HANDSHAKE_S))
        elif roll < 0.04:
            ws.transport.abort()
        return ws.respond(rng.choice(_REFUSALS), "no\n")

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


async def _flood(agent: AgentConnection, rng: random.Random) -> None:
    """Talk, and then send messages faster than anybody may: the connection is ended."""
    await agent.say(_TONES[16000])
    await asyncio.sleep(rng.uniform(0, 2))
    for _ in range(_FLOOD_MESSAGES):
        await agent.tell("bot-llm-text", text="x")


async def _vanish(agent: AgentConnection, rng: random.Random) -> None:
    """Talk, and be gone without a word: mediad finds out by its pings, and looks for another."""
    await agent.say(_TONES[16000])
    await asyncio.sleep(rng.uniform(0, 2))
    vanish(agent.ws.transport.get_extra_info("socket"))
    await asyncio.sleep(_GONE_S)
    agent.ws.transport.abort()


_WAYS: Ways = {
    _talk: 12,
    _listen: 2,
    _leave: 3,
    _be_deaf: 2,
    _talk_nonsense: 1,
    _flood: 1,
    _vanish: 1,
}
