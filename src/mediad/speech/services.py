"""espeak-ng, pocketsphinx and the scripted dialogue as processors of a Pipecat pipeline."""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soxr  # type: ignore[import-untyped]
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    DataFrame,
    EndWorkerFrame,
    ErrorFrame,
    Frame,
    InputDTMFFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.utils.time import time_now_iso8601

from mediad.speech import espeak
from mediad.speech.dialogue import Dialogue, Reply
from mediad.speech.hearing import RATE_HZ, Listener

__all__ = ["DialogueProcessor", "EspeakTTSService", "PocketsphinxSTTService"]

MAX_DIGITS = 10
"""How many digits pressed in a row are answered: the last ones."""

_BETWEEN_DIGITS_S = 0.6


@dataclass
class NotUnderstoodFrame(DataFrame):
    """The caller said something, and it was none of the words."""


class PocketsphinxSTTService(SegmentedSTTService):
    """Hears one of a few words in what the VAD takes for speech."""

    def __init__(self, listener: Listener, executor: ThreadPoolExecutor) -> None:
        """Make the service of one call; listener and thread may serve them all."""
        super().__init__(
            sample_rate=RATE_HZ,
            ttfs_p99_latency=0.25,  # from the end of speech; the VAD takes 0.2 s of it
            settings=STTSettings(model="en-us", language="en-US"),
        )
        self._listener = listener
        self._executor = executor

    @property
    def wants_wav_segments(self) -> bool:
        """Take the samples as they are."""
        return False

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Tell what was said."""
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._executor, self._listener.hear, audio)
        if text:
            yield TranscriptionFrame(text, self._user_id, time_now_iso8601())
        else:
            yield NotUnderstoodFrame()


class EspeakTTSService(TTSService):
    """Says text with espeak-ng."""

    def __init__(self, voice: str, rate_wpm: int) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            settings=TTSSettings(model="espeak-ng", voice=voice, language=None),
        )
        self._voice = voice
        self._rate_wpm = rate_wpm

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Say a sentence, all of it at once: the transport paces it."""
        try:
            pcm = await asyncio.to_thread(self._say, text)
        except espeak.SpeechError as exc:
            yield ErrorFrame(f"espeak-ng: {exc}")
            return
        yield TTSAudioRawFrame(pcm, self.sample_rate, 1, context_id=context_id)

    def _say(self, text: str) -> bytes:
        speech = espeak.synthesize(text, self._voice, self._rate_wpm)
        samples = np.frombuffer(speech.pcm, np.int16)
        # Whole sentences, so that no resampler keeps the end of one back.
        pcm: bytes = soxr.resample(samples, speech.rate_hz, self.sample_rate, "HQ").tobytes()
        return pcm


class DialogueProcessor(FrameProcessor):
    """Answers what the caller says and presses; speaks the way an LLM service does.

    It waits for the end of the caller's turn, and after the last digit of several.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dialogue = Dialogue()
        self._speaking = False  # the agent
        self._talked_over = False
        self._turn_is_open = False  # the caller's
        self._heard: str | None = None
        self._digits = ""
        self._last_digit: asyncio.Task[None] | None = None

    async def greet(self) -> None:
        """Say the first thing."""
        await self._say(self._dialogue.greet())

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take what concerns the dialogue and let all frames pass."""
        await super().process_frame(frame, direction)
        match frame:
            case BotStartedSpeakingFrame():
                self._speaking = True
                self._talked_over = False
            case BotStoppedSpeakingFrame():
                self._speaking = False
            case InterruptionFrame():
                self._talked_over = self._speaking
        await self.push_frame(frame, direction)
        match frame:
            case UserStartedSpeakingFrame():
                self._turn_is_open = True
            case UserStoppedSpeakingFrame():
                self._turn_is_open = False
                await self._answer()
            case TranscriptionFrame():
                self._heard = frame.text
                await self._answer()
            case NotUnderstoodFrame():
                self._heard = self._heard or ""
                await self._answer()
            case InputDTMFFrame():
                await self._take_digit(frame.button.value)

    async def cleanup(self) -> None:
        """Stop waiting for digits."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        if self._last_digit:
            await self.cancel_task(self._last_digit)

    async def _answer(self) -> None:
        """Answer, once the turn is over and what was said in it is known."""
        if self._turn_is_open or self._heard is None:
            return
        heard, self._heard = self._heard, None
        await self._say(self._dialogue.hear(heard, over_agent=self._talked_over))

    async def _take_digit(self, digit: str) -> None:
        if self._speaking:
            await self.broadcast_interruption()  # type: ignore[no-untyped-call]
        self._digits = (self._digits + digit)[-MAX_DIGITS:]
        if self._last_digit:
            await self.cancel_task(self._last_digit)
        self._last_digit = self.create_task(self._answer_digits(), "last_digit")

    async def _answer_digits(self) -> None:
        await asyncio.sleep(_BETWEEN_DIGITS_S)
        digits, self._digits = self._digits, ""
        self._last_digit = None
        await self._say(self._dialogue.press(digits))

    async def _say(self, reply: Reply) -> None:
        await self.push_frame(LLMFullResponseStartFrame())
        for sentence in reply.sentences:
            await self.push_frame(LLMTextFrame(sentence + " "))
        await self.push_frame(LLMFullResponseEndFrame())
        if reply.ends:
            await self.push_frame(EndWorkerFrame())
