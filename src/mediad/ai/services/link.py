"""One service of one call over all its WebSockets: found, asked, lost, found again. The roles, in
`stt`, `llm` and `tts`, say what is asked and what is made of the answers.

state         what is asked            leaves when
connecting    waits, in its budget     a service is ready; or none is for too long: AgentUnavailable
ready         is sent                  the connection ends or is given up: connecting, at the next
                                       address; what has no output yet is asked again there

A connection is given up when a cancelling is not confirmed, nothing comes for too long (`asked`),
or the service breaks the protocol too often. Nobody waits for its closing.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod

from mediad import blot
from mediad.ai.connect import CallInfo
from mediad.ai.dial import shown
from mediad.ai.services.asked import MAX_REQUEST_S, Asked, Request, Verdict
from mediad.ai.services.connection import MAX_BAD_MESSAGES, Connection
from mediad.ai.services.events import Failed, ServiceEvents, Times, Why
from mediad.ai.services.finder import Finder
from mediad.ai.services.service import Service, name_of
from mediad.errors import AgentUnavailable
from mediad.wire import frames
from mediad.wire.frames import MAX_MESSAGE_SIZE, AudioFrame, Text
from mediad.wire.service import Done, Failure, FromService, Malformed, Start, Voice

__all__ = ["MAX_ASKED", "MAX_TRIES", "ServiceLink"]

logger = logging.getLogger(__name__)

MAX_ASKED = 64
"""Requests without an answer; one more fails."""

MAX_TRIES = 3
"""Connections over which something is asked before it fails."""


class ServiceLink(ABC):
    """The service of one role for one call. `run` it in a task of the call; ask at any time.

    Args:
        service: What all calls share.
        call: Whose link it is.
        start: How a connection begins.
        events: Who hears of it.
    """

    _max_tries = MAX_TRIES

    def __init__(
        self, service: Service, call: CallInfo, start: Start, events: ServiceEvents
    ) -> None:
        self._service = service
        self._counts = service.counts
        self._call = call
        self._start = start
        self._listener = events
        self._finder = Finder(service, call)
        settings = service.settings
        self._asked = Asked(settings.timeout_s, settings.budget_s, self._max_tries)
        self._connection: Connection | None = None
        self._leaving: set[Connection] = set()  # given to what is still answered over them
        self._last_n = 0
        self._cancelled_n = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def address(self) -> str:
        """The address in use, or to be tried next, as `name_of` has it."""
        return name_of(self._connection.url if self._connection is not None else self._finder.url)

    @property
    def backlog(self) -> int:
        """How much comes before the next request: others, and finding a service."""
        return len(self._asked) + (MAX_ASKED if self._connection is None else 0)

    async def run(self) -> None:
        """Keep the call linked to a service, until it is cancelled.

        Raises:
            AgentUnavailable: When no service can be had, at the start or after one was lost.
        """
        deadline = time.monotonic() + self._service.connect_timeout_s
        try:
            while True:
                connection = await self._finder.find(self._make_connection, deadline)
                self._use(connection)
                await connection.over.wait()
                self._lose(connection, "lost")
                if connection.was_good:
                    deadline = time.monotonic() + self._service.reconnect_s
                else:
                    deadline += connection.age_s  # while it was there the call was not without
        except AgentUnavailable:
            for request in self._asked.take_all():
                self._fail(request, "unavailable")
            raise
        finally:
            self.close()

    def _make_connection(self, url: str) -> Connection:
        return Connection(url, self._asked, self._start, self._take, self._on_over)

    def _use(self, connection: Connection) -> None:
        connection.asked = self._asked  # it may be another than when the connecting began
        self._connection = connection
        self._listener.on_service_open(self._service.role, connection.connect_s)
        self._send_waiting()

    # What is asked

    def _ask(self, n: int, message: bytes, voice: Voice | None = None) -> None:
        """Ask; n is larger than any before."""
        assert n > self._last_n, "numbers only rise"
        self._last_n = n
        now = time.monotonic()
        request = Request(n, message, now, voice)
        too_much = len(self._asked) >= MAX_ASKED or len(message) > MAX_MESSAGE_SIZE
        if too_much or self._is_closed:
            why: Why = "too_much" if too_much else "unavailable"
            # Not from within the call that asks.
            asyncio.get_running_loop().call_soon(self._fail, request, why, "")
            return
        self._asked.ask(request, now)
        self._arm()
        self._send_waiting()

    def cancel(self, n: int) -> None:
        """Have no answer to anything up to n, or no more of it; 0 cancels nothing."""
        self._cancelled_n = max(n, self._cancelled_n)
        dropped, must_tell = self._asked.cancel(n, time.monotonic())
        for _ in dropped:
            self._counts.count_request("cancelled")
        if must_tell and self._connection is not None:
            self._connection.send((frames.encode_interruption(n),))
        self._arm()

    def let_go(self, n: int) -> bool:
        """Leave the connection to what was asked up to n, whose answers still come as before, but
        fail with it; go on over another. False when there is no connection.
        """
        connection = self._connection
        if connection is None or not connection.is_open:
            return False
        connection.asked = self._asked.split(n)
        self._connection = None
        self._asked.lose_connection(time.monotonic())
        connection.is_good = True
        self._finder.renew()
        self._leaving.add(connection)
        connection.let_go(MAX_REQUEST_S)
        self._counts.count_replaced("let_go")
        return True

    def close_left(self) -> None:
        """Close the connections that were let go."""
        for connection in self._leaving:
            connection.close()

    def _send_waiting(self) -> None:
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        for request in self._asked.unsent():
            if request.tries:
                self._counts.retries.inc()
            self._asked.sent(request, time.monotonic())
            connection.send(self._messages(request, connection))
        self._arm()

    def _messages(self, request: Request, connection: Connection) -> list[bytes]:
        """Return what is sent for a request."""
        return [request.frame]

    # What comes

    def _take(self, connection: Connection, item: FromService | Malformed, message: bytes) -> bool:
        asked, now = connection.asked, time.monotonic()
        if isinstance(item, Malformed):
            self._take_malformed(connection, item)
        elif isinstance(item, Done):
            self._take_done(connection, item, now)
        elif isinstance(item, Failure):
            self._take_failure(asked, item)
        elif asked.cancelling is not None:
            self._counts.count_discarded("cancelled")
            return isinstance(item, AudioFrame | Text)
        else:
            return self._take_output(connection, item, message, now)
        return False

    @abstractmethod
    def _take_output(
        self, connection: Connection, item: FromService, message: bytes, now: float
    ) -> bool:
        """Take a part of an answer; return whether it was wanted audio or text."""

    @abstractmethod
    def _finish(self, request: Request, done: Done, times: Times) -> None:
        """Tell of the end of an answer."""

    def _take_malformed(self, connection: Connection, item: Malformed) -> None:
        self._counts.count_bad_frame(item.reason)
        logger.debug("call %s: %s: %s", self._call.call_id, self._counts.name, item.detail)
        connection.bad_messages += 1
        if connection.bad_messages > MAX_BAD_MESSAGES:
            self._give_up(connection, "garbage")

    def _take_failure(self, asked: Asked, failure: Failure) -> None:
        logger.warning(
            "call %s: %s reports an error, code %s",
            self._call.call_id,
            self._counts.name,
            blot.quoted(failure.code),
        )
        request = asked.find(failure.n) if failure.n is not None else None
        if request is not None:
            request.error = failure

    def _take_done(self, connection: Connection, done: Done, now: float) -> None:
        was_cancelling = connection.asked.cancelling is not None
        ended = connection.asked.finish(done.n, now)
        if not ended and not was_cancelling:
            self._counts.count_discarded("unasked")
        connection.is_good = connection.is_good or bool(ended) or was_cancelling
        for request in ended:
            if request.n > self._cancelled_n or connection in self._leaving:
                self._end(connection, request, done, now)
        if connection in self._leaving and not connection.asked:
            connection.close()
        self._arm()

    def _end(self, connection: Connection, request: Request, done: Done, now: float) -> None:
        error = request.error
        if error is None and (done.n > request.n or done.reason not in ("error", "cancelled")):
            self._tell_finished(connection, request, done, now)
        elif (
            error is not None
            and error.retry
            and connection is self._connection
            and connection.asked.again(request)
        ):
            self._give_up(connection, "error")  # a number is good only once on a connection
        else:
            self._fail(request, "error", done.reason if error is None else _words_of(error))

    def _tell_finished(
        self, connection: Connection, request: Request, done: Done, now: float
    ) -> None:
        assert request.head_at is not None
        if request.first_at is not None:
            self._counts.first_time.observe(request.first_at - request.head_at)
        self._counts.done_time.observe(now - request.head_at)
        self._counts.count_request("done")
        times = Times(
            request.asked_at,
            request.head_at,
            request.first_at,
            now,
            request.tries,
            name_of(connection.url),
        )
        self._finish(request, done, times)

    def _fail(self, request: Request, why: Why, message: str = "") -> None:
        self._counts.count_request(why)
        has_output = request.first_at is not None
        self._listener.on_failed(Failed(self._service.role, request.n, why, message, has_output))

    def _stop_head(self, connection: Connection | None, why: Why) -> None:
        """Let the oldest request fail, and its service stop."""
        asked = connection.asked if connection is not None else self._asked
        head = asked.head
        assert head is not None
        dropped, must_tell = asked.cancel(head.n, time.monotonic())
        if must_tell and connection is not None:
            connection.send((frames.encode_interruption(head.n),))
        for request in dropped:
            self._fail(request, why)
        self._arm()

    # Connections that end

    def _give_up(self, connection: Connection, why: str) -> None:
        """Go on over another connection."""
        connection.close()
        connection.over.set()
        if connection in self._leaving:
            self._lose_left(connection, _WHY.get(why, "lost"))
        self._lose(connection, why)

    def _lose(self, connection: Connection, why: str) -> None:
        if connection is not self._connection:  # lost already, or let go
            return
        self._connection = None
        self._finder.skip(connection)
        self._counts.count_replaced(why)
        role = self._service.role
        logger.warning(
            "call %s: %s at %s: %s",
            self._call.call_id,
            self._counts.name,
            shown(connection.url),
            _LOSSES[why],
        )
        failed = self._asked.lose_connection(time.monotonic())
        self._listener.on_service_lost(role, why)
        for request in failed:
            self._fail(request, _WHY.get(why, "lost"))
        self._arm()

    def _on_over(self, connection: Connection) -> None:
        if connection in self._leaving:
            self._lose_left(connection, "lost")
            self._leaving.discard(connection)

    def _lose_left(self, connection: Connection, why: Why) -> None:
        for request in connection.asked.take_all():
            self._fail(request, why)

    # Deadlines

    def _arm(self) -> None:
        """See to it that the next deadline is looked at. A timer that is too early stays."""
        asked = (self._asked, *(connection.asked for connection in self._leaving))
        due = min((one.due for one in asked if one.due is not None), default=None)
        if due is None:
            return
        loop = asyncio.get_running_loop()
        at = due + (loop.time() - time.monotonic())  # in this order nothing of it is rounded away
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._check)

    def _check(self) -> None:
        self._timer = None
        while (verdict := self._asked.overdue(time.monotonic())) is not None:
            self._end_overdue(self._connection, self._asked, verdict)
        for left in tuple(self._leaving):
            while (verdict := left.asked.overdue(time.monotonic())) is not None:
                self._end_overdue(left, left.asked, verdict)
        self._arm()

    def _end_overdue(self, connection: Connection | None, asked: Asked, verdict: Verdict) -> None:
        if verdict == "budget":
            was_sent = asked.head is not None and asked.head.sent_at is not None
            self._stop_head(connection, "timeout" if was_sent else "unavailable")
        else:
            assert connection is not None, "nothing is sent without a connection"
            self._give_up(connection, verdict)

    # The end

    def close(self) -> None:
        """End the connection in use and look for no other; connections that were let go go on."""
        self._is_closed = True
        self._asked.take_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arm()  # for those
        if self._connection is not None:
            self._connection.close()

    async def closed(self) -> None:
        """Wait, not for long, until the service has answered `close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.closed()


def _words_of(error: Failure) -> str:
    return f"{blot.quoted(error.code)}: {blot.quoted(error.message)}"


_LOSSES = {
    "lost": "the connection has ended; looking for another",
    "cancel": "it does not stop when it is told to; looking for another",
    "timeout": "it does not answer in time; looking for another",
    "garbage": "it breaks the protocol; looking for another",
    "error": "it asks to be asked again; looking for another",
}
_WHY: dict[str, Why] = {"timeout": "timeout", "garbage": "garbage", "error": "error"}
