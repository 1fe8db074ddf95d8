"""An agent that never stops talking: a tone in real time, so that a hole in it is heard as one, and
numbered words. As a program of its own (``python -m tests.faults.talk PORT``) it prints what it
said; it ends when its standard input does.
"""

import asyncio
import sys
import time
from typing import NamedTuple

from tests.fakes.agent import AgentConnection, FakeAgent
from tests.sound import tone

__all__ = ["Said", "Talk"]

_RATE_HZ = 8000
_BLOCK_S = 0.1
_LEAD_S = 0.2  # what the caller has in hand: enough for a hop over a network, not for a fault
_WORDS_EVERY = 5  # blocks
_BLOCK = tone(400, _BLOCK_S, _RATE_HZ)  # whole periods: the blocks join


class Said(NamedTuple):
    """Words that were sent."""

    call_id: str
    text: str
    at: float
    """Monotonic seconds."""


class Talk:
    """The script of every connection."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._connections = 0

    async def __call__(self, agent: AgentConnection) -> None:
        """Talk to the caller that the handshake names."""
        await self.on_call(agent.call_id, agent)

    async def on_call(self, call_id: str, agent: AgentConnection) -> None:
        """Talk until the connection ends. What a pause of the agent itself cost is not made up."""
        self._connections += 1
        name = f"{call_id} {self._connections}"
        await agent.say(_BLOCK * round(_LEAD_S / _BLOCK_S), _RATE_HZ)
        due = time.monotonic()
        number = 0
        while not agent.closed_at:
            due = max(due + _BLOCK_S, time.monotonic() - 2 * _BLOCK_S)
            await asyncio.sleep(due - time.monotonic())
            await agent.say(_BLOCK, _RATE_HZ)
            number += 1
            if number % _WORDS_EVERY == 0:
                words = f"{name} {number // _WORDS_EVERY}"
                await agent.tell("bot-transcription", text=words)
                self.said.append(Said(call_id, words, time.monotonic()))
                agent.audio.clear()


async def _main(port: int) -> None:
    async with FakeAgent(Talk(), port=port) as agent:
        print(agent.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
