"""Whole mediads, killed and robbed of their servers: what happened on a call is kept, once."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from mediad.caller import Caller
from mediad.config import Database as DatabaseSettings
from tests.books import Rows, as_environment, journal_empty, made_ready, read_rows
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.machine import MachineWatch, watch_machine
from tests.mariadb import running_mariadb
from tests.mediad_process import MediadProcess, run_mediad, run_telling_mediad
from tests.own_stalls import watch_own_loop
from tests.redis_server import redis_server
from tests.sound import tone

ROUNDS = 20
CALLS = 50
SEGMENTS = 20  # a call and round: 1,000 in all
SAFE_S = 0.1  # what was sent so long before the kill is kept

OUTAGE_S = 60.0
OUTAGE_CALLS = 10
BETWEEN_WORDS_S = 0.25
FRAME_S = 0.02
LATE_S = 0.5  # for a live event, on a machine that does other things as well


class Said(NamedTuple):
    """A segment that an agent has sent."""

    text: str
    at: float


class Talker:
    """An agent that says numbered words on every call, and knows when it said which."""

    def __init__(self, name: str, count: int, pause_s: float) -> None:
        self.said: list[Said] = []
        self._name = name
        self._count = count
        self._pause_s = pause_s

    async def __call__(self, agent: AgentConnection) -> None:
        """The script of a connection."""
        for number in range(self._count):
            words = f"{self._name} {agent.call_id} {number}"
            await agent.tell("bot-transcription", text=words)
            self.said.append(Said(words, time.monotonic()))
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))


@asynccontextmanager
async def calls(mediad: MediadProcess, count: int) -> AsyncIterator[list[Caller]]:
    """Make calls, which last as long as the block."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Caller(*mediad.audiosocket)) for _ in range(count)]


@pytest.fixture(params=["sqlite", "mariadb"])
async def database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[DatabaseSettings]:
    """An empty database."""
    if request.param == "sqlite":
        yield DatabaseSettings(directory=tmp_path)
        return
    with running_mariadb() as server:
        yield await made_ready(server.new_database(), tmp_path)


async def test_kill_at_any_moment_loses_nothing_that_was_known(database: DatabaseSettings) -> None:
    said: list[Said] = []
    told: set[str] = set()
    for round_ in range(ROUNDS):
        talker = Talker(f"round {round_}", SEGMENTS, 0.1)
        async with (
            FakeAgent(talker) as agent,
            run_telling_mediad(agent.url, **as_environment(database)) as mediad,
            calls(mediad, CALLS),
        ):
            async with watch_own_loop() as own:
                await asyncio.sleep(random.uniform(0.2, 2.5))
                # Where this process stood still, so did mediad.
                while own.worst_s(time.monotonic() - SAFE_S) > SAFE_S / 2:  # noqa: ASYNC110
                    await asyncio.sleep(SAFE_S)
                killed_at = time.monotonic()
                await mediad.kill()
        said += [words for words in talker.said if words.at < killed_at - SAFE_S]
        told |= {event["id"] for event in mediad.told if event["sequence"] is not None}
    async with run_mediad("", **as_environment(database)) as mediad:
        await journal_empty(mediad, 30)
    rows = await read_rows(database)
    assert len(said) > ROUNDS * CALLS * SEGMENTS / 4
    assert {words.text for words in said} <= rows.transcripts.keys()
    assert told <= rows.event_ids
    assert set(rows.transcripts.values()) == {1}
    assert rows.open_calls == []
    assert rows.ends == Counter(rows.calls)
    assert rows.sequences == list(range(1, len(rows.sequences) + 1))


class Outage(NamedTuple):
    """What was there after calls during which a server was away."""

    mediad: MediadProcess
    talker: Talker
    rows: Rows
    skipped_s: float
    """How much of a call's time was skipped because mediad was late, on average."""
    underrun_frames: float
    machine: MachineWatch
    stalls_s: float
    """How long this process stood still meanwhile, altogether."""


