"""Runs the checks one after the other and tells what came of each."""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

from mediad.speech.check.checks import CHECKS, RULES, Check
from mediad.speech.check.peer import Failed, Late, Target
from mediad.wire.service import Role

__all__ = ["Result", "check_service"]

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check."""

    name: str
    result: Literal["passed", "failed", "skipped"]
    detail: str = ""
    advice: str = ""
    """What to do about it."""

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return asdict(self)


async def check_service(url: str, role: Role) -> AsyncGenerator[Result]:
    """Yield a result as soon as it is known. If the service does not get ready, all else waits."""
    target = Target(url, role)
    ready = True
    for check in CHECKS:
        if role not in check.roles:
            continue
        if not ready:
            yield Result(check.name, "skipped", "the service does not get ready")
            continue
        started = time.monotonic()
        try:
            await _run(check, target)
        except Failed as exc:
            ready = check is not CHECKS[0]
            yield Result(check.name, "failed", str(exc), check.advice)
        else:
            yield Result(check.name, "passed", f"{time.monotonic() - started:.2f} s")
    for result in _rules(target, ready):
        yield result


async def _run(check: Check, target: Target) -> None:
    """Run a check, and again if only time was missed: a machine that stands still for a second now
    and then does not do so three times in a row at the same place, a slow service does.
    """
    for _ in range(_TRIES - 1):
        with suppress(Late):
            return await check.run(target)
    await check.run(target)


def _rules(target: Target, ready: bool) -> Iterator[Result]:
    for rule in RULES:
        if target.role not in rule.roles:
            continue
        seen = [fault.detail for fault in target.faults if fault.rule == rule.name]
        if seen:
            more = f" (and {len(seen) - 1} more)" if len(seen) > 1 else ""
            yield Result(rule.name, "failed", seen[0] + more, rule.advice)
        elif ready:
            yield Result(rule.name, "passed", "in all of the above")
        else:
            yield Result(rule.name, "skipped", "the service does not get ready")
