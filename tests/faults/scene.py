"""The scene of a fault: a whole mediad, calls with an agent that talks without a pause, and what
was heard and kept while something went wrong.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import chain, islice, repeat
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mediad.bus.events import FACTS
from mediad.caller import Caller
from mediad.caller.track import Track
from mediad.config import Database as DatabaseSettings
from tests.books import Rows, as_environment, journal_empty, read_rows
from tests.faults.api import Api
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.talk import Talk
from tests.mediad_process import MediadProcess, run_telling_mediad

__all__ = ["GOES_ON", "Scene", "longest_silence_s"]

GOES_ON = "goes on"
_HUNG_UP = "caller, normal_clearing"  # how a call ends that has gone on until the scene was over
_OTHERS = 3
_FRAME_S = 0.02
_FRAME_BYTES = 320  # 20 ms of slin
_SETTLED_S = 0.7  # of talk before anything goes wrong
_AFTER_S = 2.5  # of talk after it
_SAFE_S = 0.1  # what happened so long before a kill is in the journal
_BOOKS_S = 45.0  # for the database to have everything, once nothing is wrong any more
_DELIVERED_S = 60.0  # for webhooks: the second try after a failure is 30 s after the first
_DIGIT_EVERY_S = 0.9

_reading_books = asyncio.Lock()  # Alembic, which looks at the tables first, bears one at a time


def longest_silence_s(caller: Caller, since: float, until: float) -> float:
    """Return the longest time in which a caller neither heard nor said anything, in seconds."""
    if caller.end is not None:
        until = min(until, caller.end.at)
    sounds = np.sort(np.concatenate((_sounds(caller.heard), _sounds(caller.sent))))
    sounds = sounds[(sounds > since) & (sounds < until)]
    return max(0.0, float(np.diff(np.concatenate(([since], sounds, [until]))).max()) - _FRAME_S)


def _sounds(track: Track) -> NDArray[np.float64]:
    """Return when something was to be heard."""
    times = np.frombuffer(track.times, np.float64)
    frames = np.frombuffer(bytes(track.pcm), np.int16).reshape(len(times), -1)
    return times[np.any(np.abs(frames) > 100, axis=1)]


class Scene:
    """One fault's. The first call is the one that a fault is made for, the subject."""

    def __init__(self) -> None:
        self.talk = Talk()
        self.subject: Caller | None = None
        self.subject_id = ""
        """Its call's id."""
        self.others: list[Caller] = []
        self.subject_gap_s: float | None = None
        """The longest silence of the subject; None while nobody has listened."""
        self.others_gap_s = 0.0
        """The longest silence of any other call."""
        self.goes_on = False
        """Whether the subject's call lived when it was all over."""
        self.end = ""
        """What became of it."""
        self.delivered: set[str] | None = None
        """Ids of facts that somebody outside was told, if anybody wants all of them."""
        self.made = 0
        """Facts that were told on all calls, and words that were said."""
        self.lost: list[str] = []
        """Those that are not in the database, or were not delivered."""
        self.wrong: list[str] = []
        """What else the database does not have as it happened."""
        self.began_at = self.ended_at = 0.0
        self.killed_at: float | None = None
        self.mediad: MediadProcess
        self.caller_proxy: Proxy
        """Between the subject and mediad, for `living` with ``through_proxy``."""
        self._api: Api
        self._with_keys: list[Caller] = []
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def living(
        self,
        agent_url: str,
        *,
        agents: Iterable[Mapping[str, Any]] = (),
        database: DatabaseSettings | None = None,
        before: Callable[[Api], Awaitable[None]] | None = None,
        has_subject: bool = True,
        through_proxy: bool = False,
        preload: str = "",
        **settings: str,
    ) -> AsyncIterator[None]:
        """Have calls while the block lasts, and some time after it; then look at the books.

        Args:
            agent_url: The agent of the calls that have none of their own.
            agents: Those of the first calls, as the API takes an agent's ``config``.
            before: Runs before there are calls.
        """
        with tempfile.TemporaryDirectory(prefix="mediad-tests-") as directory:
            database = database or DatabaseSettings(directory=Path(directory))
            settings |= {"audiosocket__codec": "slin"} | as_environment(database)
            async with run_telling_mediad(agent_url, preload=preload, **settings) as self.mediad:
                if database.url is None:
                    self._api = Api(self.mediad.http, Path(directory))
                if before is not None:
                    await before(self._api)
                async with self._calls(has_subject, through_proxy, agents):
                    self.began_at = time.monotonic()
                    yield
                    await asyncio.sleep(_AFTER_S)
                    self._listen()
                if self.killed_at is None:
                    await journal_empty(self.mediad, _BOOKS_S)
                    await self._all_delivered()
            if self.killed_at is not None:
                async with run_telling_mediad("", **as_environment(database)) as again:
                    await journal_empty(again, _BOOKS_S)
            async with _reading_books:
                rows = await read_rows(database)
            self._audit(rows)

    @asynccontextmanager
    async def _calls(
        self, has_subject: bool, through_proxy: bool, agents: Iterable[Mapping[str, Any]]
    ) -> AsyncIterator[None]:
        """Make the calls; once it is entered each hears the agent, and most press keys."""
        async with AsyncExitStack() as calls:
            address = self.mediad.audiosocket
            if through_proxy:
                self.caller_proxy = await calls.enter_async_context(proxy_to(address))
                address = self.caller_proxy.address
            first, *more = islice(chain(agents, repeat(None)), 1 + _OTHERS)
            if has_subject:
                call = await self._call(address, first)
                self.subject = await calls.enter_async_context(call)
                self.subject_id = str(self.subject.call_id)
                await self.subject.wait_for_speech()  # the first of all also at the agent's
            for agent in more:
                call = await self._call(self.mediad.audiosocket, agent)
                self.others.append(await calls.enter_async_context(call))
            await asyncio.gather(*(call.wait_for_speech() for call in self.others))
            self.start(self._press())
            try:
                await asyncio.sleep(_SETTLED_S)
                yield
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something as long as there are calls."""
        self._tasks.append(asyncio.create_task(work))

    async def newcomer(self) -> None:
        """Make a call while something is wrong: it is answered as ever."""
        async with Caller(*self.mediad.audiosocket) as call:
            await call.wait_for_speech(timeout_s=2)

    async def kill_mediad(self) -> None:
        """End mediad as a crash does."""
        self.killed_at = time.monotonic()
        await self.mediad.kill()

    async def _call(self, address: tuple[str, int], agent: Mapping[str, Any] | None) -> Caller:
        """Return a call that is to be made, registered if it has an agent of its own. Keys will be
        pressed on it, but if it is a pipeline's: those would interrupt the agent.
        """
        if agent is None:
            call = Caller(*address)
        else:
            call = Caller(*address, call_id=await self._api.register_call(agent))
        if agent is None or agent.get("link") != "pipeline":
            self._with_keys.append(call)
        return call

    async def _press(self) -> None:
        while True:
            for call in self._with_keys:
                call.press("5")
            await asyncio.sleep(_DIGIT_EVERY_S)

    def _listen(self) -> None:
        self.ended_at = time.monotonic()
        since, until = self.began_at, self.ended_at
        if self.subject is not None:
            self.subject_gap_s = longest_silence_s(self.subject, since, until)
            self.goes_on = self.subject.end is None
        self.others_gap_s = max(longest_silence_s(call, since, until) for call in self.others)
        if self.killed_at is None:
            assert all(call.end is None for call in self.others), "another call has ended"

    def _told(self, before: float) -> dict[str, str]:
        """Return, by its id, what fact was told on what call before a moment."""
        return {
            event["id"]: f"{event['type']} of {event['call']}"
            for event in self.mediad.told
            if event["sequence"] is None and event["type"] in FACTS and event["at"] < before
        }

    async def _all_delivered(self) -> None:
        """Wait until whoever wants all facts has them, or can have no more hope."""
        if self.delivered is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_DELIVERED_S):
                while not self._told(inf).keys() <= self.delivered:  # noqa: ASYNC110 (no event)
                    await asyncio.sleep(0.1)

    def _audit(self, rows: Rows) -> None:
        """Compare what was told with what is kept."""
        hung_up = rows.hangups.get(self.subject_id, "nobody knows")
        self.end = GOES_ON if self.goes_on and hung_up == _HUNG_UP else hung_up
        before = self.killed_at - _SAFE_S if self.killed_at else inf
        told = self._told(before)
        # The agent is a witness of its own for calls whose connection nothing happened to.
        untouched = {str(call.call_id) for call in self.others}
        deadline = min(before, self.ended_at) - _SAFE_S
        said = {w.text for w in self.talk.said if w.call_id in untouched and w.at < deadline}
        self.made = len(told) + len(said)
        self.lost += [told[id_] for id_ in told.keys() - rows.event_ids]
        self.lost += [f"words {text!r}" for text in said - rows.transcripts.keys()]
        if self.delivered is not None:
            self.lost += [f"undelivered: {told[id_]}" for id_ in told.keys() - self.delivered]
        self.wrong += [f"twice: {w.text}" for w in self.talk.said if rows.transcripts[w.text] > 1]
        self.wrong += [f"no end of call {call_id}" for call_id in rows.open_calls]
        self.wrong += [f"no one end of call {id_}" for id_ in rows.calls if rows.ends[id_] != 1]
        if rows.sequences != list(range(1, len(rows.sequences) + 1)):
            self.wrong.append("the numbers of the events")
        if not all(offsets == sorted(offsets) for offsets in rows.offsets.values()):
            self.wrong.append("the order of facts")
