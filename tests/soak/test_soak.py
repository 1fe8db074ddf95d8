"""Random calls with random agents for some minutes: then nothing is left over, and every book is
closed. ``MINUTES`` in the environment says for how long; `make soak` takes 20.
"""

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from mediad.config import Database as DatabaseSettings
from mediad.metrics import Metrics
from mediad.store.database import Database
from tests.books import as_environment, journal_empty, read_rows
from tests.machine import watch_machine
from tests.mediad_process import MediadProcess, run_mediad_as
from tests.own_stalls import watch_own_loop
from tests.soak.agents import RandomAgent
from tests.soak.callers import Made, make_calls
from tests.soak.check import check_books, check_counters, totals
from tests.soak.watching import Tell, out_of_reach, printing_to, resident_kib, telling_progress

SEED = 20
MINUTES = float(os.environ.get("MINUTES", "1"))
IS_LONG = MINUTES >= 10
WARM_S = 120.0 if IS_LONG else MINUTES * 60 * 0.4
LIVE = 16  # calls at once
LONGEST_S = 12.0
LONGEST_WARM_S = 1.0  # at first, many calls: the cache in the process fills
READERS = 50  # of the API, at once: every connection to the database that there may be is there
MAX_GROWTH = 1.02 if IS_LONG else 1.05  # of memory: a minute is too short to fill the cache
MAX_LATE_THREADS = 6  # a pool starts each when it is first needed: asyncio's, of two cores
MAX_JOURNAL_GROWTH = 1.5  # its file keeps the size of its fullest moment, which is random
REST_S = 4.0  # until what is over has been put away
GAP_S = 0.25  # between two messages to a caller, of a machine that does other things as well


class Left(NamedTuple):
    """What a mediad without calls holds."""

    resident_kib: int
    blocks: int
    """Of memory, as Python counts: if these are no more, what has grown is not Python's."""
    descriptors: int
    threads: int
    tasks: int
    journal_bytes: int


async def at_rest(mediad: MediadProcess, directory: Path) -> Left:
    """Wait until all is put away; return what is left."""
    async with asyncio.timeout(30):
        while await mediad.metric("mediad_calls"):  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.1)
    await journal_empty(mediad, 30)
    await asyncio.sleep(REST_S)
    return look(mediad.pid, directory, totals(await mediad.get("/metrics")))


def look(pid: int, directory: Path, metrics: dict[str, float]) -> Left:
    """Return what a process holds."""
    process = Path(f"/proc/{pid}")
    return Left(
        resident_kib(pid),
        int(metrics["mediad_test_blocks"]),
        len(os.listdir(process / "fd")),
        len(os.listdir(process / "task")),
        int(metrics["mediad_test_tasks"]),
        sum(path.stat().st_size for path in directory.glob("journal.db*")),
    )


async def read_counters(settings: DatabaseSettings) -> dict[str, dict[str, int]]:
    """Return the counters of each call in the database."""
    database = Database(settings, Metrics())
    await database.open()
    try:
        async with database.read() as connection:
            statement = text("SELECT id, counters FROM calls")
            rows: Any = await connection.execute(statement)
            return {call_id: json.loads(counters) for call_id, counters in rows}
    finally:
        await database.close()


async def read_at_once(mediad: MediadProcess, directory: Path) -> None:
    """Ask for the calls, many times at once."""
    key = (directory / "access_key").read_text().strip()
    head = ("GET /v1/calls HTTP/1.1", "Host: mediad", f"AccessKey: {key}", "Connection: close")
    request = "\r\n".join((*head, "", ""))

    async def read() -> bytes:
        reader, writer = await asyncio.open_connection(*mediad.http)
        writer.write(request.encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    answers = await asyncio.gather(*(read() for _ in range(READERS)))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


# It takes twenty minutes, and allows for standstills itself.
@pytest.mark.flaky(reruns=0)
async def test_soak(tmp_path: Path) -> None:
    with printing_to(tmp_path / "mediad.log") as tell:
        tell(f"\nsoaking for {MINUTES:g} minutes; mediad's log is {tmp_path / 'mediad.log'}")
        await soak(DatabaseSettings(directory=tmp_path), tmp_path, tell)


async def soak(settings: DatabaseSettings, directory: Path, tell: Tell) -> None:
    """Make calls, and check what is left of them."""
    made: list[Made] = []
    rng = random.Random(SEED)
    async with (
        RandomAgent(SEED) as agent,
        out_of_reach(
            run_mediad_as(
                "tests.soak.watched_mediad",
                agent.url,
                ai__reconnect_s="3",
                ai__connect_timeout_s="3",
                ai__ping_s="1",
                audiosocket__playout_max_s="10",
                **as_environment(settings),
            )
        ) as mediad,
    ):

        async def call_for(seconds: float, longest_s: float) -> None:
            until = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(LIVE):
                    own = random.Random(rng.random())
                    group.create_task(make_calls(mediad.audiosocket, own, longest_s, until, made))

        async with telling_progress(tell, MINUTES, mediad.pid, lambda: len(made)):
            await read_at_once(mediad, directory)
            await call_for(WARM_S / 2, LONGEST_WARM_S)
            await call_for(WARM_S / 2, LONGEST_S)
            before = await at_rest(mediad, directory)
            tell(f"warm: {before}")
            warm = len(made)
            async with out_of_reach(watch_machine()) as machine, watch_own_loop() as own:
                await call_for(MINUTES * 60 - WARM_S, LONGEST_S)
            after = await at_rest(mediad, directory)
            tell(f"over: {after}")
        metrics = await mediad.get("/metrics")
        assert await mediad.stop() == 0
    unread = check_books(made, await read_rows(settings), metrics)
    check_counters(made, await read_counters(settings))
    gaps = [call.longest_gap_s for call in made[warm:]]
    tell(f"{len(made)} calls, {len(unread)} of them gone before mediad read their UUID")
    tell(f"longest gap {max(gaps):.3f} s; stood still: {machine.worst_s:.3f}, {own.worst_s():.3f}")
    assert max(gaps) < GAP_S + machine.worst_s + own.worst_s()
    log = "".join(mediad.log)
    assert "Traceback" not in log
    assert " ERROR " not in log
    check_left(before, after)


def check_left(before: Left, after: Left) -> None:
    """Check that nothing has grown."""
    assert after.resident_kib <= before.resident_kib * MAX_GROWTH
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads + MAX_LATE_THREADS
    assert 0 < after.tasks <= before.tasks
    assert after.journal_bytes <= before.journal_bytes * MAX_JOURNAL_GROWTH
