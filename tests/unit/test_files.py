"""How many files mediad may need, by its settings."""

from typing import Any

import pytest

from mediad.config import Settings
from mediad.files import files_needed

MARIADB = "mysql://user@127.0.0.1/mediad"


def needed(**tables: Any) -> dict[str, int]:
    return files_needed(Settings.model_validate(tables))


@pytest.mark.parametrize("link", ["agent", "pipeline"])
def test_any_call_may_be_a_pipelines(link: str) -> None:
    one, two = (needed(ai={"link": link}, audiosocket={"max_calls": n}) for n in (1, 2))
    # The caller's, three services', and the next one's while a service is replaced.
    assert two["calls"] - one["calls"] == 5


@pytest.mark.parametrize(
    ("tables", "what", "files"),
    [
        ({"database": {"url": MARIADB, "pool_max": 700}}, "the database", 700),
        ({"database": {"url": "sqlite:////tmp/a.db", "pool_max": 700}}, "the database", 16),
        ({"redis": {"url": "redis://127.0.0.1"}}, "Redis", 21),
        ({}, "Redis", 0),
        ({"http": {"metrics_port": 8081}}, "HTTP", 800),
        ({}, "HTTP", 400),
        ({}, "webhooks", 512),
        ({}, "callers without a UUID yet", 1024),
    ],
)
def test_what_else_may_be_open_is_counted(tables: dict[str, Any], what: str, files: int) -> None:
    assert needed(**tables)[what] == files
