"""``mediad journal``: look into a journal, and bring what is in an orphaned one to the database."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import click
import uvloop

from mediad.config import Settings
from mediad.config_option import config_option, load
from mediad.errors import DatabaseUnavailable
from mediad.metrics import Metrics
from mediad.store.database import Database
from mediad.store.file_lock import holder
from mediad.store.journal import Journal
from mediad.store.journal_reader import Reader, Summary
from mediad.store.writer import Writer

__all__ = ["journal"]

_STEP_S = 0.2
_CLOSE_S = 10.0
_SHOWN = 20


@click.group(short_help="Look into a journal, or replay an orphaned one.")
def journal() -> None:
    """The journal holds what happened on calls until the database has it.

    Its file is journal.db in the directory that [database] directory names. It is orphaned when the
    mediad it belongs to does not run any more, on a machine or a volume that was given up.
    """


@journal.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(file: Path | None, config: Path | None, as_json: bool) -> None:
    """Say what waits in a journal: in FILE, or in that of the mediad with these settings. It may be
    in use.
    """
    file = file or load(config).database.journal_file
    if not file.exists():
        raise click.ClickException(f"there is no journal {file}")
    reader = Reader(file)
    try:
        summary = reader.summary()
    finally:
        reader.close()
    process = holder(file)
    if as_json:
        click.echo(json.dumps(_document(summary, process), indent=2))
    else:
        click.echo(f"{file}:\n  " + "\n  ".join(_lines(summary, process)))


@journal.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
def replay(file: Path, config: Path | None) -> None:
    """Write what waits in an orphaned journal into the database.

    Copy journal.db together with journal.db-wal, if there is one: what is newest is in there. Calls
    that are open in it are ended. What the database has already is left as it is, so it does
    no harm to replay a journal twice, or a copy of it.
    """
    uvloop.run(_replay(file, load(config)))


def _document(summary: Summary, process: int | None) -> dict[str, object]:
    return {
        "process": process,
        "facts": summary.waiting.facts,
        "bytes": summary.waiting.size_bytes,
        "oldest": summary.oldest.isoformat() if summary.oldest else None,
        "open_calls": summary.open_calls,
        "rejected": [rejected._asdict() for rejected in summary.rejected],
    }


def _lines(summary: Summary, process: int | None) -> Iterable[str]:
    yield "not in use" if process is None else f"in use by process {process or 'unknown'}"
    facts, size_bytes = summary.waiting
    yield f"facts that wait: {facts} ({size_bytes} bytes)"
    if summary.oldest:
        yield f"the oldest: {summary.oldest.isoformat(timespec='seconds')}"
    yield f"calls that are open: {summary.open_calls}"
    yield f"facts that the database refused: {len(summary.rejected)}"
    for position, reason in summary.rejected[-_SHOWN:]:
        yield f"  {position}: {reason}"


async def _replay(file: Path, settings: Settings) -> None:
    Reader(file).close()  # refuses what is no journal, before one is made of it
    metrics = Metrics()
    database = Database(settings.database, metrics)
    try:
        await database.open()
        orphan = Journal(file, settings.journal.max_bytes, settings.journal.fsync, metrics)
        ended = orphan.open()
        try:
            click.echo(f"calls ended: {ended}")
            await _move(orphan, database, metrics)
        finally:
            orphan.close(_CLOSE_S)
    finally:
        await database.close()


async def _move(orphan: Journal, database: Database, metrics: Metrics) -> None:
    total = orphan.depth
    writer = Writer(orphan, database, _keep_copies, lambda _: None, metrics)
    is_done = False
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run())
        with click.progressbar(length=total, label="facts") as bar:
            while not is_done and writer.problem is None:
                is_done = await writer.drain(_STEP_S)
                bar.update(total - orphan.depth - bar.pos)
        task.cancel()
    if not is_done:
        raise DatabaseUnavailable(f"{writer.problem}; {orphan.depth} facts stay in the journal")
    click.echo(f"facts written: {total}, of which {writer.rejected} were refused and put aside")


async def _keep_copies(_: Iterable[str]) -> None:
    """Drop no cached call: of an orphan's calls there are hardly any, and none for a minute."""
