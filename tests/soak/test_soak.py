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

from sqlalchemy import text

from mediad.config import Database as DatabaseSettings
from mediad.metrics import Metrics
from mediad.store.database import Database
from tests.books import Rows, as_environment, journal_empty, read_rows
from tests.machine import watch_machine
from tests.mediad_process import MediadProcess, run_mediad_as
from tests.own_stalls import watch_own_loop
from tests.soak.agents import RandomAgent
from tests.soak.callers import Made, make_calls

SEED = 20
MINUTES = float(os.environ.get("MINUTES", "1"))
IS_LONG = MINUTES >= 10
WARM_S = 120.0 if IS_LONG else MINUTES * 60 * 0.4
LIVE = 16  # calls at once
LONGEST_S = 12.0
LONGEST_WARM_S = 1.0  # many calls: the cache in the process fills, and every buffer has been used
MAX_GROWTH = 1.02 if IS_LONG else 1.05  # of memory: a minute is too short to fill the cache
MAX_JOURNAL_GROWTH = 1.5  # its file keeps the size of its fullest moment, which is random
REST_S = 4.0  # until what is over has been put away
GAP_S = 0.25  # between two messages to a caller, of a machine that does other things as well


class Left(NamedTuple):
    """What a mediad without calls holds."""

    rss_kib: int
    descriptors: int
    threads: int
    tasks: int
    journal_bytes: int


async def metrics_of(mediad: MediadProcess) -> dict[str, float]:
    """Return what /metrics shows; samples with labels are summed."""
    found: dict[str, float] = {}
    for line in (await mediad.get("/metrics")).splitlines():
        if line.startswith("mediad_"):
            name, value = line.rsplit(" ", 1)
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


async def at_rest(mediad: MediadProcess, directory: Path) -> Left:
    """Wait until all is put away; return what is left."""
    async with asyncio.timeout(30):
        while await mediad.metric("mediad_calls"):  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.1)
    await journal_empty(mediad, 30)
    await asyncio.sleep(REST_S)
    left = look(mediad.pid, directory, await metrics_of(mediad))
    print(left)
    return left


def look(pid: int, directory: Path, metrics: dict[str, float]) -> Left:
    """Return what a process holds."""
    process = Path(f"/proc/{pid}")
    return Left(
        int(metrics["mediad_test_resident_kib"]),
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


async def test_soak(tmp_path: Path) -> None:
    settings = DatabaseSettings(directory=tmp_path)
    made: list[Made] = []
    rng = random.Random(SEED)
    async with (
        RandomAgent(SEED) as agent,
        run_mediad_as(
            "tests.soak.watched_mediad",
            agent.url,
            ai__reconnect_s="3",
            ai__connect_timeout_s="3",
            ai__ping_s="1",
            audiosocket__playout_max_s="10",
            **as_environment(settings),
        ) as mediad,
    ):

        async def call_for(seconds: float, longest_s: float) -> None:
            until = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(LIVE):
                    own = random.Random(rng.random())
                    group.create_task(make_calls(mediad.audiosocket, own, longest_s, until, made))

        await call_for(WARM_S, LONGEST_WARM_S)
        before = await at_rest(mediad, tmp_path)
        warm = len(made)
        async with watch_machine() as machine, watch_own_loop() as own:
            await call_for(MINUTES * 60 - WARM_S, LONGEST_S)
        after = await at_rest(mediad, tmp_path)
        metrics = await metrics_of(mediad)
        assert await mediad.stop() == 0
    check_left(before, after)
    check_books(made, await read_rows(settings), metrics)
    check_counters(made, await read_counters(settings))
    gaps = [call.longest_gap_s for call in made[warm:]]
    print(f"{len(made)} calls, longest gap {max(gaps):.3f} s, own stalls {own.worst_s():.3f} s")
    assert max(gaps) < GAP_S + machine.worst_s + own.worst_s()
    log = "".join(mediad.log)
    assert "Traceback" not in log
    assert " ERROR " not in log


def check_left(before: Left, after: Left) -> None:
    """Check that nothing has grown."""
    assert after.rss_kib <= before.rss_kib * MAX_GROWTH
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert 0 < after.tasks <= before.tasks
    assert after.journal_bytes <= before.journal_bytes * MAX_JOURNAL_GROWTH


def check_books(made: list[Made], rows: Rows, metrics: dict[str, float]) -> None:
    """Check that every call is in the database with one end, and that the metrics say the same."""
    unknown = [call for call in made if call.call_id not in rows.calls]
    assert not unknown, (unknown, metrics)
    assert rows.calls == {call.call_id for call in made}
    assert rows.ends.keys() == rows.calls
    assert set(rows.ends.values()) == {1}
    assert rows.open_calls == []
    assert rows.sequences == list(range(1, len(rows.sequences) + 1))
    assert all(offsets == sorted(offsets) for offsets in rows.offsets.values())
    assert metrics["mediad_calls_started_total"] == len(made)
    assert metrics["mediad_calls_ended_total"] == len(made)


def check_counters(made: list[Made], counters: dict[str, dict[str, int]]) -> None:
    """Check that mediad had what callers sent, and sent what they heard."""
    for call in made:
        kept = counters[call.call_id]
        sent = kept["played_frames"] + kept["silent_frames"]
        assert call.heard <= sent, call
        if call.is_whole:
            assert kept["caller_messages"] == call.messages, call