def check_outage(outage: Outage) -> None:
    """Nothing is lost, no caller has heard it, and live events came when they happened."""
    said = {words.text: words.at for words in outage.talker.said}
    assert Counter(said.keys()) == outage.rows.transcripts
    assert outage.rows.open_calls == []
    assert outage.rows.ends == Counter(outage.rows.calls)
    assert outage.rows.sequences == list(range(1, len(outage.rows.sequences) + 1))
    assert outage.underrun_frames == 0
    assert outage.skipped_s <= outage.machine.worst_s + outage.stalls_s
    live = {
        event["text"]: event["at"]
        for event in outage.mediad.told
        if event["type"] == "transcript_created" and event["sequence"] is None
    }
    assert live.keys() == said.keys()
    late = sorted(live[words] - at for words, at in said.items())
    median_ms, most_ms = late[len(late) // 2] * 1000, late[-1] * 1000
    print(f"live events: median {median_ms:.1f} ms, at most {most_ms:.1f} ms")
    assert late[-1] < LATE_S + outage.machine.worst_s
    durable = [event["sequence"] for event in outage.mediad.told if event["sequence"] is not None]
    assert durable == sorted(durable)


async def test_database_away_for_a_minute_under_load(tmp_path: Path) -> None:
    talker = Talker("away", int((OUTAGE_S + 10) / BETWEEN_WORDS_S), BETWEEN_WORDS_S)

    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, OUTAGE_S + 5, 8000), 8000)
        await talker(agent)

    with running_mariadb() as server:
        settings = await made_ready(server.new_database(), tmp_path)
        options = {"audiosocket__codec": "slin", "audiosocket__playout_max_s": "120"}
        async with (
            watch_machine() as machine,
            watch_own_loop() as own,
            FakeAgent(script) as agent,
            run_telling_mediad(agent.url, **options, **as_environment(settings)) as mediad,
        ):
            async with calls(mediad, OUTAGE_CALLS):
                await asyncio.sleep(3)
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(OUTAGE_S)
                assert '"status":"degraded"' in await mediad.get("/healthz")
                assert '"status":"ready"' in await mediad.get("/readyz")
                assert await mediad.metric("mediad_journal_facts") > OUTAGE_CALLS * OUTAGE_S
                assert await mediad.metric("mediad_journal_oldest_seconds") > OUTAGE_S / 2
                await asyncio.to_thread(server.start)
                await asyncio.sleep(3)
                skipped = await mediad.metric("mediad_ticks_skipped_total")
                underruns = await mediad.metric("mediad_underrun_frames_total")
            await journal_empty(mediad, 30)
            assert '"status":"ok"' in await mediad.get("/healthz")
        rows = await read_rows(settings)
    skipped_s, stalls_s = skipped * FRAME_S / OUTAGE_CALLS, own.total_s()
    check_outage(Outage(mediad, talker, rows, skipped_s, underruns, machine, stalls_s))


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_redis_gone_in_the_middle_of_calls(tmp_path: Path, how: str) -> None:
    talker = Talker("redis", 40, BETWEEN_WORDS_S)

    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 8, 8000), 8000)
        await talker(agent)

    settings = DatabaseSettings(directory=tmp_path)
    async with (
        redis_server(tmp_path) as redis,
        FakeAgent(script) as agent,
        AsyncExitStack() as until_the_end,
    ):
        options = {"audiosocket__codec": "slin", "redis__url": redis.url}
        async with (
            watch_machine() as machine,
            watch_own_loop() as own,
            run_telling_mediad(agent.url, **options, **as_environment(settings)) as mediad,
        ):
            async with calls(mediad, OUTAGE_CALLS):
                await asyncio.sleep(2)
                if how == "killed":
                    redis.kill()
                else:
                    until_the_end.enter_context(redis.frozen())
                await asyncio.sleep(5)
                skipped = await mediad.metric("mediad_ticks_skipped_total")
                underruns = await mediad.metric("mediad_underrun_frames_total")
            await journal_empty(mediad, 30)
        rows = await read_rows(settings)
    skipped_s, stalls_s = skipped * FRAME_S / OUTAGE_CALLS, own.total_s()
    check_outage(Outage(mediad, talker, rows, skipped_s, underruns, machine, stalls_s))
