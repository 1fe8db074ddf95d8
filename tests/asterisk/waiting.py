"""Waiting for what does not report itself, bounded in time."""

import asyncio
from collections.abc import Callable

from tests.asterisk.rig import Asterisk
from tests.own_stalls import no_longer_than

HANG_UP_TIMEOUT_S = 2.0
"""How long a hang-up on one side may take to end the call on the other."""

_POLL_S = 0.02


async def until_no_channel(asterisk: Asterisk, timeout_s: float = HANG_UP_TIMEOUT_S) -> None:
    """Wait until all calls have left Asterisk."""
    async with no_longer_than(timeout_s):
        while await asterisk.channels():  # noqa: ASYNC110, Asterisk has to be asked
            await asyncio.sleep(_POLL_S)


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until a condition holds; do not complain if it never does: the assertion will."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)
