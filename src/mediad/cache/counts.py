"""How often something has happened, as this process knows it. For all processes Redis counts."""

from collections import OrderedDict
from typing import NamedTuple

from mediad.cache.keys import Key

__all__ = ["MAX_COUNTS", "Count", "Counts"]

MAX_COUNTS = 10_000
"""Keys that are counted at once; one more, and the one left alone the longest begins anew."""


class Count(NamedTuple):
    """How often it has happened under a key."""

    number: int
    ends_in_s: float
    """Until it is forgotten, in seconds."""


class Counts:
    """Counts by key, each of which ends so long after it began; ``now`` is in monotonic seconds."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()  # and when each ends

    def add(self, key: Key, now: float) -> Count:
        """Count one more."""
        number, ends_at = self._counts.get(key.text, (0, now))
        count = Count(number + 1, ends_at - now) if now < ends_at else Count(1, key.ttl_s)
        self.put(key, count, now)
        return count

    def put(self, key: Key, count: Count, now: float) -> None:
        """Go on from what was counted elsewhere."""
        self._counts[key.text] = (count.number, now + count.ends_in_s)
        self._counts.move_to_end(key.text)
        if len(self._counts) > MAX_COUNTS:
            self._counts.popitem(last=False)
