"""The built-in agent's server: a stock Pipecat pipeline for each WebSocket, on FastAPI's transport.

input → Silero VAD → pocketsphinx → user turns → dialogue → espeak-ng → output
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from socket import socket

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_processor import UserTurnProcessor
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from mediad.speech import espeak
from mediad.speech.hearing import RATE_HZ, Listener
from mediad.speech.services import DialogueProcessor, EspeakTTSService, PocketsphinxSTTService

__all__ = ["Bot", "BotOptions", "Server"]

MAX_MESSAGE_SIZE = 1 << 20
"""The largest WebSocket message taken, in bytes."""

_TRY_AGAIN_LATER = 1013
_SHUTDOWN_S = 1
_END_OF_TURN_S = 0.3  # on top of the 0.2 s that the VAD takes
_CLOSE_S = 0.5  # for the peer's half of the closing handshake


@dataclass(frozen=True, slots=True)
class BotOptions:
    """How the agent speaks, and how many it speaks with."""

    voice: str = espeak.DEFAULT_VOICE
    rate_wpm: int = espeak.DEFAULT_RATE_WPM
    out_rate_hz: int = 24_000
    max_calls: int = 50


class Bot:
    """Everything that the calls share, and a pipeline for each."""

    def __init__(self, options: BotOptions) -> None:
        """Load voice and models: what is missing is found out now, not in the first call.

        Raises:
            SpeechError: If espeak-ng cannot speak with that voice.
        """
        espeak.synthesize("ready", options.voice, options.rate_wpm)
        self._options = options
        self._listener = Listener()
        # One thread: the listener takes one call at a time anyway, and a word takes 0.1 s.
        self._hearing = ThreadPoolExecutor(1, "hearing")
        self._calls = 0

    def app(self) -> FastAPI:
        """Return the application: a WebSocket at any path."""
        app = FastAPI(openapi_url=None)
        app.add_api_websocket_route("/{path:path}", self._serve)
        return app

    async def _serve(self, websocket: WebSocket) -> None:
        await websocket.accept()
        if self._calls >= self._options.max_calls:
            await websocket.close(_TRY_AGAIN_LATER, "too many calls")
            return
        self._calls += 1
        try:
            await self._run_pipeline(websocket)
        finally:
            self._calls -= 1

    async def _run_pipeline(self, websocket: WebSocket) -> None:
        transport = FastAPIWebsocketTransport(
            websocket,
            FastAPIWebsocketParams(
                serializer=ProtobufFrameSerializer(),
                audio_in_enabled=True,
                audio_out_enabled=True,
                allowed_origins=[],
                ws_close_timeout=_CLOSE_S,
            ),
        )
        dialogue = DialogueProcessor()
        vad = await asyncio.to_thread(SileroVADAnalyzer)  # loads a model
        worker = PipelineWorker(
            Pipeline(
                [
                    transport.input(),
                    VADProcessor(vad_analyzer=vad),
                    PocketsphinxSTTService(self._listener, self._hearing),
                    UserTurnProcessor(user_turn_strategies=_turns()),
                    dialogue,
                    EspeakTTSService(self._options.voice, self._options.rate_wpm),
                    transport.output(),
                ]
            ),
            params=PipelineParams(
                audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=self._options.out_rate_hz
            ),
        )

        @worker.event_handler("on_pipeline_started")
        async def greet(*_: object) -> None:
            await dialogue.greet()

        @transport.event_handler("on_client_disconnected")
        async def hang_up(*_: object) -> None:
            await worker.cancel()

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()


class Server(uvicorn.Server):
    """uvicorn on a socket that listens already; it tells when it answers there."""

    def __init__(self, bot: Bot, on_ready: Callable[[str], object]) -> None:
        super().__init__(
            uvicorn.Config(
                bot.app(),
                log_level="error",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=_SHUTDOWN_S,
                ws_max_size=MAX_MESSAGE_SIZE,
                ws_per_message_deflate=False,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Answer, then tell the address."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_ready(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")


def _turns() -> UserTurnStrategies:
    """A turn begins with the VAD, which interrupts the agent, and ends after a short quiet."""
    return UserTurnStrategies(
        start=[VADUserTurnStartStrategy()],
        stop=[
            SpeechTimeoutUserTurnStopStrategy(
                user_speech_timeout=_END_OF_TURN_S, wait_for_transcript=False
            )
        ],
    )
