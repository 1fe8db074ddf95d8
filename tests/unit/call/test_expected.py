"""Calls that were registered and have not come yet."""

from uuid import UUID

import pytest

from mediad.bus.commands import Ended, Expect
from mediad.call.expected import ARRIVAL_S, MAX_PAST, ExpectedCalls

CALL = Expect("customer", source="alice")
END = Ended("completed", "agent", "normal_clearing")


def uuid(number: int) -> UUID:
    return UUID(int=number)


@pytest.fixture
def expected() -> ExpectedCalls:
    """Three calls, registered at 0, 10 and 20 s."""
    calls = ExpectedCalls()
    for number in range(3):
        calls.add(uuid(number), CALL, now=10.0 * number)
    return calls


def test_uuid_works_once(expected: ExpectedCalls) -> None:
    assert not expected.is_used(uuid(1))
    assert expected.take(uuid(1)) == CALL
    assert expected.is_used(uuid(1))
    assert expected.knows(uuid(1))
    assert expected.take(uuid(1)) is None
    assert len(expected) == 2


def test_calls_are_counted_by_customer(expected: ExpectedCalls) -> None:
    expected.add(uuid(3), Expect("other"), now=30.0)
    assert (expected.count_of("customer"), expected.count_of("other")) == (3, 1)
    for _ in range(2):  # the second takes nothing
        expected.take(uuid(0))
        expected.take(uuid(3))
    assert (expected.count_of("customer"), expected.count_of("other")) == (2, 0)


def test_nobody_knows_what_was_not_registered(expected: ExpectedCalls) -> None:
    assert not expected.knows(uuid(7))
    assert not expected.is_used(uuid(7))
    assert expected.get(uuid(7)) is None
    assert expected.take(uuid(7)) is None


def test_call_is_overdue_a_minute_after_its_registration(expected: ExpectedCalls) -> None:
    assert expected.due == ARRIVAL_S
    assert expected.overdue(ARRIVAL_S - 0.001) == []
    assert expected.overdue(ARRIVAL_S) == [uuid(0)]
    assert expected.overdue(ARRIVAL_S + 15) == [uuid(0), uuid(1)]
    expected.take(uuid(0))
    assert expected.due == ARRIVAL_S + 10


def test_nothing_is_due_without_calls() -> None:
    assert ExpectedCalls().due is None
    assert ExpectedCalls().overdue(1e9) == []


def test_end_is_told_to_the_customer_only(expected: ExpectedCalls) -> None:
    expected.take(uuid(0))
    assert expected.end_of("customer", uuid(0)) is None
    expected.end(uuid(0), END)
    assert expected.end_of("customer", uuid(0)) == END
    assert expected.end_of("other", uuid(0)) is None
    assert expected.end_of("customer", uuid(1)) is None


def test_end_of_a_call_that_nobody_registered_is_not_remembered(expected: ExpectedCalls) -> None:
    expected.end(uuid(7), END)
    assert expected.end_of("customer", uuid(7)) is None
    assert not expected.knows(uuid(7))


def test_oldest_past_calls_are_forgotten() -> None:
    expected = ExpectedCalls()
    for number in range(MAX_PAST + 1):
        expected.add(uuid(number), CALL, now=0.0)
        expected.take(uuid(number))
    assert not expected.is_used(uuid(0))
    assert expected.is_used(uuid(1))
