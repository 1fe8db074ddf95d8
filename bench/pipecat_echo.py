"""A peer: a stock Pipecat agent that echoes. The FastAPI transport, a pipeline for each client.

All is Pipecat's default (RTVI on, 40 ms chunks, no VAD) but the output's rate, which is the
input's, so that nothing is resampled; on uvloop, as ``uvicorn`` runs it. ``python -m
bench.pipecat_echo`` says where it listens.
"""

import asyncio
import sys

import uvloop
from loguru import logger

logger.remove()
logger.add(sys.stderr, level="ERROR")

import uvicorn  # noqa: E402 (after the logger, which Pipecat greets through when it is imported)
from fastapi import FastAPI, WebSocket  # noqa: E402
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame  # noqa: E402
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.serializers.protobuf import ProtobufFrameSerializer  # noqa: E402
from pipecat.transports.websocket.fastapi import (  # noqa: E402
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from bench.process import free_port  # noqa: E402

_RATE_HZ = 16_000


class Echo(FrameProcessor):
    """Turns what is heard into what is said."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            said = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
            await self.push_frame(said)
        else:
            await self.push_frame(frame, direction)


async def serve_client(websocket: WebSocket) -> None:
    """Run one client's pipeline to its end."""
    await websocket.accept()
    params = FastAPIWebsocketParams(
        serializer=ProtobufFrameSerializer(), audio_in_enabled=True, audio_out_enabled=True
    )
    transport = FastAPIWebsocketTransport(websocket, params)
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(), transport.output()]),
        params=PipelineParams(audio_out_sample_rate=_RATE_HZ),
        idle_timeout_secs=None,
    )

    @transport.event_handler("on_client_disconnected")  # type: ignore[untyped-decorator]
    async def on_disconnected(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def main() -> None:
    """Serve on a free port of 127.0.0.1, for ever."""
    app = FastAPI()
    app.add_api_websocket_route("/{path:path}", serve_client)
    port = free_port()
    config = uvicorn.Config(
        app, "127.0.0.1", port, log_level="error", lifespan="off", ws_per_message_deflate=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.02)
    print(f"pipecat takes calls on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await serving


if __name__ == "__main__":
    uvloop.run(main())
