"""The events WebSocket: durable events with their numbers, from any one on, and live ones.

One task per connection takes messages and events in turn, so a topic that is resumed is read from
the table to its end while what is announced meanwhile waits in the subscription; then what was read
already is told by its number. Live events never ask the database. A reader that does not keep up is
dropped: it can resume.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, Never

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from mediad.api import access as access_
from mediad.api.access import Access
from mediad.api.errors import ApiError
from mediad.api.services import Services
from mediad.bus.bus import Subscription
from mediad.bus.events import Event
from mediad.bus.public import NOBODY, Parties, public_event
from mediad.bus.topics import MAX_TOPIC, Topic, parse_topic
from mediad.errors import DatabaseUnavailable
from mediad.store import events as events_store
from mediad.store import outbox

__all__ = ["close_connections", "router"]

router = APIRouter(tags=["events"])
logger = logging.getLogger(__name__)

MAX_TOPICS = 50
"""Topics of one connection."""

MAX_MESSAGE = 16_384
"""Longest message that is taken, in characters."""

MAX_CONNECTIONS = 100
"""Of this process; half of them, of one customer."""

MAX_SEQUENCE = 2**63 - 1
"""The largest number that a database has room for."""

_SEND_S = 10.0  # for one message: whoever does not read for so long is dropped
_CHECK_S = 5.0  # as long as a key may be good that another process has revoked
_PAGE = 200
_MAX_PARTIES = 1_000
_GOING_AWAY, _TEXT_ONLY, _POLICY, _TOO_BIG, _AGAIN = 1001, 1003, 1008, 1009, 1013
_FOR_OPERATORS = frozenset(("agent_awaited",))  # with it, one may be a call's agent


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(max_length=100)] | None = None
    """Comes back in the answer."""
    topics: Annotated[list[Annotated[str, Field(max_length=MAX_TOPIC)]], Field(max_length=100)]


class Subscribe(_Message):
    """Wants events of these topics."""

    type: Literal["subscribe"]
    after: dict[str, Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]] = {}
    """By topic: the number of the last event that was seen."""


class Unsubscribe(_Message):
    """Wants them no longer."""

    type: Literal["unsubscribe"]


_MESSAGE: TypeAdapter[Subscribe | Unsubscribe] = TypeAdapter(
    Annotated[Subscribe | Unsubscribe, Field(discriminator="type")]
)


@router.websocket("/ws")
async def events(websocket: WebSocket) -> None:
    """Tell events as they happen."""
    connections = _connections(websocket.app)
    try:
        access = await access_.authenticate(websocket)
        same = sum(other.customer_id == access.customer_id for other in connections)
        if len(connections) >= MAX_CONNECTIONS or same >= MAX_CONNECTIONS // 2:
            raise ApiError(503, "too_many_connections", "too many events WebSockets are open")
    except (ApiError, DatabaseUnavailable) as exc:
        if not isinstance(exc, ApiError):
            exc = ApiError(503, "database_unavailable", "the database does not answer: try again")
        answer = JSONResponse(exc.body.model_dump(), exc.status, exc.headers)
        await websocket.send_denial_response(answer)
        return
    await websocket.accept()
    services: Services = websocket.app.state.services
    connection = _Connection(websocket, services, access)
    connections.add(connection)
    try:
        await connection.run()
    finally:
        connections.discard(connection)


async def close_connections(app: FastAPI) -> None:
    """Close all connections as going away; before the server does it in its own words."""
    await asyncio.gather(*(connection.stop() for connection in _connections(app)))


def _connections(app: FastAPI) -> "set[_Connection]":
    if not hasattr(app.state, "event_connections"):
        app.state.event_connections = set()
    connections: set[_Connection] = app.state.event_connections
    return connections


class _ClosedError(Exception):
    """Ends a connection, with a close code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Connection:
    """One reader."""

    def __init__(self, websocket: WebSocket, services: Services, access: Access) -> None:
        self._websocket = websocket
        self._services = services
        self._access = access
        self.customer_id = access.customer_id
        self._topics: dict[Topic, int] = {}
        """With the highest number that was sent for each."""
        self._parties: OrderedDict[tuple[str, str], Parties] = OrderedDict()
        self._refused: asyncio.Task[Never] | None = None
        """Ends when this reader may not go on, by an error that says why."""
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    async def stop(self) -> None:
        """Close the connection."""
        self._stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._stopped.wait()

    async def run(self) -> None:
        """Talk until one side ends it."""
        try:
            await self._talk()
        except _ClosedError as exc:
            with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._websocket.close(exc.code, str(exc))
        except WebSocketDisconnect:
            pass
        finally:
            self._stopped.set()

    async def _talk(self) -> None:
        with self._services.bus.subscribe(live=True, durable=True) as subscription:
            messages = asyncio.create_task(self._receive())
            happened = asyncio.create_task(subscription.wait())
            stopping = asyncio.create_task(self._stopping.wait())
            self._refused = asyncio.create_task(self._wait_for_refusal())
            tasks: set[asyncio.Task[Any]] = {messages, happened, stopping, self._refused}
            try:
                while True:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    if stopping.done():
                        raise _ClosedError(_GOING_AWAY, "mediad stops")
                    self._check_refusal()
                    if messages.done():
                        await self._take(messages.result())
                        tasks.discard(messages)
                        messages = asyncio.create_task(self._receive())
                        tasks.add(messages)
                    if happened.done():
                        await self._tell_waiting(subscription)
                        tasks.discard(happened)
                        happened = asyncio.create_task(subscription.wait())
                        tasks.add(happened)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for_refusal(self) -> Never:
        """Wait until the access key is good no longer.

        Raises:
            _ClosedError: When it was revoked or has expired, or its customer is not active.
        """
        while True:
            await asyncio.sleep(_CHECK_S)
            try:
                await access_.check_still_good(self._websocket)
            except ApiError as exc:
                raise _ClosedError(_POLICY, str(exc)) from exc
            except DatabaseUnavailable:  # live events need none
                continue

    def _check_refusal(self) -> None:
        if self._refused is not None and self._refused.done():
            self._refused.result()

    async def _receive(self) -> str:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        text: str | None = message.get("text")
        if text is None:
            raise _ClosedError(_TEXT_ONLY, "messages are JSON as text")
        return text

    async def _tell_waiting(self, subscription: Subscription) -> None:
        for event in subscription.take():
            await self._tell(event)
        if subscription.cut_off:
            raise _ClosedError(_AGAIN, "too slow: events would be left out; resume with after")

    async def _tell(self, event: Event) -> None:
        """Send an event if a topic wants it and has not had it."""
        if event.type in _FOR_OPERATORS and self._access.role == "viewer":
            return
        sequence = event.sequence
        wanted = [
            topic
            for topic, last in self._topics.items()
            if topic.matches(event) and (sequence is None or sequence > last)
        ]
        if wanted:
            parties = self._known_parties(event)
            if parties is None and event.is_durable:
                ((_, parties),) = await self._with_parties([event])
            await self._send_event(event, parties or NOBODY)
            if sequence is not None:
                self._topics.update(dict.fromkeys(wanted, sequence))

    async def _take(self, text: str) -> None:
        if len(text) > MAX_MESSAGE:
            raise _ClosedError(_TOO_BIG, f"a message has at most {MAX_MESSAGE} characters")
        try:
            message = _MESSAGE.validate_json(text)
        except ValidationError as exc:
            problem = exc.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            await self._answer_error(None, None, "bad_message", f"{where}: {problem['msg']}")
            return
        for text in message.topics:
            try:
                topic = self._allowed(text)
            except ValueError as exc:
                await self._answer_error(message.id, text, "bad_topic", str(exc))
                continue
            if isinstance(message, Unsubscribe):
                await self._unsubscribe(message.id, topic)
            else:
                await self._subscribe(message.id, topic, message.after.get(text))

    def _allowed(self, text: str) -> Topic:
        """Return a topic that this reader may have.

        Raises:
            ValueError: If it is none, or somebody else's.
        """
        topic = parse_topic(text)
        if topic.customer_id != self._access.customer_id and self._access.role != "root":
            raise ValueError("this key is not that customer's")
        return topic

    async def _unsubscribe(self, id: str | None, topic: Topic) -> None:
        if self._topics.pop(topic, None) is None:
            await self._answer_error(id, str(topic), "not_subscribed", "that was not subscribed to")
        else:
            await self._answer("unsubscribed", id, str(topic))

    async def _subscribe(self, id: str | None, topic: Topic, after: int | None) -> None:
        if topic not in self._topics and len(self._topics) >= MAX_TOPICS:
            await self._answer_error(id, str(topic), "too_many", f"{MAX_TOPICS} topics at most")
        elif after is not None and topic.kind == "live":
            await self._answer_error(id, str(topic), "bad_after", "live events have no numbers")
        elif after is None:
            self._topics.setdefault(topic, 0)
            await self._answer("subscribed", id, str(topic))
        else:
            await self._answer("subscribed", id, str(topic))
            await self._replay(topic, after)

    async def _replay(self, topic: Topic, after: int) -> None:
        """Send what the database has after a number; then the topic goes on from there."""
        while True:
            try:
                async with self._services.database.read() as connection:
                    page = await events_store.after(connection, topic.customer_id, after, _PAGE)
            except DatabaseUnavailable as exc:
                raise _ClosedError(_AGAIN, "the database does not answer") from exc
            for event, parties in await self._with_parties([e for e in page if topic.matches(e)]):
                await self._send_event(event, parties)
            after = max(after, page[-1].sequence or 0) if page else after
            if len(page) < _PAGE:
                self._topics[topic] = after
                return

    def _known_parties(self, event: Event) -> Parties | None:
        """Return who a call is between, as far as no database has to be asked."""
        key = event.customer_id, event.call_id
        return self._parties.get(key) or self._services.sessions.parties(*key)

    async def _with_parties(self, found: Sequence[Event]) -> list[tuple[Event, Parties]]:
        """Return events with who their calls are between."""
        known = self._parties
        keys = {(event.customer_id, event.call_id) for event in found}
        missing = [key for key in keys if key not in known]
        if missing:
            with suppress(DatabaseUnavailable):
                async with self._services.database.read() as connection:
                    in_rows = await outbox.parties_of(connection, missing)
                # What has no row now never gets one: a call's is older than its numbered events.
                known.update(dict.fromkeys(missing, NOBODY) | dict(in_rows))
        told = [(e, known.get((e.customer_id, e.call_id), NOBODY)) for e in found]
        while len(known) > _MAX_PARTIES:
            known.popitem(last=False)
        return told

    async def _send_event(self, event: Event, parties: Parties) -> None:
        await self._send({"event": event.type} | public_event(event, parties))

    async def _answer(self, type_: str, id: str | None, topic: str) -> None:
        await self._send({"type": type_, "id": id, "topic": topic})

    async def _answer_error(
        self, id: str | None, topic: str | None, reason: str, message: str
    ) -> None:
        error = {"reason": reason, "message": message, "details": {}}
        await self._send({"type": "error", "id": id, "topic": topic, "error": error})

    async def _send(self, message: dict[str, Any]) -> None:
        self._check_refusal()
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        try:
            async with asyncio.timeout(_SEND_S):
                await self._websocket.send_text(text)
        except TimeoutError as exc:
            raise _ClosedError(_AGAIN, "too slow: nothing was read; resume with after") from exc
        except RuntimeError as exc:  # it was closed meanwhile
            raise WebSocketDisconnect from exc
