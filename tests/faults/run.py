"""Runs cases, several at once: each has its own mediad, and mostly waits. Each failure is printed
with how long the machine stood still.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from tests.faults.cases import Case, Result, broken_promises
from tests.faults.scene import Scene
from tests.faults.servers import Servers, running_servers
from tests.machine import watch_machine
from tests.own_stalls import OwnStalls, watch_own_loop

__all__ = ["Outcome", "run_cases"]

_AT_ONCE = 4
_TRIES = 4
_CASE_S = 150.0
_STOOD_STILL_S = 0.05  # two frames and a half

Outcome = Result | BaseException
"""What was measured; an exception if the promise was not kept."""


class _Try(NamedTuple):
    outcome: Outcome
    stood_still_s: float

    @property
    def says_nothing(self) -> bool:
        """Whether it failed while the machine stood still.

        No bound is widened for that: mediad's own work holds cores, too, and would be forgiven with
        all else. What it does wrong by itself it does in every try.
        """
        return not isinstance(self.outcome, Result) and self.stood_still_s >= _STOOD_STILL_S


async def run_cases(cases: Sequence[Case]) -> dict[str, Outcome]:
    """Run cases; return, by their names, what came of them. Those whose try says nothing are run
    again after all others, one by one.
    """
    tries: dict[str, _Try] = {}
    async with watch_own_loop() as own, running_servers() as servers:
        await _run(cases, _AT_ONCE, tries, servers, own)
        for _ in range(_TRIES - 1):
            again = [case for case in cases if tries[case.name].says_nothing]
            await _run(again, 1, tries, servers, own)
    return {name: one.outcome for name, one in tries.items()}


async def _run(
    cases: Sequence[Case], at_once: int, tries: dict[str, _Try], servers: Servers, own: OwnStalls
) -> None:
    """Run cases, so many at once."""
    room = asyncio.Semaphore(at_once)

    async def run(case: Case) -> None:
        async with room:
            one = tries[case.name] = await _try(case, servers, own)
        still = f"all stood still for up to {1000 * one.stood_still_s:.0f} ms"
        print(f"{case.name}: {one.outcome!r}, {still}")
        if isinstance(one.outcome, BaseException):
            one.outcome.add_note(f"{case.name}, {still}")

    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(run(case))


async def _try(case: Case, servers: Servers, own: OwnStalls) -> _Try:
    """Run a case once."""
    scene = Scene()
    outcome: Outcome
    async with watch_machine() as machine:
        try:
            async with asyncio.timeout(_CASE_S):
                await case.run(scene, servers)
            outcome = _result(case, scene)
        except (Exception, asyncio.CancelledError) as exc:
            if hasattr(scene, "mediad"):
                exc.add_note("".join(scene.mediad.log[-50:]))
            outcome = exc
    return _Try(outcome, max(machine.worst_s, own.worst_s(scene.began_at)))


def _result(case: Case, scene: Scene) -> Result:
    """Return what was measured.

    Raises:
        AssertionError: If it is not what is promised.
    """
    subject_s = scene.subject_gap_s
    result = Result(
        None if subject_s is None else round(1000 * subject_s),
        scene.end,
        None if case.hits_all else round(1000 * scene.others_gap_s),
        len(scene.lost),
        scene.made,
    )
    broken = broken_promises(case, result) + scene.wrong + scene.lost[:20]
    assert not broken, broken
    return result
