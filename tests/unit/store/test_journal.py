"""The journal: what is offered is safe soon, stays until it is done, and stands in nobody's way."""

import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from mediad.bus.events import Event
from mediad.errors import JournalError
from mediad.metrics import Metrics
from mediad.store import fact_queue, journal_file
from mediad.store.file_lock import holder
from mediad.store.journal import MAX_FACT_BYTES, Journal
from mediad.store.journal_reader import Reader
from tests.facts import CallFacts

MAX_BYTES = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@contextmanager
def opened(
    path: Path,
    max_bytes: int = MAX_BYTES,
    fsync: bool = False,
    metrics: Metrics | None = None,
) -> Iterator[Journal]:
    journal = Journal(path, max_bytes, fsync, metrics or Metrics())
    journal.open()
    try:
        yield journal
    finally:
        journal.close(5.0)


def wait(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def offer(journal: Journal, *events: Event) -> None:
    """Offer facts and wait until they are safe."""
    depth = journal.depth
    assert all(journal.offer(event) for event in events)
    wait(lambda: journal.depth == depth + len(events) and not journal.queued)


def read(journal: Journal, limit: int = 100_000) -> list[Event]:
    return [entry.event for entry in journal.read(limit)]


@pytest.mark.parametrize("fsync", [False, True])
def test_facts_are_read_as_they_were_offered(path: Path, fsync: bool) -> None:
    facts = CallFacts(customer_id="customer-1").whole(200)
    with opened(path, fsync=fsync) as journal:
        offer(journal, *facts)
        assert read(journal) == facts


@pytest.mark.parametrize(("fsync", "synchronous"), [(False, "NORMAL"), (True, "FULL")])
def test_fsync_syncs_every_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool, synchronous: str
) -> None:
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **options)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    with opened(path, fsync=fsync):
        assert f"PRAGMA synchronous = {synchronous}" in statements


def test_facts_stay_until_they_are_done(path: Path) -> None:
    facts = CallFacts().whole()
    with opened(path) as journal:
        offer(journal, *facts)
        entries = journal.read(3)
        assert [entry.event for entry in entries] == facts[:3]
        assert read(journal, 3) == facts[:3]
        journal.done(entries[-1].position)
        assert read(journal) == facts[3:]
        wait(lambda: journal.depth == len(facts) - 3)
        journal.done(journal.read(100)[-1].position)
        wait(lambda: journal.is_empty)
        assert journal.size_bytes == 0
        assert read(journal) == []


def test_facts_survive_the_process(path: Path) -> None:
    facts = CallFacts().whole()
    with opened(path) as journal:
        offer(journal, *facts[:4])
        assert all(journal.offer(fact) for fact in facts[4:])  # closing waits for these
    with opened(path) as journal:
        assert read(journal) == facts
        assert journal.depth == len(facts)


def test_positions_go_on_where_they_were(path: Path) -> None:
    facts = CallFacts().whole()
    with opened(path) as journal:
        offer(journal, *facts)
        journal.done(journal.read(100)[-2].position)
    with opened(path) as journal:
        offer(journal, CallFacts().digit())
        assert [event.type for event in read(journal)] == ["call_hungup", "dtmf_received"]


def test_says_when_facts_are_safe(path: Path) -> None:
    depths: list[int] = []
    with opened(path) as journal:
        journal.on_safe = lambda: depths.append(journal.depth)
        offer(journal, *CallFacts().whole())
        wait(lambda: depths and depths[-1] == 7)


def test_calls_left_open_are_ended_once(path: Path) -> None:
    whole, left = CallFacts(), CallFacts()
    begun = [left.created(), left.started(), left.said("hello")]
    with opened(path) as journal:
        offer(journal, *whole.whole(), *begun)
    for ended in (1, 0):
        journal = Journal(path, MAX_BYTES, False, Metrics())
        assert journal.open() == ended
        facts = [event for event in read(journal) if event.call_id == left.call_id]
        journal.close(5.0)
        assert facts[:3] == begun
        assert [event.type for event in facts[3:]] == ["transcribe_done", "call_hungup"]
        assert facts[-1].timestamp == begun[-1].timestamp
        assert facts[-1].data["duration_s"] == 2.0


