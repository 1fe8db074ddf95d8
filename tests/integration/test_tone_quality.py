"""What is left of a clean tone: from the caller through mediad, a program, to the agent, and back.

Caller and agent each send all they say at once: a machine that stands still makes no hole in it.
"""

import asyncio
from itertools import product

import pytest

from mediad.wire.audiosocket import Kind, audio_message
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.fakes.asterisk import AsteriskCall
from tests.integration.daemon import eventually
from tests.mediad_process import MediadProcess, run_mediad
from tests.sound import G711, Tone, measure_tone, tone

FREQUENCIES_HZ = (304, 1004, 3380)
LEVELS_DBFS = (0, -10, -20, -30)
FRAMES = 60
TALK_S = FRAMES * 0.020


def encode(codec: str, frequency_hz: float, level_dbfs: float) -> bytes:
    """Return a caller's tone."""
    pcm = tone(frequency_hz, TALK_S, 8000, 32_767 * 10 ** (level_dbfs / 20))
    return pcm if codec == "slin" else G711[codec].encode(pcm)


def least_snr_db(codec: str, payload: bytes) -> float:
    """Return what must be left of a tone: of G.711 all but 0.5 dB of what the law itself leaves."""
    if codec == "slin":
        return 60.0
    return measure_tone(G711[codec].decode(payload), 8000).snr_db - 0.5


async def say_again(agent: AgentConnection) -> None:
    """Hear the caller out, and say the same."""
    await agent.until(lambda agent: sum(any(received.pcm) for received in agent.audio) >= FRAMES)
    await agent.say(agent.pcm)


async def talk(mediad: MediadProcess, agent: FakeAgent, payload: bytes) -> tuple[Tone, Tone]:
    """Say a tone; return what the agent hears, and what comes back."""

    def connections() -> list[AgentConnection]:
        return [c for c in agent.connections if c.call_id == str(call.call_id)]

    size = len(payload) // FRAMES
    starts = range(0, len(payload), size)
    async with AsteriskCall(mediad.audiosocket) as call:
        # Before the agent has heard silence, mediad holds but the newest of what is said.
        await eventually(lambda: any(connection.audio for connection in connections()))
        call.send(b"".join(audio_message(Kind.SLIN, payload[at : at + size]) for at in starts))
        await eventually(lambda: len(call.words) >= (FRAMES - 1) * 320)
    (connection,) = connections()
    return measure_tone(connection.pcm, 16_000), measure_tone(call.pcm, 8000)


@pytest.mark.parametrize("codec", ["slin", *G711])
async def test_a_tone_keeps_its_quality_there_and_back(codec: str) -> None:
    cases = list(product(FREQUENCIES_HZ, LEVELS_DBFS))
    payloads = [encode(codec, *case) for case in cases]
    async with (
        FakeAgent(say_again) as agent,
        run_mediad(agent.url, audiosocket__codec=codec) as mediad,
        asyncio.TaskGroup() as group,
    ):
        calls = [group.create_task(talk(mediad, agent, payload)) for payload in payloads]
    for case, payload, call in zip(cases, payloads, calls, strict=True):
        for measured in call.result():
            assert measured.seconds > TALK_S - 0.3, case
            assert measured.hz == pytest.approx(case[0], abs=0.1)
            assert measured.snr_db >= least_snr_db(codec, payload), case
