"""Whether every caller of a soak is in mediad's books: as a call that has ended, or as a connection
that was closed for a reason.
"""

import re
from collections import Counter

from tests.books import Rows
from tests.soak.callers import Made

__all__ = ["check_books", "check_counters", "closed_connections", "totals"]

_CLOSED = re.compile(
    r'^mediad_audiosocket_connections_closed_total\{reason="(\w+)"\} (\S+)$', re.MULTILINE
)
# Why a connection is closed whose UUID has not been read: its caller was gone, or late. mediad
# cannot know which call that was, only that it was one.
_UNREAD = frozenset({"empty", "no_uuid", "uuid_timeout"})
_BROKEN = frozenset({"unknown_kind", "bad_length"})  # what broken callers send; theirs are calls


def totals(metrics: str) -> dict[str, float]:
    """Return what /metrics shows of mediad; samples with labels are summed."""
    found: dict[str, float] = {}
    for line in metrics.splitlines():
        if line.startswith("mediad_"):
            name, value = line.rsplit(" ", 1)
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


def closed_connections(metrics: str) -> Counter[str]:
    """Return how many connections were closed, by the reason that /metrics gives."""
    return Counter({reason: int(float(value)) for reason, value in _CLOSED.findall(metrics)})


def check_books(made: list[Made], rows: Rows, metrics: str) -> list[Made]:
    """Check that each caller is in the database with one end, and that the metrics say the same.

    Returns:
        Those that are not in the database because mediad never read their UUID, each of which it
        has counted.
    """
    unread = [call for call in made if call.call_id not in rows.calls]
    check_closed(made, unread, closed_connections(metrics))
    assert rows.calls <= {call.call_id for call in made}
    assert rows.ends.keys() == rows.calls
    assert set(rows.ends.values()) <= {1}
    assert rows.open_calls == []
    assert rows.sequences == list(range(1, len(rows.sequences) + 1))
    assert all(offsets == sorted(offsets) for offsets in rows.offsets.values())
    counted = totals(metrics)
    assert counted["mediad_calls_started_total"] == len(rows.calls)
    assert counted["mediad_calls_ended_total"] == len(rows.calls)
    return unread


def check_closed(made: list[Made], unread: list[Made], closed: Counter[str]) -> None:
    """Check that as many connections were closed unread as calls are missing, and none for a reason
    that no caller gave.
    """
    by_reason = {reason: count for reason, count in closed.items() if count}
    assert by_reason.keys() <= _UNREAD | _BROKEN, by_reason
    assert sum(closed[reason] for reason in _UNREAD) == len(unread), (by_reason, unread)
    assert not [call for call in unread if call.heard]
    assert sum(closed[reason] for reason in _BROKEN) <= sum(call.is_broken for call in made)


def check_counters(made: list[Made], counters: dict[str, dict[str, int]]) -> None:
    """Check that mediad had what callers sent, and sent what they heard.

    Args:
        made: The callers.
        counters: Those of each call that is in the database.
    """
    for call in made:
        kept = counters.get(call.call_id)
        if kept is None:
            continue
        sent = kept["played_frames"] + kept["silent_frames"]
        assert call.heard <= sent, call
        if call.is_whole:
            assert kept["caller_messages"] == call.messages, call
