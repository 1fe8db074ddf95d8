"""What one service of one call was asked for and has not answered yet. No socket, no clock: time is
an argument, in monotonic seconds.

A service answers in the order in which it is asked, so all that comes belongs to the oldest request
that was sent: the *head*.

    state       leaves when
    waiting     it is sent: it has a connection
    sent        its first output comes: answering; ``timeout_s`` after it was sent, or the head
                before it ended: the connection is given up, and it is sent again
                ``budget_s`` after it was first the head: it has failed
    answering   its Done comes; nothing comes for ``timeout_s``: it has failed
    cancelled   it is gone at once; what comes is discarded until the Done of the cancelling, or
                until `CANCEL_S` later, when the connection is given up
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

from mediad.wire.service import Failure, Voice

__all__ = ["CANCEL_S", "MAX_REQUEST_S", "Asked", "Request", "Verdict"]

CANCEL_S = 0.5
"""How long a service may take to say that it has stopped."""

MAX_REQUEST_S = 120.0
"""The longest that the answer to one request may take, however much of it comes."""

Verdict = Literal["cancel", "timeout", "budget"]
"""What is overdue: the Done of a cancelling, a sign of life, or the first output at all."""


@dataclass(slots=True, eq=False)
class Request:
    """One thing that is asked of a service."""

    n: int
    frame: bytes
    """The message that asks for it."""
    asked_at: float
    voice: Voice | None = None
    """TTS: how to say it."""
    sent_at: float | None = None
    """On the connection in use; None while it waits for one."""
    head_at: float | None = None
    """When it was first the oldest."""
    first_at: float | None = None
    """When the first of its answer came."""
    heard_at: float = 0.0
    """When the last of its answer came."""
    size: int = 0
    """Of its answer so far, in bytes or characters."""
    tries: int = 0
    error: Failure | None = None
    """What the service said is wrong with it."""


class Asked:
    """The requests of one link, oldest first."""

    def __init__(self, timeout_s: float, budget_s: float, max_tries: int) -> None:
        self._timeout_s = timeout_s
        self._budget_s = budget_s
        self._max_tries = max_tries
        self._requests: deque[Request] = deque()
        self._cancelling: int | None = None
        self._cancel_due = 0.0

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def cancelling(self) -> int | None:
        """The n whose Done{cancelled} is awaited; until then what comes is discarded."""
        return self._cancelling

    @property
    def head(self) -> Request | None:
        """The request that is being answered, or will be first."""
        return self._requests[0] if self._requests else None

    def ask(self, request: Request, now: float) -> None:
        """Append a request; its n is larger than any before."""
        self._requests.append(request)
        self._mark_head(now)

    def unsent(self) -> list[Request]:
        """Return what waits for a connection, oldest first."""
        return [request for request in self._requests if request.sent_at is None]

    def sent(self, request: Request, now: float) -> None:
        """Note that a request has been sent."""
        request.sent_at = now
        request.tries += 1

    def hear(self, size: int, now: float) -> Request | None:
        """Take a part of the head's answer, so large; return the head, None if nothing is asked."""
        head = self.head
        if head is None or head.sent_at is None:
            return None
        if head.first_at is None:
            head.first_at = now
        head.heard_at = now
        head.size += size
        return head

    def finish(self, n: int, now: float) -> list[Request]:
        """Take a Done: return the requests that it ends, oldest first."""
        if self._cancelling is not None and n >= self._cancelling:
            self._cancelling = None
        ended = []
        while self._requests and self._requests[0].n <= n and self._requests[0].sent_at is not None:
            ended.append(self._requests.popleft())
            self._mark_head(now)  # also of one that ends in the same moment
        return ended

    def cancel(self, n: int, now: float) -> tuple[list[Request], bool]:
        """Drop all up to n; return them, and whether the service has to be told."""
        dropped = []
        while self._requests and self._requests[0].n <= n:
            dropped.append(self._requests.popleft())
        must_tell = any(request.sent_at is not None for request in dropped)
        if must_tell:
            self._cancelling = n
            self._cancel_due = now + CANCEL_S
        self._mark_head(now)
        return dropped, must_tell

    def again(self, request: Request) -> bool:
        """Put a request that was ended back to the front; False when it has been tried enough, or
        some of its answer was used.
        """
        if request.first_at is not None or request.tries >= self._max_tries:
            return False
        request.sent_at = request.error = None
        self._requests.appendleft(request)
        return True

    def lose_connection(self, now: float) -> list[Request]:
        """Have everything wait for the next connection; return what cannot be asked again."""
        self._cancelling = None
        requests, self._requests = self._requests, deque()
        failed = []
        for request in reversed(requests):
            if request.sent_at is None:
                self._requests.appendleft(request)
            elif not self.again(request):
                failed.append(request)
        self._mark_head(now)
        return failed[::-1]

    def find(self, n: int) -> Request | None:
        """Return the request n."""
        return next((request for request in self._requests if request.n == n), None)

    def take_all(self) -> list[Request]:
        """Forget everything, and return it."""
        requests, self._requests = list(self._requests), deque()
        self._cancelling = None
        return requests

    def split(self, n: int) -> "Asked":
        """Move what was sent up to n to an `Asked` of its own, and return that; a cancelling that
        is under way goes with it.
        """
        other = Asked(self._timeout_s, self._budget_s, self._max_tries)
        other._cancelling, other._cancel_due = self._cancelling, self._cancel_due
        while self._requests and self._requests[0].n <= n and self._requests[0].sent_at is not None:
            other._requests.append(self._requests.popleft())
        return other

    @property
    def due(self) -> float | None:
        """When to ask `overdue`; None while nothing is awaited."""
        times = [at for at, _ in self._deadlines()]
        return min(times) if times else None

    def overdue(self, now: float) -> Verdict | None:
        """Return what is overdue, the gravest first."""
        verdicts = {verdict for at, verdict in self._deadlines() if at <= now}
        order: tuple[Verdict, ...] = ("budget", "cancel", "timeout")
        return next((verdict for verdict in order if verdict in verdicts), None)

    def _deadlines(self) -> list[tuple[float, Verdict]]:
        deadlines: list[tuple[float, Verdict]] = []
        if self._cancelling is not None:
            deadlines.append((self._cancel_due, "cancel"))
        head = self.head
        if head is None:
            return deadlines
        assert head.head_at is not None
        if head.first_at is not None:
            deadlines.append((head.heard_at + self._timeout_s, "timeout"))
            deadlines.append((head.head_at + MAX_REQUEST_S, "timeout"))
            return deadlines
        deadlines.append((head.head_at + self._budget_s, "budget"))
        if head.sent_at is not None:
            deadlines.append((max(head.sent_at, head.head_at) + self._timeout_s, "timeout"))
        return deadlines

    def _mark_head(self, now: float) -> None:
        head = self.head
        if head is not None and head.head_at is None:
            head.head_at = now
