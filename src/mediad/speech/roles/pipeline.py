"""One Pipecat service as one call of ours: a pipeline with it alone, frames in and frames out."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from pipecat.frames.frames import ErrorFrame, Frame, InterruptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from mediad.speech.roles.call import Refused

__all__ = ["FramePipe"]

MAX_FRAMES = 1000
"""How many frames may wait each way: 20 s of audio."""

_START_S = 10.0
_STOP_S = 5.0
_INTERRUPTED_S = 0.25
_OUT_RATE_HZ = 24_000  # some providers have no other


class FramePipe:
    """Takes frames to the provider and brings those back that it makes."""

    def __init__(self, provider: FrameProcessor, in_rate_hz: int) -> None:
        self.provider = provider
        self.in_rate_hz = in_rate_hz
        self.on_frame: Callable[[Frame], Awaitable[bool]] = _pass_over
        """Sees each frame but errors; tells whether `receive` is to return it."""
        self._in: asyncio.Queue[Frame] = asyncio.Queue(MAX_FRAMES)
        self._out: asyncio.Queue[Frame] = asyncio.Queue(MAX_FRAMES)
        self._interrupted = asyncio.Event()
        self._started = asyncio.Event()

    def send(self, frame: Frame) -> None:
        """Take a frame to the provider, unless it is far behind."""
        if not self._in.full():
            self._in.put_nowait(frame)

    async def receive(self, within_s: float) -> Frame | None:
        """Return the provider's next frame, or None after ``within_s`` seconds without one.

        Raises:
            Refused: If it reports an error.
        """
        try:
            async with asyncio.timeout(within_s):
                frame = await self._out.get()
        except TimeoutError:
            return None
        if isinstance(frame, ErrorFrame):
            raise Refused("provider", frame.error, retry=True)
        return frame

    async def interrupt(self) -> None:
        """Stop what the provider is doing, and forget what it has made."""
        self._interrupted.clear()
        self.send(InterruptionFrame())
        try:
            async with asyncio.timeout(_INTERRUPTED_S):
                await self._interrupted.wait()
        except TimeoutError:
            pass  # it hangs; what it says later is taken for the next answer, or discarded by it
        self.forget()

    def forget(self) -> None:
        """Forget what has come and was not received, but for an error."""
        kept = None
        while not self._out.empty():
            frame = self._out.get_nowait()
            kept = frame if isinstance(frame, ErrorFrame) else kept
        if kept:
            self._out.put_nowait(kept)

    async def take(self, frame: Frame) -> None:
        """Take a frame from the provider."""
        if isinstance(frame, InterruptionFrame):
            self._interrupted.set()
        elif isinstance(frame, ErrorFrame) or await self.on_frame(frame):
            await self._out.put(frame)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the pipeline.

        Raises:
            Refused: If it does not start.
        """
        worker = PipelineWorker(
            Pipeline([_Tap(self, FrameDirection.UPSTREAM), self.provider, _Tap(self)]),
            params=PipelineParams(
                audio_in_sample_rate=self.in_rate_hz, audio_out_sample_rate=_OUT_RATE_HZ
            ),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
            enable_turn_tracking=False,
        )

        @worker.event_handler("on_pipeline_started")
        async def started(*_: object) -> None:
            self._started.set()

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        sending = asyncio.create_task(self._send_all(worker))
        try:
            try:
                async with asyncio.timeout(_START_S):
                    await self._started.wait()
            except TimeoutError:
                raise Refused("provider", "the provider does not start", retry=True) from None
            yield
        finally:
            sending.cancel()
            await worker.cancel()
            await asyncio.wait([running, sending], timeout=_STOP_S)

    async def _send_all(self, worker: PipelineWorker) -> None:
        while True:
            await worker.queue_frame(await self._in.get())


async def _pass_over(_: Frame) -> bool:
    return False


class _Tap(FrameProcessor):
    """Shows the pipe what comes by: in front of the provider its errors, behind it all else."""

    def __init__(
        self, pipe: FramePipe, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        super().__init__()
        self._pipe = pipe
        self._seen = direction

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Let all frames pass."""
        await super().process_frame(frame, direction)
        if direction is self._seen and (
            isinstance(frame, ErrorFrame) or direction is FrameDirection.DOWNSTREAM
        ):
            await self._pipe.take(frame)
        await self.push_frame(frame, direction)
