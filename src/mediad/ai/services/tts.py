"""The link to the service that speaks: texts to it, audio back. `tts_cache` is the way on which a
text that was spoken before needs no service.
"""

from mediad.ai.connect import CallInfo
from mediad.ai.services.asked import Request
from mediad.ai.services.connection import Connection
from mediad.ai.services.events import Times, TtsEvents
from mediad.ai.services.link import ServiceLink
from mediad.ai.services.service import Service
from mediad.wire import frames
from mediad.wire import service as wire
from mediad.wire.frames import AudioFrame
from mediad.wire.service import Done, FromService, Start, Voice, Word

__all__ = ["MAX_SPEECH_BYTES", "TtsLink"]

MAX_SPEECH_BYTES = 4 << 20
"""The longest answer to one text, in bytes of audio: 87 s at 24 kHz. One that is longer has failed.
"""


class TtsLink(ServiceLink):
    """Text to speech for one call.

    Args:
        voice: How a text is spoken that does not say so itself.
        rate_hz: The audio's rate that the line would like best; what comes may have any.
    """

    def __init__(
        self, service: Service, call: CallInfo, voice: Voice, rate_hz: int, events: TtsEvents
    ) -> None:
        self._voice = Voice(voice.voice, voice.language, voice.rate or 1.0)
        start = Start("tts", call.call_id, voice.language, rate_hz, voice.voice, voice.rate or 1.0)
        super().__init__(service, call, start, events)
        self._events = events

    def speak(self, n: int, text: str, voice: Voice | None = None) -> None:
        """Have a text spoken. Several may be asked at once; they are spoken one after the other."""
        self._ask(n, frames.encode_text(text, n), voice or self._voice)

    def _messages(self, request: Request, connection: Connection) -> list[bytes]:
        voice = request.voice
        if voice is None or voice == connection.voice:
            return [request.frame]
        connection.voice = voice
        return [wire.encode(voice), request.frame]

    def _take_output(
        self, connection: Connection, item: FromService, message: bytes, now: float
    ) -> bool:
        match item:
            case AudioFrame(audio):
                head = connection.asked.hear(len(audio), now)
                if head is None:
                    self._counts.count_discarded("unasked")
                    return False
                if head.size > MAX_SPEECH_BYTES:
                    self._stop_head(connection, "flood")
                    return False
                self._events.on_audio(head.n, message)
                return True
            case Word(n, text, offset_ms):
                head = connection.asked.head
                if head is not None and head.n == n:
                    self._events.on_word(n, text, offset_ms)
                    return False
        self._counts.count_discarded("unasked")
        return False

    def _finish(self, request: Request, done: Done, times: Times) -> None:
        self._events.on_tts_done(request.n, times)
