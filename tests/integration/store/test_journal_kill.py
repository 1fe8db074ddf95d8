"""kill -9 at any moment: what was offered a little before is in the database once, and every call
ends once.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from mediad import config
from mediad.errors import JournalError
from mediad.metrics import Metrics
from mediad.store.database import Database
from mediad.store.file_lock import holder
from mediad.store.journal import Journal
from mediad.store.tables import calls, events, transcripts
from mediad.store.writer import Writer
from tests.own_stalls import watch_own_loop

ROUNDS = 20
SAFE_S = 0.1
ROOT = Path(__file__).parents[3]


class Children:
    """Forks processes that use a journal, and kills them."""

    def __init__(self, path: Path, settings: config.Database) -> None:
        shown = {"directory": str(settings.directory)}
        if settings.url:
            shown["url"] = settings.url.get_secret_value()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.journal_child", str(path), json.dumps(shown)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.lines: list[list[str]] = []

    def start(self, name: str) -> int:
        """Start a child; return its number."""
        assert self._process.stdin
        self._process.stdin.write(f"{name}\n")
        return int(self._read_until("child")[1])

    def kill(self, child: int) -> float:
        """Kill it and read all it said; return when it was killed, on the monotonic clock."""
        killed_at = time.monotonic()
        os.kill(child, signal.SIGKILL)
        self._read_until("dead")
        return killed_at

    def stop(self) -> None:
        """End them all."""
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.stdout
        self._process.stdout.close()
        assert self._process.wait(10) == 0

    def _read_until(self, word: str) -> list[str]:
        assert self._process.stdout
        while line := self._process.stdout.readline():
            self.lines.append(line.split())
            if self.lines[-1][0] == word:
                return self.lines[-1]
        raise AssertionError("the children's parent is gone")


@contextmanager
def running_children(path: Path, settings: config.Database) -> Iterator[Children]:
    children = Children(path, settings)
    try:
        yield children
    finally:
        children.stop()


async def drain(path: Path, database: Database) -> None:
    """Open the journal as the next start would, and write what is in it."""

    async def invalidate(_: Iterable[str]) -> None:
        pass

    metrics = Metrics()
    journal = Journal(path, 1 << 30, False, metrics)
    journal.open()
    writer = Writer(journal, database, invalidate, lambda _: None, metrics)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run())
        assert await writer.drain(20.0)
        task.cancel()
    journal.close(5.0)
    assert writer.rejected == 0


async def test_what_was_safe_is_there_once_and_every_call_ends_once(
    tmp_path: Path, settings: config.Database, database: Database
) -> None:
    path = tmp_path / "journal.db"
    expected: dict[str, str] = {}  # event ids and their types
    rng = random.Random(4)
    with running_children(path, settings) as children:
        for number in range(ROUNDS):
            child = children.start(str(number))
            begun = len(children.lines)
            async with watch_own_loop() as own:
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                # Where this process stood still, so did the child.
                while own.worst_s(time.monotonic() - SAFE_S) > SAFE_S / 2:  # noqa: ASYNC110
                    await asyncio.sleep(SAFE_S)
                killed_at = children.kill(child)
            for what, event_id, type_, *_, at in children.lines[begun:-1]:
                if what == "announced" or float(at) < killed_at - SAFE_S:
                    expected[event_id] = type_
    await drain(path, database)
    async with database.read() as connection:
        kept = (
            await connection.execute(select(events.c.id, events.c.type, events.c.call_id))
        ).all()
        rows = (await connection.execute(select(transcripts.c.id))).scalars().all()
        statuses = (await connection.execute(select(calls.c.id, calls.c.status))).all()
    assert len(expected) > 500
    assert expected.items() <= {row.id: row.type for row in kept}.items()
    said = {event_id for event_id, type_ in expected.items() if type_ == "transcript_created"}
    assert said <= set(rows)
    ends = Counter(row.call_id for row in kept if row.type == "call_hungup")
    assert ends == Counter(row.id for row in statuses)
    assert {row.status for row in statuses} == {"completed", "failed"}


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_other_process_is_refused_while_one_has_the_journal(
    tmp_path: Path, settings: config.Database
) -> None:
    path = tmp_path / "journal.db"
    with running_children(path, settings) as children:
        child = children.start("1")
        deadline = time.monotonic() + 5.0
        while holder(path) != child:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with pytest.raises(JournalError, match=f"in use by process {child}"):
            Journal(path, 1 << 30, False, Metrics()).open()
        children.kill(child)
        journal = Journal(path, 1 << 30, False, Metrics())
        journal.open()
        journal.close(5.0)
