"""How often something has happened: when a count ends, and what many keys take."""

import pytest

from mediad.cache import counts
from mediad.cache.counts import Count, Counts
from mediad.cache.keys import Keys

KEYS = Keys("mediad", "test")
CALLS = KEYS.rate_limit("a key", "calls:create")
TESTS = KEYS.rate_limit("a key", "webhooks:test")


def test_each_is_one_more_until_the_end_of_the_first() -> None:
    counts = Counts()
    assert counts.add(CALLS, now=0.0) == Count(1, 900)
    assert counts.add(CALLS, now=100.0) == Count(2, 800)
    assert counts.add(CALLS, now=899.0) == Count(3, 1)
    assert counts.add(CALLS, now=900.0) == Count(1, 900)
    assert counts.add(CALLS, now=5000.0) == Count(1, 900)


def test_keys_are_counted_each_by_itself() -> None:
    counts = Counts()
    counts.add(CALLS, now=10.0)
    assert counts.add(TESTS, now=20.0) == Count(1, 900)
    assert counts.add(CALLS, now=20.0) == Count(2, 890)


def test_what_was_counted_elsewhere_goes_on_here() -> None:
    counts = Counts()
    counts.add(CALLS, now=0.0)
    counts.put(CALLS, Count(70, 60.0), now=10.0)
    assert counts.add(CALLS, now=30.0) == Count(71, 40)
    assert counts.add(CALLS, now=70.0) == Count(1, 900)


def test_of_too_many_the_one_left_alone_the_longest_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counts, "MAX_COUNTS", 2)
    bounded = Counts()
    for key in (CALLS, TESTS, CALLS, KEYS.rate_limit("another", "calls:create")):
        bounded.add(key, now=0.0)
    assert bounded.add(CALLS, now=1.0).number == 3
    assert bounded.add(TESTS, now=1.0).number == 1