def test_call_that_ended_in_the_same_group_is_not_open(path: Path) -> None:
    with opened(path) as journal:
        for _ in range(20):
            offer(journal, *CallFacts().whole())
    journal = Journal(path, MAX_BYTES, False, Metrics())
    assert journal.open() == 0
    journal.close(5.0)


def test_refused_fact_is_put_aside_with_its_reason(path: Path) -> None:
    facts = CallFacts().whole()
    with opened(path) as journal:
        offer(journal, *facts)
        entries = journal.read(100)
        journal.reject(entries[2].position, "too strange")
        journal.done(entries[-1].position)
        wait(lambda: journal.is_empty)
        with closing(Reader(path)) as reader:
            (rejected,) = reader.summary().rejected
    assert (rejected.position, rejected.reason) == (entries[2].position, "too strange")


def test_only_the_newest_refused_facts_are_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "MAX_REJECTED", 2)
    with opened(path) as journal:
        offer(journal, *CallFacts().whole())
        entries = journal.read(4)
        for entry in entries:
            journal.reject(entry.position, "strange")
        journal.done(entries[-1].position)
        wait(lambda: journal.depth == 3)
        with closing(Reader(path)) as reader:
            kept = [rejected.position for rejected in reader.summary().rejected]
    assert kept == [entry.position for entry in entries[2:]]


def test_row_that_is_no_fact_does_not_stand_in_the_way(path: Path) -> None:
    facts = CallFacts().whole()
    with opened(path) as journal:
        offer(journal, *facts)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE facts SET fact = '{' WHERE position <= 2")
    with opened(path) as journal:
        assert read(journal, 2) == facts[2:4]
        assert read(journal) == facts[2:]


@pytest.mark.parametrize(
    "bad",
    [
        Event("dtmf_received", "c", 0.0, {"digit": object()}),
        Event("dtmf_received", "c", float("nan")),
        Event("dtmf_received", "c", 0.0, {"digit": "5" * MAX_FACT_BYTES}),
    ],
    ids=["no JSON", "no number", "too large"],
)
def test_fact_that_cannot_be_written_down_is_refused_alone(path: Path, bad: Event) -> None:
    facts = CallFacts().whole()
    with opened(path) as journal:
        assert journal.offer(bad)
        offer(journal, *facts)
        assert read(journal) == facts
        assert (journal.refused, journal.problem) == (1, None)


def test_full_file_fills_the_memory_and_then_facts_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fact_queue, "MAX_QUEUED", 50)
    call = CallFacts()
    metrics = Metrics()
    with opened(path, max_bytes=5_000, metrics=metrics) as journal:
        taken = []
        while journal.offer(event := call.said("hello")):
            taken.append(event)
            time.sleep(0.001)
        assert 5_000 <= journal.size_bytes < 5_500
        assert journal.queued == 50
        assert journal.refused == 1
        refused = "mediad_journal_refused_facts_total"
        assert metrics.registry.get_sample_value(refused, {"reason": "full"}) == 1
        assert journal.problem is not None
        assert "max_bytes" in journal.problem
        kept: list[Event] = []
        while len(kept) < len(taken):  # the database is back
            wait(lambda: journal.read(1))
            entries = journal.read(10)
            kept += [entry.event for entry in entries]
            journal.done(entries[-1].position)
        assert kept == taken
        wait(lambda: journal.is_empty)
        assert journal.problem is None


def test_closed_journal_refuses(path: Path) -> None:
    metrics = Metrics()
    journal = Journal(path, MAX_BYTES, False, metrics)
    assert not journal.offer(CallFacts().digit())
    journal.open()
    journal.close(5.0)
    assert not journal.offer(CallFacts().digit())
    assert b'mediad_journal_refused_facts_total{reason="closed"} 2.0' in generate_latest(
        metrics.registry
    )


def test_offering_does_not_wait_for_the_file(path: Path) -> None:
    with opened(path) as journal, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the thread waits for this
        call = CallFacts()
        facts = [call.digit() for _ in range(1000)]
        took_s = []
        for fact in facts:
            started = time.perf_counter()
            assert journal.offer(fact)
            took_s.append(time.perf_counter() - started)
        assert sum(sorted(took_s)[:-1]) < 0.5  # in one of them all may have stood still
        assert journal.depth == 0
        other.execute("ROLLBACK")
        wait(lambda: journal.depth == 1000)
        assert read(journal) == facts


