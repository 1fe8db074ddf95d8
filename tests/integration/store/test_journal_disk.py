"""The journal on a disk that is full: facts wait in memory, and nobody notices but the health page.

The disk is played by the process's own limit on the size of files, which needs no root.
"""

import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mediad.errors import JournalError
from mediad.metrics import Metrics
from mediad.store.journal import Journal
from mediad.store.journal_format import describe
from tests.facts import CallFacts


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def wait(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.db", 1 << 30, False, Metrics())
    journal.open()
    yield journal
    journal.close(5.0)


def test_facts_wait_in_memory_while_the_disk_is_full(journal: Journal) -> None:
    call = CallFacts()
    facts = [call.said("x" * 100) for _ in range(3_000)]
    took_s = []
    with full_disk(200_000):
        for fact in facts:
            started = time.perf_counter()
            assert journal.offer(fact)
            took_s.append(time.perf_counter() - started)
        assert sorted(took_s)[-2] < 0.1  # in one of them all may have stood still
        wait(lambda: journal.problem)
        assert journal.queued > 0
        safe = journal.depth
        time.sleep(0.3)  # it tries again, and fails
        assert journal.problem is not None
        assert "wait in memory" in journal.problem
        assert [entry.event for entry in journal.read(3_000)] == facts[:safe]
    wait(lambda: journal.problem is None and journal.depth == len(facts))
    read = []
    while entries := journal.read(1_000):
        read += [entry.event for entry in entries]
        journal.done(entries[-1].position)
    assert read == facts


def test_disk_that_stays_full_is_enough_while_the_database_takes_the_facts(
    journal: Journal,
) -> None:
    call = CallFacts()
    kept = 0
    with full_disk(400_000):
        for _ in range(100):
            facts = [call.said("x" * 200) for _ in range(100)]
            assert all(journal.offer(fact) for fact in facts)
            wait(lambda: len(journal.read(1_000)) == 100)
            entries = journal.read(1_000)
            assert [entry.event for entry in entries] == facts
            journal.done(entries[-1].position)
            kept += len(entries)
        wait(lambda: journal.is_empty)
    assert kept == 10_000
    assert journal.problem is None


@pytest.mark.parametrize("size_bytes", [0, 8_000])
def test_journal_on_a_full_disk_is_refused_at_the_start(tmp_path: Path, size_bytes: int) -> None:
    with full_disk(size_bytes), pytest.raises(JournalError, match=r"journal\.db: cannot be"):
        Journal(tmp_path / "journal.db", 1 << 30, False, Metrics()).open()


def test_full_disk_is_called_one() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("PRAGMA max_page_count = 2")
    db.execute("CREATE TABLE a (x)")
    with pytest.raises(sqlite3.OperationalError) as caught:
        db.execute("INSERT INTO a VALUES (zeroblob(100000))")
    db.close()
    assert "disk is full" in describe(caught.value)
