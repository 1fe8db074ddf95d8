"""Runs cases, several at once: each has its own mediad, and mostly waits."""

import asyncio
from collections.abc import Sequence

from tests.faults.cases import Case, Result, broken_promises
from tests.faults.scene import Scene
from tests.faults.servers import Servers, running_servers
from tests.machine import watch_machine
from tests.own_stalls import OwnStalls, watch_own_loop

__all__ = ["Outcome", "run_cases"]

_AT_ONCE = 4
_TRIES = 3
_CASE_S = 150.0
_STOOD_STILL_S = 0.05  # two frames and a half

Outcome = Result | BaseException
"""What was measured; an exception if the promise was not kept."""


async def run_cases(cases: Sequence[Case]) -> dict[str, Outcome]:
    """Run cases; return, by their names, what came of them."""
    room = asyncio.Semaphore(_AT_ONCE)
    outcomes: dict[str, Outcome] = {}

    async def run(case: Case, servers: Servers, own: OwnStalls) -> None:
        async with room:
            outcomes[case.name] = await _run(case, servers, own)

    async with (
        watch_own_loop() as own,
        running_servers() as servers,
        asyncio.TaskGroup() as group,
    ):
        for case in cases:
            group.create_task(run(case, servers, own))
    return outcomes


async def _run(case: Case, servers: Servers, own: OwnStalls) -> Outcome:
    """Run a case, and again if it fails while the machine stood still.

    No bound is widened for that: mediad's own work holds cores, too, and would be forgiven with all
    else. What it does wrong by itself it does in every try.
    """
    tries = 0
    while True:
        tries += 1
        outcome, stood_still_s = await _try(case, servers, own)
        still = f"try {tries}, all stood still for up to {1000 * stood_still_s:.0f} ms"
        print(f"{case.name}: {outcome!r}, {still}")
        if isinstance(outcome, Result):
            return outcome
        outcome.add_note(f"{case.name}, {still}")
        if stood_still_s < _STOOD_STILL_S or tries == _TRIES:
            return outcome


async def _try(case: Case, servers: Servers, own: OwnStalls) -> tuple[Outcome, float]:
    """Return what came of it, and for how long nothing ran at a time, in seconds."""
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
    return outcome, max(machine.worst_s, own.worst_s(scene.began_at))


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
