"""The scene of a fault: a whole mediad, calls with an agent that talks without a pause, and what
was heard and kept while something went wrong.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np

from mediad.bus.events import FACTS
from mediad.caller import Caller
from mediad.config import Database as DatabaseSettings
from tests.books import Rows, as_environment, journal_empty, read_rows
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.talk import Talk
from tests.mediad_process import MediadProcess, run_telling_mediad

__all__ = ["Scene", "longest_silence_s"]

OTHERS = 3
_FRAME_S = 0.02
_FRAME_BYTES = 320  # 20 ms of slin
_SETTLED_S = 0.7  # of talk before anything goes wrong
_AFTER_S = 2.5  # of talk after it
_SAFE_S = 0.1  # what happened so long before a kill is in the journal
_BOOKS_S = 45.0  # for the database to have everything, once nothing is wrong any more
_DIGIT_EVERY_S = 0.9


def longest_silence_s(caller: Caller, since: float, until: float) -> float:
    """Return the longest time without a sound that a caller had, in seconds."""
    if caller.end is not None:
        until = min(until, caller.end.at)
    times = np.frombuffer(caller.heard.times, np.float64)
    frames = np.frombuffer(bytes(caller.heard.pcm), np.int16).reshape(len(times), -1)
    heard = times[np.any(np.abs(frames) > 100, axis=1)]
    heard = heard[(heard > since) & (heard < until)]
    return max(0.0, float(np.diff(np.concatenate(([since], heard, [until]))).max()) - _FRAME_S)


class Scene:
    """One fault's. The first call is the one that a fault is made for, unless it hits all."""

    def __init__(self) -> None:
        self.talk = Talk()
        self.subject: Caller | None = None
        self.subject_id = ""
        """Its call's id."""
        self.others: list[Caller] = []
        self.subject_gap_s: float | None = None
        """The longest time that the subject heard nothing."""
        self.others_gap_s = 0.0
        """The longest time that any other caller heard nothing."""
        self.then = ""
        """What became of the subject."""
        self.lost: list[str] = []
        """Facts that were told, and are not in the database; or are there more than once."""
        self.began_at = self.ended_at = 0.0
        self.killed_at: float | None = None
        self.mediad: MediadProcess
        self.caller_proxy: Proxy
        """Between the subject and mediad, for `living` with ``through_proxy``."""

    @asynccontextmanager
    async def living(
        self,
        agent_url: str,
        *,
        database: DatabaseSettings | None = None,
        has_subject: bool = True,
        through_proxy: bool = False,
        preload: str = "",
        **settings: str,
    ) -> AsyncIterator[None]:
        """Have calls while the block lasts, and some time after it; then look at the books."""
        with tempfile.TemporaryDirectory(prefix="mediad-tests-") as directory:
            database = database or DatabaseSettings(directory=Path(directory))
            settings |= {"audiosocket__codec": "slin"} | as_environment(database)
            async with run_telling_mediad(agent_url, preload=preload, **settings) as self.mediad:
                async with self._calls(has_subject, through_proxy):
                    self.began_at = time.monotonic()
                    yield
                    await asyncio.sleep(_AFTER_S)
                    self._listen()
                if self.killed_at is None:
                    await journal_empty(self.mediad, _BOOKS_S)
            if self.killed_at is not None:
                async with run_telling_mediad("", **as_environment(database)) as again:
                    await journal_empty(again, _BOOKS_S)
            self._audit(await read_rows(database))

    @asynccontextmanager
    async def _calls(self, has_subject: bool, through_proxy: bool) -> AsyncIterator[None]:
        """Make the calls; once it is entered each hears the agent, and presses keys."""
        async with AsyncExitStack() as calls:
            address = self.mediad.audiosocket
            if through_proxy:
                self.caller_proxy = await calls.enter_async_context(proxy_to(address))
                address = self.caller_proxy.address
            if has_subject:
                self.subject = await calls.enter_async_context(Caller(*address))
                self.subject_id = str(self.subject.call_id)
                await self.subject.wait_for_speech()  # the first of all also at the agent's
            for _ in range(OTHERS):
                call = Caller(*self.mediad.audiosocket)
                self.others.append(await calls.enter_async_context(call))
            await asyncio.gather(*(call.wait_for_speech() for call in self.others))
            pressing = asyncio.create_task(self._press())
            try:
                await asyncio.sleep(_SETTLED_S)
                yield
            finally:
                pressing.cancel()

    async def newcomer(self) -> None:
        """Make a call while something is wrong: it is answered as ever."""
        async with Caller(*self.mediad.audiosocket) as call:
            await call.wait_for_speech(timeout_s=2)

    async def kill_mediad(self) -> None:
        """End mediad as a crash does."""
        self.killed_at = time.monotonic()
        await self.mediad.kill()

    async def _press(self) -> None:
        while True:
            for call in (self.subject, *self.others):
                if call is not None:
                    call.press("5")
            await asyncio.sleep(_DIGIT_EVERY_S)

    def _listen(self) -> None:
        self.ended_at = time.monotonic()
        since, until = self.began_at, self.ended_at
        if self.subject is not None:
            self.subject_gap_s = longest_silence_s(self.subject, since, until)
        self.others_gap_s = max(longest_silence_s(call, since, until) for call in self.others)
        if self.subject is not None and self.subject.end is None:
            self.then = "it goes on"
        if self.killed_at is None:
            assert all(call.end is None for call in self.others), "another call has ended"

    def _audit(self, rows: Rows) -> None:
        """Compare what was told with what is kept."""
        if self.subject_id and not self.then:
            self.then = f"it ends: {rows.hangups.get(self.subject_id)}"
        before = self.killed_at - _SAFE_S if self.killed_at else float("inf")
        told = {
            event["id"]: f"{event['type']} of {event['call']}"
            for event in self.mediad.told
            if event["sequence"] is None and event["type"] in FACTS and event["at"] < before
        }
        assert told
        self.lost += [told[id_] for id_ in told.keys() - rows.event_ids]
        # The agent is a witness of its own for calls whose connection nothing happened to.
        untouched = {str(call.call_id) for call in self.others}
        deadline = min(before, self.ended_at) - _SAFE_S
        said = {w.text for w in self.talk.said if w.call_id in untouched and w.at < deadline}
        self.lost += [f"words {text!r}" for text in said - rows.transcripts.keys()]
        self.lost += [f"twice: {text!r}" for text in _repeated(rows.transcripts)]
        self.lost += [f"no end of call {call_id}" for call_id in rows.open_calls]
        self.lost += [f"no one end of call {id_}" for id_ in rows.calls if rows.ends[id_] != 1]
        if rows.sequences != list(range(1, len(rows.sequences) + 1)):
            self.lost.append("a number of an event")
        if not all(offsets == sorted(offsets) for offsets in rows.offsets.values()):
            self.lost.append("the order of facts")


def _repeated(counts: Counter[str]) -> Iterable[str]:
    return (text for text, count in counts.items() if count > 1)
