"""``mediad serve`` that cannot start: one clear line, exit status 2, nothing left running."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mariadb import MariaDb, running_mariadb

PASSWORD = "hunter2"


def serve(directory: Path, **settings: str) -> tuple[int, str]:
    """Run it; return its exit status and what it wrote."""
    environment = {
        "MEDIAD_AUDIOSOCKET__PORT": "0",
        "MEDIAD_HTTP__PORT": "0",
        "MEDIAD_DATABASE__DIRECTORY": str(directory),
    } | {f"MEDIAD_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "mediad", "serve"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def check(result: tuple[int, str], words: str) -> None:
    """It said what is wrong, and no more."""
    status, said = result
    assert status == 2, said
    assert words in said
    assert "Traceback" not in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"redis__url": f"redis://:{PASSWORD}@127.0.0.1:1/0?foo=bar"}, "[redis] url"),
        ({"database__url": f"mysql://a:{PASSWORD}@127.0.0.1/x?foo=bar"}, "options behind a ?"),
        ({"database__url": "sqlite:////proc/self/mediad.db"}, "[database] url"),
        ({"http__port": "1", "http__host": "192.0.2.1"}, "[http] cannot listen"),
        ({"http__metrics_port": "1", "http__metrics_host": "192.0.2.1"}, "'192.0.2.1', 1"),
    ],
    ids=["redis option", "database option", "database file", "port", "metrics port"],
)
def test_wrong_settings(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    check(serve(tmp_path, **settings), words)


def test_directory_that_cannot_be_written() -> None:
    check(serve(Path("/proc/self")), "let mediad's user write there")


def test_journal_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("this is no journal\n" * 100)
    check(serve(tmp_path), "journal.db")


def test_directory_is_nobody_elses(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    check(serve(directory, http__host="192.0.2.1"), "cannot listen")
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDb]:
    with running_mariadb() as server:
        yield server


def test_database_without_tables(tmp_path: Path, mariadb: MariaDb) -> None:
    check(serve(tmp_path, database__url=mariadb.new_database()), "mediad migrate")


def test_wrong_password(tmp_path: Path, mariadb: MariaDb) -> None:
    url = mariadb.url("mediad_x", password=PASSWORD)
    check(serve(tmp_path, database__url=url), "Access denied")
