"""Calls that were registered: those whose AudioSocket is still to come, and what became of those
for which it has come, or will not come any more. Time is an argument, in monotonic seconds.

    expected    registered; a UUID works once
    taken       its AudioSocket has come: a call like any other
    ended       how it ended is remembered for a while; so is that its UUID was used
"""

from collections import Counter, OrderedDict
from uuid import UUID

from mediad.bus.commands import Ended, Expect

__all__ = ["ARRIVAL_S", "MARGIN", "MAX_PAST", "ExpectedCalls"]

ARRIVAL_S = 60.0
"""How long a call may take from its registration to its AudioSocket, in seconds."""

MARGIN = 100
"""Calls that may be expected beyond ``audiosocket.max_calls``: live ones end, expected ones do not
always come.
"""

MAX_PAST = 10_000
"""Calls remembered after they came or failed; the oldest are forgotten."""


class ExpectedCalls:
    """The registered calls of one process."""

    def __init__(self) -> None:
        self._expected: OrderedDict[UUID, tuple[float, Expect]] = OrderedDict()  # oldest first
        self._count_by_customer: Counter[str] = Counter()
        self._past: OrderedDict[UUID, tuple[str, Ended | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._expected)

    def count_of(self, customer_id: str) -> int:
        """Return how many of a customer's calls are expected."""
        return self._count_by_customer[customer_id]

    def knows(self, call_id: UUID) -> bool:
        """Tell whether a UUID was registered: once is enough."""
        return call_id in self._expected or call_id in self._past

    def is_used(self, call_id: UUID) -> bool:
        """Tell whether a UUID was registered and is worth nothing any more."""
        return call_id in self._past

    def get(self, call_id: UUID) -> Expect | None:
        """Return an expected call."""
        entry = self._expected.get(call_id)
        return entry and entry[1]

    def all(self) -> list[UUID]:
        """Return the expected calls, the first one first."""
        return list(self._expected)

    def add(self, call_id: UUID, call: Expect, now: float) -> None:
        """Expect a call."""
        self._expected[call_id] = (now + ARRIVAL_S, call)
        self._count_by_customer[call.customer_id] += 1

    def take(self, call_id: UUID) -> Expect | None:
        """Return an expected call, and expect it no more."""
        entry = self._expected.pop(call_id, None)
        if entry is None:
            return None
        call = entry[1]
        self._count_by_customer[call.customer_id] -= 1
        if not self._count_by_customer[call.customer_id]:
            del self._count_by_customer[call.customer_id]
        self._past[call_id] = (call.customer_id, None)
        if len(self._past) > MAX_PAST:
            self._past.popitem(last=False)
        return call

    def end(self, call_id: UUID, end: Ended) -> None:
        """Remember how a call ended, if it was taken."""
        if call_id in self._past:
            self._past[call_id] = (self._past[call_id][0], end)

    def end_of(self, customer_id: str, call_id: UUID) -> Ended | None:
        """Return how one of the customer's calls ended, as far as that is remembered."""
        owner, end = self._past.get(call_id, ("", None))
        return end if owner == customer_id else None

    @property
    def due(self) -> float | None:
        """When the next one is over, unless it comes; None without any."""
        return next((due for due, _ in self._expected.values()), None)

    def overdue(self, now: float) -> list[UUID]:
        """Return those that should have come by now."""
        return [call_id for call_id, (due, _) in self._expected.items() if due <= now]
