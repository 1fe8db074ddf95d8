"""A stock Pipecat agent as a program, for tests: transport, pipeline and RTVI as Pipecat has them.

Between input and output stands one probe: it records what it hears, and echoes it if asked. Events
go to standard output, commands come from standard input, one JSON object a line; `pipecat_peer` is
the other end.

    {"event": "listening", "port"}              {"cmd": "play", "call", "file"}: s16le, output rate
    {"event": "connected", "call"}              {"cmd": "end", "call"}: EndFrame, a normal end
    {"event": "dtmf", "call", "digit"}          {"cmd": "cancel", "call"}: CancelFrame
    {"event": "disconnected", "call"}           {"cmd": "interrupt", "call"}
    {"event": "sent", "call", "at", "bytes"}: with --stamps, a message handed to the WebSocket

What the caller said in call ID is in DIR/ID.raw, s16le at 16 kHz, flushed as it comes.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from loguru import logger

logger.remove()
logger.add(sys.stderr, level="WARNING")

import uvicorn  # noqa: E402 (after the logger, which Pipecat greets through when it is imported)
from fastapi import FastAPI, WebSocket  # noqa: E402
from pipecat.frames.frames import (  # noqa: E402
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.serializers.protobuf import ProtobufFrameSerializer  # noqa: E402
from pipecat.transports.base_transport import BaseTransport  # noqa: E402
from pipecat.transports.websocket.client import (  # noqa: E402
    WebsocketClientParams,
    WebsocketClientTransport,
)
from pipecat.transports.websocket.fastapi import (  # noqa: E402
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)
from pipecat.transports.websocket.server import (  # noqa: E402
    WebsocketServerParams,
    WebsocketServerTransport,
)
from pipecat.workers.runner import WorkerRunner  # noqa: E402


def emit(event: str, **fields: object) -> None:
    """Tell the test something."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Probe(FrameProcessor):
    """Records and echoes; lets all other frames pass."""

    def __init__(self, call: "Call", record: Path, echo: bool) -> None:
        super().__init__()
        self._call = call
        self._record = record
        self._echo = echo

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            with (self._record / f"{self._call.name}.raw").open("ab") as file:
                file.write(frame.audio)
            if self._echo:
                out = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
                await self.push_frame(out)
            return
        if isinstance(frame, InputDTMFFrame):
            emit("dtmf", call=self._call.name, digit=frame.button.value)
        await self.push_frame(frame, direction)


class Call:
    """One client and its pipeline."""

    def __init__(self, agent: "Agent", transport: BaseTransport, name: str) -> None:
        self.name = name
        self._rate_hz: int = agent.options.out_rate
        probe = Probe(self, agent.options.record, agent.options.echo)
        self.worker = PipelineWorker(
            Pipeline([transport.input(), probe, transport.output()]),
            params=PipelineParams(audio_out_sample_rate=self._rate_hz),
            idle_timeout_secs=None,
        )

    async def run(self) -> None:
        """Run the pipeline to its end."""
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        await runner.run()

    async def command(self, command: dict[str, Any]) -> None:
        """Do what the test says."""
        match command["cmd"]:
            case "play":
                pcm = await asyncio.to_thread(Path(command["file"]).read_bytes)
                await self.worker.queue_frame(OutputAudioRawFrame(pcm, self._rate_hz, 1))
            case "end":
                await self.worker.queue_frame(EndFrame())
            case "cancel":
                await self.worker.cancel()
            case "interrupt":
                await self.worker.queue_frame(InterruptionFrame())