def test_failure_is_told_and_over_when_it_is_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    commit = journal_file.JournalFile.commit

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with opened(path) as journal:
        monkeypatch.setattr(journal_file.JournalFile, "commit", fail)
        facts = CallFacts().whole()
        assert all(journal.offer(fact) for fact in facts)
        wait(lambda: journal.problem)
        assert journal.problem is not None
        assert "disk I/O error" in journal.problem
        assert "7 facts wait in memory" in journal.problem
        monkeypatch.setattr(journal_file.JournalFile, "commit", commit)
        wait(lambda: journal.problem is None)
        assert read(journal) == facts
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_file_is_small_again_after_an_outage(path: Path) -> None:
    call = CallFacts()
    with opened(path) as journal:
        for _ in range(8):
            offer(journal, *(call.said("x" * 1_500) for _ in range(1_000)))
        assert path.stat().st_size > 12_000_000
        while entries := journal.read(1_000):
            journal.done(entries[-1].position)
        wait(lambda: path.stat().st_size < 5_000_000)
        wait(lambda: path.with_name("journal.db-wal").stat().st_size <= 4 << 20)
        offer(journal, call.said("after"))


def test_figures_are_shown(path: Path) -> None:
    metrics = Metrics()
    journal = Journal(path, MAX_BYTES, False, metrics)
    journal.open()
    offer(journal, *CallFacts().whole())
    journal.read(1)
    shown = generate_latest(metrics.registry).decode()
    journal.close(5.0)
    figures = dict(line.rsplit(" ", 1) for line in shown.splitlines() if not line.startswith("#"))
    assert figures["mediad_journal_facts"] == "7.0"
    assert figures["mediad_journal_queued_facts"] == "0.0"
    assert float(figures["mediad_journal_bytes"]) > 700
    assert float(figures["mediad_journal_oldest_seconds"]) > 0
    assert float(figures["mediad_journal_commit_seconds_count"]) >= 1


# What cannot be opened


def refusal(path: Path) -> str:
    """Return why a journal cannot be opened; it must leave nothing open behind."""
    with pytest.raises(JournalError) as caught:
        Journal(path, MAX_BYTES, False, Metrics()).open()
    assert holder(path) is None or "in use" in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_second_process_is_refused_and_told_who_has_it(path: Path) -> None:
    with opened(path):
        assert f"in use by process {os.getpid()}" in refusal(path)
        assert holder(path) == os.getpid()
        link = path.with_name("link.db")
        link.symlink_to(path)
        with pytest.raises(JournalError, match="in use"):
            Journal(link, MAX_BYTES, False, Metrics()).open()
    assert holder(path) is None


def test_damaged_file_is_refused(path: Path) -> None:
    with opened(path) as journal:
        offer(journal, *CallFacts().whole(1000))
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(16_384))
    assert "is damaged" in refusal(path)


def test_file_of_another_kind_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("[http]\nport = 8080\n" * 100)
    assert "no journal" in refusal(path)
    assert path.read_text().startswith("[http]")


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    assert "another program's database" in refusal(path)
    assert path.read_bytes() == before


def test_journal_of_a_newer_version_is_refused(path: Path) -> None:
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    assert "newer mediad" in refusal(path)


def test_directory_in_the_files_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    assert "cannot be" in refusal(path)


@contextmanager
def nobody() -> Iterator[Path]:
    """Be a user who may not write everywhere, with a directory that is readable."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        if os.geteuid():
            yield directory
            return
        os.seteuid(65534)
        try:
            yield directory
        finally:
            os.seteuid(0)


def test_directory_that_cannot_be_written_is_refused() -> None:
    with nobody() as directory:
        directory = directory if directory.stat().st_uid != os.geteuid() else Path("/proc")
        assert "cannot be" in refusal(directory / "journal.db")


def test_file_that_cannot_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "journal.db"
        with opened(path):
            pass
        Path(name).chmod(0o777)
        path.with_name("journal.db.lock").chmod(0o666)
        path.chmod(0o444)
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            assert "cannot be written" in refusal(path)
        finally:
            os.seteuid(user)
