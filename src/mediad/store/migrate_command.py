"""``mediad migrate``: bring the database's tables to this version."""

import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
import uvloop
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad.config import Database
from mediad.config_option import config_option, load
from mediad.errors import ConfigError
from mediad.store import schema
from mediad.store.engine import database_url, make_directory, make_engine
from mediad.store.failures import misconfigured, unavailable

__all__ = ["migrate"]


@click.command(short_help="Bring the database's tables to this version.")
@config_option
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 if something is to do.")
@click.option("--sql", is_flag=True, help="Change nothing; print the statements that would run.")
def migrate(config: Path | None, check: bool, sql: bool) -> None:
    """Make the tables in MySQL or MariaDB, or bring them to this version.

    Run it before the first start, and after each update before the new mediad starts. The mediad
    before may run meanwhile, for it keeps working with the new tables; but stop it before the step
    to 0004: what it changes after that is in no chain of the audit log. There is no way back but a
    backup. The embedded SQLite needs no migrate; it is at home when mediad starts.
    """
    if check and sql:
        raise click.UsageError("--check and --sql exclude each other")
    settings = load(config).database
    # The servers' remarks, such as that they ignore the name of a primary key.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    if sql:
        uvloop.run(_print_sql(settings))
    elif check:
        if problem := uvloop.run(_read_state(settings)).problem:
            raise click.ClickException(f"{_name(settings)}: {problem}")
        click.echo(f"{_name(settings)}: nothing to do")
    else:
        uvloop.run(_migrate(settings))


async def _print_sql(settings: Database) -> None:
    async with _connect(settings) as connection:
        await connection.run_sync(schema.write_sql, sys.stdout)


async def _read_state(settings: Database) -> schema.State:
    async with _connect(settings) as connection:
        return await connection.run_sync(schema.read_state)


async def _migrate(settings: Database) -> None:
    async with _connect(settings) as connection:
        state = await connection.run_sync(schema.read_state)
        whats = dict(state.missing)
        click.echo(
            f"{_name(settings)}: version {state.version or 'none'}, {state.needed} is needed"
        )
        since = time.monotonic()

        def show(version: str) -> None:
            nonlocal since
            now = time.monotonic()
            click.echo(f"{version} {whats[version]} ({now - since:.1f} s)")
            since = now

        try:
            await connection.run_sync(schema.upgrade, show)
        except DBAPIError as exc:
            raise click.ClickException(_stopped(exc, connection)) from exc
    click.echo("done" if whats else "nothing to do")


def _stopped(error: DBAPIError, connection: AsyncConnection) -> str:
    message = f"stopped: {unavailable(error) or error.orig}"
    if connection.dialect.name != "mysql":
        return f"{message}; nothing has changed"
    return (
        f"{message}; what the last step did until then stays (MySQL cannot undo it): restore the "
        "backup, or an empty database, before you try again"
    )


@asynccontextmanager
async def _connect(settings: Database) -> AsyncIterator[AsyncConnection]:
    """Connect without the limits that a request has: an ALTER TABLE may take hours."""
    if settings.url is None:
        make_directory(settings.state_directory)
    engine = make_engine(settings)
    try:
        async with engine.connect() as connection:
            yield connection
    except DBAPIError as exc:
        if problem := misconfigured(exc):
            raise ConfigError(f"[database] url: {problem}") from exc
        raise click.ClickException(f"{_name(settings)}: {unavailable(exc) or exc.orig}") from exc
    finally:
        await engine.dispose()


def _name(settings: Database) -> str:
    """Return where the database is, without its password."""
    url: URL = database_url(settings)
    return f"{url.database} on {url.host}:{url.port or 3306}" if url.host else str(url.database)