class Agent:
    """The program: a transport of the kind asked for, and its calls."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.calls: dict[str, Call] = {}

    def params(self) -> dict[str, Any]:
        """Return what all transports are given; everything else is Pipecat's default."""
        return {
            "audio_in_enabled": True,
            "audio_out_enabled": True,
            "audio_out_10ms_chunks": self.options.chunks,
        }

    async def serve_one_client(self) -> None:
        """Run `WebsocketServerTransport`: one client at a time, one pipeline for them all."""
        port = self.options.port or _free_port()
        params = WebsocketServerParams(serializer=ProtobufFrameSerializer(), **self.params())
        transport = WebsocketServerTransport(host="127.0.0.1", port=port, params=params)
        call = Call(self, transport, "none")

        @transport.event_handler("on_websocket_ready")
        async def on_ready(_: object) -> None:
            emit("listening", port=port)

        @transport.event_handler("on_client_connected")
        async def on_connected(_: object, client: Any) -> None:
            call.name = client.request.headers.get("X-Mediad-Call-Id", "none")
            self.calls[call.name] = call
            emit("connected", call=call.name)

        @transport.event_handler("on_client_disconnected")
        async def on_disconnected(_: object, client: Any) -> None:
            emit("disconnected", call=client.request.headers.get("X-Mediad-Call-Id", "none"))

        await call.run()

    async def serve_many_clients(self) -> None:
        """Run `FastAPIWebsocketTransport`: a pipeline for each client."""
        app = FastAPI()

        @app.websocket("/{path:path}")
        async def client(websocket: WebSocket) -> None:
            await websocket.accept()
            name = websocket.headers.get("X-Mediad-Call-Id", "none")
            if self.options.stamps:
                _stamp(websocket, name)
            params = FastAPIWebsocketParams(serializer=ProtobufFrameSerializer(), **self.params())
            transport = FastAPIWebsocketTransport(websocket, params)
            self.calls[name] = call = Call(self, transport, name)

            @transport.event_handler("on_client_connected")
            async def on_connected(*_: object) -> None:
                emit("connected", call=name)

            @transport.event_handler("on_client_disconnected")
            async def on_disconnected(*_: object) -> None:
                await call.worker.cancel()

            await call.run()
            emit("disconnected", call=name)

        port = self.options.port or _free_port()
        config = uvicorn.Config(app, "127.0.0.1", port, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.02)
        emit("listening", port=port)
        await serving

    async def dial(self) -> None:
        """Run `WebsocketClientTransport` with its defaults: a RIFF header on every message."""
        transport = WebsocketClientTransport(
            self.options.url, WebsocketClientParams(**self.params())
        )
        self.calls["none"] = call = Call(self, transport, "none")

        @transport.event_handler("on_connected")
        async def on_connected(*_: object) -> None:
            emit("connected", call="none")

        @transport.event_handler("on_disconnected")
        async def on_disconnected(*_: object) -> None:
            emit("disconnected", call="none")

        await call.run()

    async def obey(self) -> None:
        """Read commands until standard input ends, which is the test's way to stop us."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            await self.calls[command["call"]].command(command)

    async def run(self) -> None:
        """Serve until the test ends us."""
        serve = {
            "server": self.serve_one_client,
            "fastapi": self.serve_many_clients,
            "client": self.dial,
        }[self.options.transport]
        serving = asyncio.create_task(serve())
        obeying = asyncio.create_task(self.obey())
        await asyncio.wait((serving, obeying), return_when=asyncio.FIRST_COMPLETED)
        for task in (serving, obeying):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _stamp(websocket: WebSocket, call: str) -> None:
    """Tell the time at which each binary message has been handed to the WebSocket."""
    send_bytes = websocket.send_bytes

    async def stamped(data: bytes) -> None:
        await send_bytes(data)
        emit("sent", call=call, at=time.monotonic(), bytes=len(data))

    websocket.send_bytes = stamped  # type: ignore[method-assign]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=("server", "fastapi", "client"), required=True)
    parser.add_argument("--url", help="where the client transport dials to")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--out-rate", type=int, default=24000)
    parser.add_argument("--chunks", type=int, default=4, help="of 10 ms, in one message")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--echo", action="store_true")
    parser.add_argument("--stamps", action="store_true")
    asyncio.run(Agent(parser.parse_args()).run())


if __name__ == "__main__":
    main()
