"""``mediad journal``: what an orphaned journal has in it, and how that gets to the database."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from mediad import config
from mediad.bus.events import Event
from mediad.metrics import Metrics
from mediad.store import events
from mediad.store.database import Database
from mediad.store.journal import Journal
from mediad.store.journal_command import journal as command
from mediad.store.tables import calls
from tests.facts import CallFacts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orphan" / "journal.db"


@pytest.fixture
def settings_file(settings: config.Database, tmp_path: Path) -> Path:
    """Settings that name the database."""
    lines = ["[database]", f"directory = {json.dumps(str(tmp_path))}"]
    if settings.url:
        lines.append(f"url = {json.dumps(settings.url.get_secret_value())}")
    path = tmp_path / "mediad.toml"
    path.write_text("\n".join(lines))
    return path


@contextmanager
def opened(path: Path) -> Iterator[Journal]:
    journal = Journal(path, 1 << 30, False, Metrics())
    journal.open()
    try:
        yield journal
    finally:
        journal.close(5.0)


def orphan(path: Path) -> list[Event]:
    """Leave a journal with a call that ended, and one that did not; return the facts."""
    whole, begun = CallFacts().whole(), CallFacts()
    facts = [*whole, begun.created(), begun.started(), begun.said("are you there?")]
    with opened(path) as journal:
        assert all(journal.offer(fact) for fact in facts)
    return facts


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def show(path: Path) -> dict[str, Any]:
    result = run("status", path, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.output)
    return document


async def kept(settings: config.Database) -> tuple[list[Event], dict[str, str]]:
    """Return the events, and the calls with their status."""
    database = Database(settings, Metrics())
    await database.open()
    async with database.read() as connection:
        found = await events.after(connection, "default", 0, 1_000)
        rows = await connection.execute(select(calls.c.id, calls.c.status))
        statuses = {row.id: row.status for row in rows}
    await database.close()
    return found, statuses


def test_status_says_what_waits_and_changes_nothing(path: Path) -> None:
    facts = orphan(path)
    before = path.read_bytes()
    for _ in range(2):
        shown = show(path)
        assert shown.pop("bytes") > 1_000
        assert shown == {
            "process": None,
            "facts": len(facts),
            "oldest": facts[0].timestamp.isoformat(),
            "open_calls": 1,
            "rejected": [],
        }
    assert path.read_bytes() == before
    result = run("status", path)
    assert "not in use" in result.output
    assert "facts that wait: 10" in result.output
    assert "calls that are open: 1" in result.output


def test_status_of_a_journal_in_use_says_by_whom(path: Path) -> None:
    with opened(path):
        assert show(path)["process"] == os.getpid()
        assert f"in use by process {os.getpid()}" in run("status", path).output


def test_status_names_what_was_refused(path: Path) -> None:
    orphan(path)
    with opened(path) as journal:
        journal.reject(2, "too strange")
        journal.done(2)
    assert show(path)["rejected"] == [{"position": 2, "reason": "too strange"}]
    assert "2: too strange" in run("status", path).output


def test_replay_brings_facts_to_the_database_and_ends_open_calls(
    path: Path, settings: config.Database, settings_file: Path
) -> None:
    facts = orphan(path)
    result = run("replay", path, "--config", settings_file)
    assert result.exit_code == 0, result.output
    assert "calls ended: 1" in result.output
    assert "facts written: 12" in result.output
    found, statuses = asyncio.run(kept(settings))
    assert [event.event_id for event in found][: len(facts)] == [fact.event_id for fact in facts]
    assert [event.type for event in found][len(facts) :] == ["transcribe_done", "call_hungup"]
    assert statuses == {facts[0].call_id: "completed", facts[-1].call_id: "failed"}
    assert show(path)["facts"] == 0


def test_second_replay_changes_nothing_nor_does_that_of_a_copy(
    path: Path, settings: config.Database, settings_file: Path
) -> None:
    orphan(path)
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    assert run("replay", path, "--config", settings_file).exit_code == 0
    before = asyncio.run(kept(settings))
    for again in (path, copy):
        result = run("replay", again, "--config", settings_file)
        assert result.exit_code == 0, result.output
        assert asyncio.run(kept(settings)) == before


def test_replay_of_a_journal_in_use_is_refused(
    path: Path, settings: config.Database, settings_file: Path
) -> None:
    with opened(path):
        result = run("replay", path, "--config", settings_file)
    assert "in use by process" in str(result.exception)


def test_journal_is_left_as_it_is_when_the_database_is_away(path: Path, tmp_path: Path) -> None:
    orphan(path)
    before = path.read_bytes()
    settings_file = tmp_path / "mediad.toml"
    settings_file.write_text('[database]\nurl = "mysql://nobody@127.0.0.1:1/nothing"\n')
    result = run("replay", path, "--config", settings_file)
    assert result.exit_code != 0
    assert path.read_bytes() == before


def test_no_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert "is empty" in str(run("status", tmp_path / "empty").exception)
    assert "there is no journal" in str(run("status", tmp_path / "missing").output)
