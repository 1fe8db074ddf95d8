"""Twenty calls at once for a minute, each with a stock Pipecat pipeline of its own.

The agent stamps each message when it has handed it to its WebSocket, the callers stamp each frame
when they hear it; both on the machine's monotonic clock. So every gap that a caller hears can be
laid at somebody's door: if the audio it lacked had left the agent 20 ms before, it is mediad's;
unless the kernel says that just then mediad stood in the run queue, ready and without a core.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from mediad.caller import Caller
from tests.integration.pipecat_peer import run_pipecat_agent
from tests.mediad_process import run_mediad
from tests.sound import tone

CALLS = 20
DURATION_S = 60.0
OUT_RATE_HZ = 24_000
FRAME_S = 0.020
MAX_EXCUSED = 5 * CALLS  # of 60,000 frames: a stall of the machine takes one of each call
STARVED_S = 0.010  # without a core, in the tenth of a second around a frame
ALLOWED_S = 0.020  # between the agent's hand and mediad's socket, and from there to the due frame
CHUNK_BYTES = OUT_RATE_HZ // 100 * 2  # 10 ms; what a message has beside its samples is less
MESSAGE_BYTES = 4 * CHUNK_BYTES  # Pipecat's default; smaller messages are no audio


async def test_no_underrun_but_the_agents_own(tmp_path: Path) -> None:
    options = ("--out-rate", str(OUT_RATE_HZ), "--stamps")
    async with (
        run_pipecat_agent(tmp_path, "fastapi", *options) as agent,
        run_mediad(agent.url, audiosocket__codec="slin") as mediad,
        AsyncExitStack() as stack,
    ):
        callers = []
        for _ in range(CALLS):
            caller = Caller(*mediad.audiosocket, call_id=uuid4())
            callers.append(await stack.enter_async_context(caller))
            await agent.wait_for("connected", str(caller.call_id))
        speech = tmp_path / "speech"
        speech.write_bytes(tone(997.0, DURATION_S, OUT_RATE_HZ))
        for caller in callers:
            agent.command("play", str(caller.call_id), file=str(speech))
        queued = await sample_run_queue(mediad.pid, DURATION_S + 2.0)
        excused = 0
        for caller in callers:
            call = str(caller.call_id)
            sent = [
                e
                for e in agent.events
                if e["event"] == "sent" and e["call"] == call and e["bytes"] >= MESSAGE_BYTES
            ]
            audible = audible_frames(caller)
            assert len(audible) * FRAME_S > 0.9 * DURATION_S  # the agent may have had no core
            for heard_s, due in gaps(caller, audible):
                if queued_s(queued, due) > STARVED_S:
                    excused += 1
                    continue
                assert sent_s(sent, due - ALLOWED_S) <= heard_s + 1e-6, (
                    f"at {due:.3f} s {heard_s:.2f} s had been heard, and more was there"
                )
        print(f"{excused} gaps while mediad had no core")
        assert excused <= MAX_EXCUSED, "the machine was too busy to tell"


def audible_frames(caller: Caller) -> list[int]:
    """Return the indices of the frames that have sound."""
    pcm = bytes(caller.heard.pcm)
    size = len(pcm) // len(caller.heard.times)
    return [i for i in range(len(caller.heard.times)) if any(pcm[i * size : (i + 1) * size])]


def gaps(caller: Caller, audible: list[int]) -> list[tuple[float, float]]:
    """Return how much had been heard before each gap, in seconds, and when its first frame was due.

    Frames are due on one absolute clock, so the frame that came soonest tells when all were: this
    program may stamp a frame late, but none early.
    """
    first_due = min(at - i * FRAME_S for i, at in enumerate(caller.heard.times))
    return [
        ((count + 1) * FRAME_S, first_due + (frame + 1) * FRAME_S)
        for count, (frame, following) in enumerate(pairwise(audible))
        if following - frame > 1
    ]


def sent_s(sent: list[dict[str, Any]], until: float) -> float:
    """Return how much audio the agent had handed over at a time, in seconds."""
    return sum(int(e["bytes"]) // CHUNK_BYTES * 0.010 for e in sent if e["at"] <= until)


async def sample_run_queue(pid: int, duration_s: float) -> list[tuple[float, float]]:
    """Return, every 20 ms, how long a process has waited for a core in its life, in seconds."""
    samples = []
    end = time.monotonic() + duration_s
    while (now := time.monotonic()) < end:
        samples.append((now, run_queue_s(pid)))
        await asyncio.sleep(0.020)
    return samples


def run_queue_s(pid: int) -> float:
    """Read the second number of /proc/PID/schedstat (kernel: sched-stats), which is in ns."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def queued_s(samples: list[tuple[float, float]], due: float) -> float:
    """Return how long the process waited for a core around a frame's time."""
    around = [waited for at, waited in samples if due - 0.08 <= at <= due + 0.06]
    return around[-1] - around[0] if around else 0.0
