"""What a mediad has written down, read from its database as a stranger does."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr
from sqlalchemy import text

from mediad.config import Database as DatabaseSettings
from mediad.metrics import Metrics
from mediad.store.database import Database
from tests.mediad_process import MediadProcess

__all__ = ["Rows", "as_environment", "journal_empty", "made_ready", "read_rows"]


class Rows(NamedTuple):
    """What the database has in the end."""

    transcripts: Counter[str]
    ends: Counter[str]
    """`call_hungup` events by call."""
    open_calls: list[str]
    calls: set[str]
    sequences: list[int]
    event_ids: set[str]
    hangups: dict[str, str]
    """By call: who ended it and why."""
    offsets: dict[str, list[int]]
    """By call: when its facts happened, in microseconds, in the order of their numbers."""


async def read_rows(settings: DatabaseSettings) -> Rows:
    """Read them."""
    database = Database(settings, Metrics())
    await database.open()
    try:
        async with database.read() as connection:

            async def column(query: str) -> list[Any]:
                return list((await connection.execute(text(query))).scalars())

            hangups = await connection.execute(
                text("SELECT id, hangup_by, hangup_cause FROM calls")
            )
            facts = await connection.execute(
                text("SELECT call_id, offset_us FROM events ORDER BY sequence")
            )
            offsets: dict[str, list[int]] = {}
            for call_id, offset_us in facts:
                offsets.setdefault(call_id, []).append(offset_us)
            return Rows(
                Counter(await column("SELECT message FROM transcripts")),
                Counter(await column("SELECT call_id FROM events WHERE type = 'call_hungup'")),
                await column("SELECT id FROM calls WHERE tm_hangup IS NULL"),
                set(await column("SELECT id FROM calls")),
                await column("SELECT sequence FROM events ORDER BY sequence"),
                set(await column("SELECT id FROM events")),
                {call_id: f"{by}, {cause}" for call_id, by, cause in hangups},
                offsets,
            )
    finally:
        await database.close()


async def journal_empty(mediad: MediadProcess, timeout_s: float) -> None:
    """Wait until the database has everything."""
    async with asyncio.timeout(timeout_s):
        # In the order in which facts go: into the journal, and out of it.
        for waiting in ("mediad_journal_queued_facts", "mediad_journal_facts"):
            while await mediad.metric(waiting):  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.1)


def as_environment(settings: DatabaseSettings) -> dict[str, str]:
    """Return settings as `run_mediad` takes them."""
    environment = {"database__directory": str(settings.directory)}
    if settings.url is not None:
        environment["database__url"] = settings.url.get_secret_value()
    return environment


async def made_ready(url: str, directory: Path) -> DatabaseSettings:
    """Make mediad's tables, as a person does."""
    settings = DatabaseSettings(directory=directory, url=SecretStr(url))
    environment = {
        f"MEDIAD_{name.upper()}": value for name, value in as_environment(settings).items()
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "migrate"), env=os.environ | environment
    )
    assert await process.wait() == 0
    return settings
