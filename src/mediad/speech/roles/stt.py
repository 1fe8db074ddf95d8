"""The offline STT service: pocketsphinx hears one of four words in a turn, or nothing."""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import numpy as np

from mediad.speech.hearing import MAX_UTTERANCE_S, RATE_HZ, Listener
from mediad.speech.roles.call import Answer, Handler, OpenHandler, Refused, Request, Send
from mediad.wire.frames import AudioFrame, Transcription
from mediad.wire.service import Start, Voice

__all__ = ["PocketsphinxSTT", "pocketsphinx_service", "speech_in"]

_KEPT_BYTES = int(2 * RATE_HZ * MAX_UTTERANCE_S)
_FRAME = RATE_HZ // 50  # samples: 20 ms
_AUDIBLE = 0.06  # of the loudest frame's level
_AROUND = 15  # frames: the listener wants some quiet before and after a word


class PocketsphinxSTT:
    """Hears what is said in one call."""

    sample_rate = RATE_HZ

    def __init__(self, listener: Listener, executor: ThreadPoolExecutor) -> None:
        self._listener = listener
        self._executor = executor
        self._heard = bytearray()

    def take(self, message: AudioFrame | Voice) -> None:
        """Keep the last seconds of the caller's audio."""
        if isinstance(message, AudioFrame) and message[1:] == (RATE_HZ, 1):
            self._heard += message.audio[: len(message.audio) & ~1]
            if len(self._heard) > 2 * _KEPT_BYTES:
                del self._heard[:-_KEPT_BYTES]

    def ask(self, request: Request) -> Answer:
        """Tell what was said since the last turn."""
        heard = bytes(self._heard[-_KEPT_BYTES:])
        self._heard.clear()
        return self._hear(heard)

    async def _hear(self, pcm: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(
            self._executor, lambda: self._listener.hear(speech_in(pcm))
        )
        if text:
            yield Transcription(text, "caller", datetime.now(UTC).isoformat())


def speech_in(pcm: bytes) -> bytes:
    """Return ``pcm`` without the quiet before and after what is loudest in it.

    Agents take long turns, so most of what comes between two words of the caller is quiet; the
    listener takes as long as the sound is.
    """
    samples = np.frombuffer(pcm[: len(pcm) // (2 * _FRAME) * 2 * _FRAME], np.int16)
    level = np.sqrt((samples.reshape(-1, _FRAME).astype(np.float64) ** 2).mean(axis=1))
    (audible,) = np.nonzero(level > _AUDIBLE * level.max(initial=0.0))
    if not audible.size:
        return b""
    first, last = max(0, audible[0] - _AROUND), audible[-1] + 1 + _AROUND
    return samples[first * _FRAME : last * _FRAME].tobytes()


def pocketsphinx_service() -> OpenHandler:
    """Return the service."""
    listener = Listener()
    # One thread: the listener takes one call at a time anyway, and a word takes 0.1 s.
    executor = ThreadPoolExecutor(1, "hearing")

    @asynccontextmanager
    async def open_handler(start: Start, _: Send) -> AsyncGenerator[Handler]:
        if start.sample_rate != RATE_HZ:
            raise Refused("sample_rate", f"this service hears {RATE_HZ} Hz only")
        yield PocketsphinxSTT(listener, executor)

    return open_handler
