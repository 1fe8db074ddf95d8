"""The offline TTS service: espeak-ng says each text, and tells where its words begin."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mediad.speech import espeak
from mediad.speech.roles.call import Answer, Handler, OpenHandler, Refused, Request, Send
from mediad.speech.roles.chunks import chunks
from mediad.wire.frames import AudioFrame, Text
from mediad.wire.service import Start, Voice, Word

__all__ = ["EspeakTTS", "espeak_service"]

_SLOWEST_WPM, _FASTEST_WPM = 80, 450


class EspeakTTS:
    """Says the texts of one call."""

    def __init__(self, start: Start, sample_rate: int, default_voice: str) -> None:
        self.sample_rate = sample_rate
        self._default_voice = default_voice
        self._voice = start.voice
        self._language = start.language
        self._rate = start.rate

    def take(self, message: AudioFrame | Voice) -> None:
        """Change the voice for the texts that follow."""
        if isinstance(message, Voice):
            self._voice = message.voice or self._voice
            self._language = message.language or self._language
            self._rate = message.rate or self._rate

    def ask(self, request: Request) -> Answer:
        """Say a text."""
        assert isinstance(request, Text)
        # With the voice of now: another one may be set before this text's turn comes.
        voice = self._voice or self._language.lower() or self._default_voice
        rate_wpm = round(espeak.DEFAULT_RATE_WPM * self._rate)
        return self._say(request, voice, min(max(rate_wpm, _SLOWEST_WPM), _FASTEST_WPM))

    async def _say(self, request: Text, voice: str, rate_wpm: int) -> Answer:
        try:
            speech = await espeak.speak(request.text, voice, rate_wpm)
        except espeak.SpeechError as exc:
            raise Refused("cannot_speak", str(exc)) from exc
        for word in speech.words:
            yield Word(request.id, word.text, word.offset_ms)
        for chunk in chunks(AudioFrame(speech.pcm, speech.rate_hz, 1)):
            yield chunk


def espeak_service(default_voice: str) -> OpenHandler:
    """Return the service.

    Raises:
        SpeechError: If espeak-ng is missing or has no such voice.
    """
    sample_rate = espeak.synthesize("ready", default_voice).rate_hz

    @asynccontextmanager
    async def open_handler(start: Start, _: Send) -> AsyncGenerator[Handler]:
        yield EspeakTTS(start, sample_rate, default_voice)

    return open_handler
