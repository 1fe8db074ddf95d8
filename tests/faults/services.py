"""Services of a pipeline whose agent never stops talking once it is asked: it says two sentences a
second, and each is half a second of a tone. As a program of its own (``python -m
tests.faults.services ROLE PORT``) one of them prints where it listens; it ends when its standard
input does.
"""

import asyncio
import contextlib
import sys
import time

from mediad.wire.frames import AudioFrame, Text
from mediad.wire.service import Done, Generate, Role
from tests.fakes.service import RATE_HZ, FakeService, Script, ServiceConnection, answer, requests
from tests.sound import tone

__all__ = ["SCRIPTS"]

_SENTENCE_S = 0.5
_LEAD = 2  # sentences that are written at once
_SENTENCE = AudioFrame(tone(400, _SENTENCE_S, RATE_HZ), RATE_HZ, 1)  # whole periods: they join


async def _write(connection: ServiceConnection) -> None:
    """Answer without an end, as the LLM."""
    async for request in requests(connection):
        if isinstance(request, Generate):
            await _write_until_cancelled(connection, request.n)


async def _write_until_cancelled(connection: ServiceConnection, n: int) -> None:
    def is_over(connection: ServiceConnection) -> bool:
        return connection.is_cancelled(n)

    assert connection.start is not None
    began, number, call_id = time.monotonic(), 0, connection.start.call_id
    while not is_over(connection) and not connection.is_over:
        number += 1  # no two sentences are the same: one that is would come from the cache
        await connection.send(Text(n, f"Sentence {number} of answer {n} on {call_id} ends here. "))
        due = began + (number - _LEAD) * _SENTENCE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due - time.monotonic()):
                await connection.wait(is_over)


async def _speak(connection: ServiceConnection) -> None:
    """Speak, as the TTS."""
    async for request in requests(connection):
        if isinstance(request, Text) and not connection.is_cancelled(request.id):
            await connection.send(_SENTENCE, Done(request.id))


SCRIPTS: dict[Role, Script] = {"stt": answer, "llm": _write, "tts": _speak}
"""What each of them does."""


async def _main(role: Role, port: int) -> None:
    async with FakeService(role, SCRIPTS[role], port=port) as service:
        print(service.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    (wanted,) = (role for role in SCRIPTS if role == sys.argv[1])
    asyncio.run(_main(wanted, int(sys.argv[2])))
