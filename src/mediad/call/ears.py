"""Who hears when a pipeline's caller speaks: the gate of each call, and one model for all of them.

The model works in a thread of its own. Where there is none, or it has no time, the gate alone
decides, and that is counted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from mediad.ai.silero import Hearing, Silero, find_model
from mediad.call.turn.voice import Ask, Voice, VoiceEvent, VoiceStarted, VoiceStopped
from mediad.line import AGENT_RATE_HZ

__all__ = ["Ears", "VoiceModel"]

logger = logging.getLogger(__name__)

_Scores = list[tuple[Hearing, float]]


class VoiceModel:
    """The model, answering on the loop that loaded it."""

    def __init__(self) -> None:
        self._waiting: dict[Hearing, Callable[[float], None]] = {}
        self._silero: Silero | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Load it, if it is installed; that takes some tenths of a second, in a thread."""
        self._loop = asyncio.get_running_loop()
        path = await asyncio.to_thread(find_model)
        if path is None:
            logger.info("no voice model is installed (mediad[agent] has it): the gate decides")
            return
        try:
            self._silero = await asyncio.to_thread(Silero, path, self._on_scores)
        except Exception:  # whatever onnxruntime raises: calls do without it
            logger.exception("the voice model at %s cannot be used: the gate decides", path)

    def want(self) -> None:
        """See to it that it is there for a later call."""
        if self._loading is None and self._loop is None:
            self._loading = asyncio.get_running_loop().create_task(self.load())

    @property
    def is_there(self) -> bool:
        """Whether there is anybody to ask."""
        return self._silero is not None

    def ask(
        self, hearing: Hearing, windows: list[bytes], on_score: Callable[[float], None]
    ) -> bool:
        """Have a hearing's next windows scored; False when there is no time."""
        if self._silero is None:
            return False
        self._waiting[hearing] = on_score
        return self._silero.ask(hearing, windows)

    def forget(self, hearing: Hearing) -> None:
        """Nobody waits for the rest."""
        hearing.is_over = True
        self._waiting.pop(hearing, None)

    def close(self) -> None:
        """Stop the thread."""
        if self._loading is not None:
            self._loading.cancel()
        if self._silero is not None:
            self._silero.close()

    def _on_scores(self, scores: _Scores) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, scores)

    def _tell(self, scores: _Scores) -> None:
        for hearing, score in scores:
            if (on_score := self._waiting.get(hearing)) is not None:
                on_score(score)


class Ears:
    """One caller's.

    Args:
        model: For all calls.
        on_voice: Hears `VoiceStarted` and `VoiceStopped`; called on the loop.
    """

    def __init__(
        self, model: VoiceModel, on_voice: Callable[[VoiceStarted | VoiceStopped], None]
    ) -> None:
        model.want()
        self._model = model
        self._on_voice = on_voice
        self._voice = Voice(AGENT_RATE_HZ, model.is_there)  # it may come later
        self._hearing: Hearing | None = None
        self._opening = 0

    def process(self, pcm: bytes, now: float) -> None:
        """Take the caller's audio, 16 kHz s16le."""
        self._voice.has_model = self._model.is_there
        self._take(self._voice.process(pcm, now))

    def close(self) -> None:
        """Listen no more."""
        if self._hearing is not None:
            self._model.forget(self._hearing)
            self._hearing = None

    def _take(self, events: list[VoiceEvent]) -> None:
        for event in events:
            if isinstance(event, Ask):
                self._ask(event)
            else:
                self.close()
                self._on_voice(event)

    def _ask(self, ask: Ask) -> None:
        if ask.opening != self._opening or self._hearing is None:
            self.close()
            self._opening, self._hearing = ask.opening, Hearing(AGENT_RATE_HZ)
        if not self._model.ask(self._hearing, ask.windows, self._on_score):
            self.close()
            self._take(self._voice.on_refused(ask.opening))

    def _on_score(self, score: float) -> None:
        self._take(self._voice.on_score(self._opening, score))
