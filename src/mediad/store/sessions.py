"""The state of live calls in the cache: a session, a context and a history for each, where readers
in any process find them. A summary remains when the call is over.

Facts change a call's state here in the process; what has changed goes to the cache whole, as soon
as the cache takes it. So a slow cache is written less often, not later and later, and one that was
away gets everything when it is back. Nothing of this is the record: calls and transcripts are.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from mediad.bus.bus import Bus
from mediad.bus.events import Event
from mediad.bus.public import Parties
from mediad.cache.cache import Cache
from mediad.cache.keys import Key
from mediad.metrics import Metrics
from mediad.store.changes import MAX_PARTY
from mediad.store.conversation import Context, Conversation, Message, Session, Summary, summarize

__all__ = ["Sessions"]

logger = logging.getLogger(__name__)

_MAX_CALLS = 50  # whose state goes to the cache at once: 4 MB at the most
_MAX_ENDED = 1_000  # summaries that wait for a cache that is away; the oldest go first
_MAX_GONE = 1_000  # calls that are over, whose parties are still known
_PAUSE_S = 0.01  # after each time, so that what happens meanwhile goes together
_RETRY_S = 1.0  # until it is tried again, when the cache did not take it
_REFRESH_S = 600.0  # a call on which nothing happens is written this often: keys end after 1,800

T = TypeVar("T")

_SESSION = TypeAdapter(Session)
_CONTEXT = TypeAdapter(Context)
_HISTORY = TypeAdapter(list[Message])
_SUMMARY = TypeAdapter(Summary)


class Sessions:
    """Keeps the state of live calls, for readers on its loop and, in the cache, for all others.

    Whether the asker may see a call is the asker's question: what is found has a ``customer_id``.

    Args:
        cache: Where the state goes.
        bus: Where facts come from.
        metrics: Shows how many calls have a session.
    """

    def __init__(self, cache: Cache, bus: Bus, metrics: Metrics) -> None:
        self._cache = cache
        self._keys = cache.keys
        self._bus = bus
        self._live: dict[str, Conversation] = {}
        self._gone: dict[tuple[str, str], Parties] = {}
        self._changed: dict[str, None] = {}  # ids of live calls, first changed first
        # What the cache has yet to be told; the event alone if the call is not of this process.
        self._ended: dict[str, Summary | Event] = {}
        self._wake = asyncio.Event()
        self._is_writing = False
        metrics.watch("sessions", "Live calls whose session is kept", lambda: len(self._live))

    async def run(self) -> None:
        """Follow the calls until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            while True:
                with self._bus.subscribe(live=True, durable=True) as events:
                    async for event in events:
                        self._take(event)
                logger.warning("facts were missed: the sessions of live calls are not kept on")
                self._live.clear()
                self._changed.clear()

    async def drain(self, timeout_s: float) -> None:
        """Bring the cache up to date, with the ends above all; unless it is away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._has_work and self._cache.problem is None:  # noqa: ASYNC110
                    await asyncio.sleep(_PAUSE_S)

    @property
    def _has_work(self) -> bool:
        return bool(self._is_writing or self._changed or self._ended)

    async def session(self, call_id: str) -> Session | None:
        """Return a live call's session."""
        if live := self._live.get(call_id):
            return live.session
        return _parse(_SESSION, await self._cache.get(self._keys.call_session(call_id)))

    def parties(self, customer_id: str, call_id: str) -> Parties | None:
        """Return who a call of this process is between, as its row says or will say, while it lives
        and a while after; without waiting.
        """
        live = self._live.get(call_id)
        if live is not None and live.session.customer_id == customer_id:
            return _parties(live.session)
        return self._gone.get((customer_id, call_id))

    async def context(self, call_id: str) -> Context | None:
        """Return what a live call is about."""
        if live := self._live.get(call_id):
            return live.context
        return _parse(_CONTEXT, await self._cache.get(self._keys.conversation_context(call_id)))

    async def history(self, call_id: str) -> list[Message]:
        """Return what was said on a live call, oldest first."""
        if live := self._live.get(call_id):
            return _HISTORY.validate_json(live.history)
        value = await self._cache.get(self._keys.conversation_history(call_id))
        return _parse(_HISTORY, value) or []

    async def summary(self, call_id: str) -> Summary | None:
        """Return what remains of a call that is over."""
        return _parse(_SUMMARY, await self._cache.get(self._keys.call_summary(call_id)))

    # What happens

    def _take(self, event: Event) -> None:
        try:
            is_new = self._apply(event)
        except (KeyError, ValueError) as exc:  # our own mistake, and no reason to end the others'
            wrong = exc if isinstance(exc, KeyError) else type(exc).__name__
            logger.error("call %s: %s is not as it should be: %s", event.call_id, event.type, wrong)
        else:
            if is_new:
                self._wake.set()

    def _apply(self, event: Event) -> bool:
        """Take in what happened; return whether the cache has to be told."""
        call_id = event.call_id
        if event.type == "call_hungup":
            return self._end(event)
        if event.is_durable:
            return False  # it came live before
        if event.type == "call_created":
            self._live[call_id] = Conversation(event)
        elif call_id not in self._live or not self._live[call_id].apply(event):
            return False
        self._changed[call_id] = None
        return True

    def _end(self, event: Event) -> bool:
        call_id = event.call_id
        live = self._live.pop(call_id, None)
        if live is not None:
            self._changed.pop(call_id, None)
            self._ended[call_id] = summarize(event, live.session, live.messages)
            self._gone[live.session.customer_id, call_id] = _parties(live.session)
            if len(self._gone) > _MAX_GONE:
                del self._gone[next(iter(self._gone))]
        elif event.is_durable:
            # Perhaps of a call that its process did not live to end: nobody told this end before.
            self._ended.setdefault(call_id, event)
        else:
            return False
        while len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        return True

    # The cache

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        refresh_at = loop.time() + _REFRESH_S
        while True:
            if not self._changed and not self._ended:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(refresh_at):
                        await self._wake.wait()
                self._wake.clear()
            if loop.time() >= refresh_at:
                refresh_at += _REFRESH_S
                self._changed |= dict.fromkeys(self._live)
            self._is_writing = True
            is_taken = await self._write_some()
            self._is_writing = False
            await asyncio.sleep(_PAUSE_S if is_taken else _RETRY_S)

    async def _write_some(self) -> bool:
        """Bring the cache up to date for some calls; return whether it took that."""
        ended = {call_id: self._ended.pop(call_id) for call_id in _first(self._ended)}
        values: dict[Key, bytes] = {}
        gone: list[Key] = []
        summaries = await self._summaries(ended)
        if summaries is None:
            self._put_back(ended)
            return False
        for call_id, summary in summaries.items():
            values[self._keys.call_summary(call_id)] = _encode(summary)
            gone += self._state_keys(call_id)
        changed = _first(self._changed)
        for call_id in changed:
            del self._changed[call_id]
            live = self._live[call_id]
            state = (_encode(live.session), _encode(live.context), live.history)
            values.update(zip(self._state_keys(call_id), state, strict=True))
        if await self._cache.update(values, gone):
            return True
        self._changed |= {call_id: None for call_id in changed if call_id in self._live}
        self._put_back(ended)
        return False

    def _put_back(self, ended: dict[str, Summary | Event]) -> None:
        """Let them be the oldest again; what came since stands behind."""
        for call_id, end in self._ended.items():
            ended.setdefault(call_id, end)
        self._ended = ended

    async def _summaries(self, ended: Mapping[str, Summary | Event]) -> dict[str, Summary] | None:
        """Return what remains of calls; None when the cache did not tell what it has of others'."""
        summaries = {call_id: end for call_id, end in ended.items() if isinstance(end, Summary)}
        others = [end for end in ended.values() if isinstance(end, Event)]
        keys = [key for event in others for key in self._state_keys(event.call_id)]
        found = await self._cache.get_many(keys)
        if others and self._cache.problem is not None:
            return None
        for index, event in enumerate(others):
            session = _parse(_SESSION, found[3 * index])
            if session is not None:
                history = _parse(_HISTORY, found[3 * index + 2]) or []
                summaries[event.call_id] = summarize(event, session, len(history))
        return summaries

    def _state_keys(self, call_id: str) -> tuple[Key, Key, Key]:
        keys = self._keys
        return (
            keys.call_session(call_id),
            keys.conversation_context(call_id),
            keys.conversation_history(call_id),
        )


def _parties(session: Session) -> Parties:
    return Parties((session.source or "")[:MAX_PARTY], (session.destination or "")[:MAX_PARTY])


def _first(waiting: Mapping[str, Any]) -> list[str]:
    return list(islice(waiting, _MAX_CALLS))


def _encode(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()


def _parse(form: TypeAdapter[T], value: bytes | None) -> T | None:
    """Return what is in the cache; None for what another version has left there, too."""
    if value is None:
        return None
    try:
        return form.validate_json(value)
    except ValidationError:
        return None
