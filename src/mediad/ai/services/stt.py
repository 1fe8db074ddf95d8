"""The link to the service that hears: the caller's audio to it, words back.

Audio is never asked again: what a service did not hear, nobody has heard. So a turn whose service
is lost has failed, with the finals that came before.
"""

from collections import deque

from mediad.ai.connect import CallInfo
from mediad.ai.services.asked import Request
from mediad.ai.services.connection import Connection
from mediad.ai.services.events import SttEvents, Times
from mediad.ai.services.link import ServiceLink
from mediad.ai.services.service import Service
from mediad.wire import service as wire
from mediad.wire.frames import Transcription
from mediad.wire.service import Done, FromService, Interim, Start, StoppedSpeaking

__all__ = ["HELD_FRAMES", "SttLink"]

HELD_FRAMES = 50
"""Audio frames held while no service is ready; the oldest are dropped and counted."""


class SttLink(ServiceLink):
    """Speech to text for one call."""

    _max_tries = 1

    def __init__(self, service: Service, call: CallInfo, language: str, events: SttEvents) -> None:
        start = Start("stt", call.call_id, language)
        super().__init__(service, call, start, events)
        self._events = events
        self._held: deque[bytes] = deque()

    def send_audio(self, frame: bytes) -> None:
        """Send 16 kHz audio, an encoded frame as the line makes it. Never waits."""
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.send_audio(frame)
            return
        if len(self._held) >= HELD_FRAMES:
            self._held.popleft()
            self._counts.count_dropped_audio()
            self._events.on_audio_dropped()
        self._held.append(frame)

    def stopped_speaking(self, n: int) -> None:
        """Ask for what is left of the caller's turn n: finals, then `on_stt_done`."""
        self._ask(n, wire.encode(StoppedSpeaking(n)))

    def _send_waiting(self) -> None:
        connection = self._connection
        if connection is not None and connection.is_open:
            while self._held:
                connection.send_audio(self._held.popleft())
        super()._send_waiting()

    def _take_output(
        self, connection: Connection, item: FromService, message: bytes, now: float
    ) -> bool:
        match item:
            case Interim(text):
                self._events.on_interim(text)
            case Transcription(text):
                connection.is_good = True
                connection.asked.hear(len(text), now)
                self._events.on_final(text)
            case StoppedSpeaking():
                self._events.on_end_of_turn()
            case _:
                self._counts.count_discarded("unasked")
        return False

    def _finish(self, request: Request, done: Done, times: Times) -> None:
        self._events.on_stt_done(request.n, times)
