"""The results as a person or a program reads them."""

import json
from contextlib import aclosing

import click

from mediad.speech.check.suite import Result, check_service
from mediad.wire.service import Role

__all__ = ["report"]

_MARKS = {"passed": ("ok", "green"), "failed": ("FAIL", "red"), "skipped": ("-", "yellow")}


async def report(url: str, role: Role, *, as_json: bool) -> bool:
    """Check a service and print what comes of it; tell whether it has passed."""
    results: list[Result] = []
    async with aclosing(check_service(url, role)) as checks:
        async for result in checks:
            results.append(result)
            if not as_json:
                _print(result)
    passed = all(result.result == "passed" for result in results)
    if as_json:
        checked = [result.as_dict() for result in results]
        click.echo(json.dumps({"url": url, "role": role, "passed": passed, "checks": checked}))
    else:
        bad = sum(result.result != "passed" for result in results)
        click.echo(f"{len(results)} checks, {bad or 'none'} not passed")
    return passed


def _print(result: Result) -> None:
    mark, colour = _MARKS[result.result]
    click.echo(f"{click.style(f'{mark:4}', fg=colour)} {result.name:14} {result.detail}")
    if result.advice:
        click.echo(f"     {'':14} → {result.advice}")
