"""Runs cases, several at once: each has its own mediad, and mostly waits."""

import asyncio
from collections.abc import Sequence

from tests.faults.cases import Case, check
from tests.faults.scene import Scene
from tests.faults.servers import Servers, running_servers
from tests.machine import watch_machine
from tests.own_stalls import OwnStalls, watch_own_loop

__all__ = ["Failures", "run_cases"]

_AT_ONCE = 4
_CASE_S = 150.0

Failures = dict[str, BaseException | None]
"""By name of a case; None for one whose promise was kept."""


async def run_cases(cases: Sequence[Case]) -> Failures:
    """Run cases; print what was measured of each."""
    room = asyncio.Semaphore(_AT_ONCE)
    failures: Failures = {}

    async def run(case: Case, servers: Servers, own: OwnStalls) -> None:
        scene = Scene()
        async with room:
            failures[case.name] = await _failure(case, scene, servers, own)
        print(
            f"{case.name}: {scene.subject_gap_s or 0:.3f} s, others {scene.others_gap_s:.3f} s, "
            f"{scene.then or '-'}; {failures[case.name] or 'ok'}"
        )

    async with (
        watch_own_loop() as own,
        running_servers() as servers,
        asyncio.TaskGroup() as group,
    ):
        for case in cases:
            group.create_task(run(case, servers, own))
    return failures


async def _failure(
    case: Case, scene: Scene, servers: Servers, own: OwnStalls
) -> BaseException | None:
    try:
        async with asyncio.timeout(_CASE_S), watch_machine() as machine:
            await case.run(scene, servers)
        check(case, scene, machine.worst_s + own.worst_s(scene.began_at))
    except (Exception, asyncio.CancelledError) as exc:
        exc.add_note(case.name)
        if hasattr(scene, "mediad"):
            exc.add_note("".join(scene.mediad.log[-50:]))
        return exc
    return None
