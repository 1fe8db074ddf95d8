"""``mediad audit``: find out whether the audit log is as it was written."""

import json
import re
import sys
import time
from pathlib import Path

import click
import uvloop

from mediad.config import Settings
from mediad.config_option import config_option, load
from mediad.metrics import Metrics
from mediad.store.audit_chain import Head, Verdict, list_customers
from mediad.store.audit_chain import verify as walk
from mediad.store.database import Database

__all__ = ["audit"]

_TELL_S = 5.0
_HEAD = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


class _HeadType(click.ParamType[Head]):
    """An end of a chain, as it is printed."""

    name = "SEQUENCE:HASH"

    def convert(
        self, value: str, param: click.Parameter | None, context: click.Context | None
    ) -> Head:
        if not (found := _HEAD.fullmatch(value)):
            self.fail(f"{value!r} is no SEQUENCE:HASH, as verify prints it", param, context)
        return Head(int(found[1]), found[2])


@click.group(short_help="Check the audit log.")
def audit() -> None:
    """Check the audit log, which the API lists under /v1/audit_logs."""


@audit.command()
@config_option
@click.option("--customer", help="Only this customer's; without it, all.")
@click.option(
    "--expect",
    type=_HeadType(),
    help="An end that was printed before, and noted elsewhere: it must still be in the log.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each customer.")
def verify(config: Path | None, customer: str | None, expect: Head | None, as_json: bool) -> None:
    """Find entries of the audit log that were changed, removed or added.

    The entries of each customer are a chain: each has a number, and a hash over all that it has and
    over the hash of the one before. For each customer this says how many are good; then how the
    chain ends, as SEQUENCE:HASH, or which entry is the first that is not good, and why.

    Whoever may write everything in the database can hash a changed log anew, and cut off its end.
    Note the ends where nobody of these can write, and give them back later:

    \b
        mediad audit verify --customer default --expect 4711:9f86d08…

    mediad may run meanwhile. Exit status 0 if all is good, 1 if not, 2 if the database does not
    answer.
    """
    if expect is not None and customer is None:
        raise click.UsageError("--expect needs --customer: each has an end of its own")
    if not uvloop.run(_verify(load(config), customer, expect, as_json)):
        sys.exit(1)


async def _verify(
    settings: Settings, customer: str | None, expect: Head | None, as_json: bool
) -> bool:
    """Print what is found; return whether all is good."""
    database = Database(settings.database, Metrics())
    try:
        await database.open()
        is_good = True
        if customer is not None:
            return await _verify_one(database, customer, expect, as_json)
        is_empty = True
        async for one in list_customers(database):
            is_empty = False
            is_good &= await _verify_one(database, one, None, as_json)
        if is_empty:
            click.echo("there are no entries", err=True)
        return is_good
    finally:
        await database.close()


async def _verify_one(
    database: Database, customer: str, expect: Head | None, as_json: bool
) -> bool:
    told = time.monotonic()

    def tell(good: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            click.echo(f"{customer}: {good} so far", err=True)

    verdict = await walk(database, customer, expect, tell)
    if verdict.head and not verdict.good:
        raise click.ClickException(f"there is no audit log of a customer {customer}")
    click.echo(json.dumps(_document(verdict)) if as_json else _line(verdict))
    return verdict.broken is None


def _document(verdict: Verdict) -> dict[str, object]:
    head, broken = verdict.head, verdict.broken
    return {
        "customer_id": verdict.customer_id,
        "good": verdict.good,
        "head": head and head._asdict(),
        "broken": broken and broken._asdict(),
    }


def _line(verdict: Verdict) -> str:
    found = f"{verdict.customer_id}: {verdict.good} good"
    if verdict.head:
        return f"{found}, ends with {verdict.head.sequence}:{verdict.head.hash}"
    assert verdict.broken is not None
    sequence, how, why = verdict.broken
    return f"{found}, {how if sequence is None else f'number {sequence} is {how}'}: {why}"
