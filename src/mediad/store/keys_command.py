"""``mediad keys``: make, list, rotate and revoke access keys, in the database itself."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import uvloop
from pydantic import ValidationError

from mediad.config_option import config_option, load
from mediad.metrics import Metrics
from mediad.store import accesskeys, customers
from mediad.store.accesskeys import AccessKey, AccessKeyFields, KeyExpired, WithKey
from mediad.store.audit import Actor
from mediad.store.database import Database
from mediad.store.pages import MAX_LIMIT

__all__ = ["keys"]

_ACTOR = Actor("mediad keys")

T = TypeVar("T")

_customer = click.option(
    "--customer",
    default="default",
    show_default=True,
    help="Whose keys.",
    callback=lambda _context, _option, id: id.rstrip(),  # MariaDB would find the one without spaces
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_id = click.argument("id")


@click.group(short_help="Make, list, rotate and revoke access keys.")
def keys() -> None:
    """Manage the access keys of the API. mediad may run meanwhile; it knows a revoked key for 5 s
    more.
    """


@keys.command()
@config_option
@_customer
@_json
@click.option("--name", default="", help="What it is for.")
@click.option("--role", default="admin", show_default=True, help="viewer, operator, admin or root.")
@click.option("--allow", multiple=True, help="Network that it may be used from; may be repeated.")
def create(
    config: Path | None, customer: str, as_json: bool, name: str, role: str, allow: tuple[str, ...]
) -> None:
    """Make a key and print it. It is not shown again."""
    try:
        fields = AccessKeyFields.model_validate(
            {"name": name, "role": role, "allowed_ips": allow or None}
        )
    except ValidationError as exc:
        error = exc.errors()[0]
        raise click.UsageError(f"{error['loc'][0]}: {error['msg']}") from exc

    async def work(database: Database) -> WithKey:
        async with database.write() as connection:
            if await customers.get(connection, customer) is None:
                raise click.ClickException(f"there is no customer {customer}")
            return await accesskeys.create(connection, customer, fields, _ACTOR)

    _show(_run(config, work), as_json)


@keys.command("list")
@config_option
@_customer
@_json
def list_(config: Path | None, customer: str, as_json: bool) -> None:
    """List a customer's keys, newest first."""

    async def work(database: Database) -> list[AccessKey]:
        rows: list[AccessKey] = []
        token: str | None = None
        async with database.read() as connection:
            while True:
                page = await accesskeys.list_keys(
                    connection, customer, token=token, limit=MAX_LIMIT
                )
                rows += page.items
                if (token := page.next_token) is None:
                    return rows

    rows = _run(config, work)
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
        return
    for row in rows:
        end = f"until {row.tm_expire:%Y-%m-%d %H:%M}" if row.tm_expire else "for ever"
        click.echo(f"{row.id}  {row.prefix}…  {row.role:8}  {end}  {row.name}")


@keys.command()
@config_option
@_customer
@_json
@click.option(
    "--overlap",
    default=86_400,
    show_default=True,
    type=click.IntRange(0, 7 * 86_400),
    help="How long the old key is good, too, in seconds.",
)
@_id
def rotate(config: Path | None, customer: str, as_json: bool, overlap: int, id: str) -> None:
    """Make a key like this one, which ends after the overlap."""

    async def work(database: Database) -> WithKey | None:
        async with database.write() as connection:
            try:
                return await accesskeys.rotate(
                    connection, customer, id, changes={}, overlap_s=overlap, actor=_ACTOR
                )
            except KeyExpired as exc:
                raise click.ClickException(
                    f"the access key {id} has expired; see `mediad keys create`"
                ) from exc

    _show(_found(_run(config, work), customer, id), as_json)


@keys.command()
@config_option
@_customer
@_id
def revoke(config: Path | None, customer: str, id: str) -> None:
    """End a key."""

    async def work(database: Database) -> AccessKey | None:
        async with database.write() as connection:
            return await accesskeys.delete(connection, customer, id, _ACTOR)

    row = _found(_run(config, work), customer, id)
    click.echo(f"{row.id} {row.prefix}… is revoked")


def _run(config: Path | None, work: Callable[[Database], Awaitable[T]]) -> T:
    settings = load(config).database

    async def run() -> T:
        database = Database(settings, Metrics())
        try:
            await database.open()
            return await work(database)
        finally:
            await database.close()

    return uvloop.run(run())


def _show(made: WithKey, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**made.row.model_dump(mode="json"), "key": made.key}, indent=2))
    else:
        click.echo(made.key)


def _found(row: T | None, customer: str, id: str) -> T:
    if row is None:
        raise click.ClickException(
            f"the customer {customer} has no access key {id}; see `mediad keys list`"
        )
    return row
