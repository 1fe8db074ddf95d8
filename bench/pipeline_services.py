"""STT, LLM and TTS services that answer at once, for the bench of pipelines: what is measured there
is mediad's.

The caller's words are the number of its call, the low 16 bits of its UUID, and of its turn. The
language model says them again, the voice is a tone of 200 ms.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from itertools import count
from uuid import UUID

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from mediad.wire import service
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import Done, FromService, Generate, Ready, Start, StoppedSpeaking

__all__ = ["RATE_HZ", "TONE"]

RATE_HZ = 8000
TONE = (b"\x00\x20" * 4 + b"\x00\xe0" * 4) * (RATE_HZ // 40)  # 1 kHz
"""What each text sounds like, s16le."""


async def _answers(connection: ServerConnection) -> AsyncIterator[FromService]:
    """Tell what a good service says to what it is told, for one call in any role."""
    call, turns = 0, count(1)
    async for data in connection:
        assert isinstance(data, bytes)
        match service.from_mediad(data):
            case Start(_, call_id):
                call = UUID(call_id).int & 0xFFFF
                yield Ready(RATE_HZ)
            case StoppedSpeaking(int() as n):
                yield Transcription(f"Turn {next(turns)} of call {call}", "", "")
                yield Done(n)
            case Generate(n, messages):
                yield Text(n, str(messages[-1]["content"]))
                yield Done(n)
            case Text(n):
                yield AudioFrame(TONE, RATE_HZ, 1)
                yield Done(n)
            case Interruption(n):
                yield Done(n, "cancelled")


async def _serve_call(connection: ServerConnection) -> None:
    try:
        async for answer in _answers(connection):
            await connection.send(service.encode(answer))
    except ConnectionClosed:
        pass


async def _main() -> None:
    async with serve(_serve_call, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        sys.stderr.write(f"services listen on 127.0.0.1:{port}\n")
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(_main())
