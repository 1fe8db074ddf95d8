"""The queue before the journal: its bounds, and when it wakes the thread."""

import pytest

from mediad.bus.events import Event
from mediad.store import fact_queue
from mediad.store.fact_queue import FactQueue
from tests.facts import CallFacts


@pytest.fixture
def wakes() -> list[None]:
    return []


@pytest.fixture
def queue(wakes: list[None]) -> FactQueue:
    return FactQueue(lambda: wakes.append(None))


def said(text: str = "") -> Event:
    return CallFacts().said(text)


def test_facts_are_taken_in_order(queue: FactQueue) -> None:
    facts = CallFacts().whole()
    assert all(queue.offer(fact) for fact in facts)
    assert [queue.take() for _ in range(len(facts) + 1)] == [*facts, None]


def test_wakes_once_until_it_is_looked_into(queue: FactQueue, wakes: list[None]) -> None:
    for _ in range(3):
        queue.offer(said())
    assert len(wakes) == 1
    queue.begin()
    queue.offer(said())
    assert len(wakes) == 2


def test_too_many_are_refused_and_counted(
    queue: FactQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fact_queue, "MAX_QUEUED", 3)
    assert [queue.offer(said()) for _ in range(5)] == [True, True, True, False, False]
    assert (len(queue), queue.refused) == (3, 2)


def test_too_large_ones_are_refused(queue: FactQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_queue, "MAX_QUEUED_BYTES", 10_000)
    assert queue.offer(said("x" * 9_000))
    assert not queue.offer(said("x" * 1_000))
    nested = Event("call_created", "c", 0.0, {"metadata": {"deep": {"text": "x" * 9_000}}})
    assert not queue.offer(nested)


def test_end_of_a_call_is_kept_when_there_is_no_room_for_others(
    queue: FactQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fact_queue, "MAX_QUEUED", 3)
    ends = [CallFacts().hungup() for _ in range(4)]
    for _ in range(4):
        queue.offer(said())
    assert [queue.offer(end) for end in ends] == [True, True, True, False]


def test_what_is_taken_needs_room_until_it_is_settled(
    queue: FactQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fact_queue, "MAX_QUEUED", 1)
    queue.offer(said())
    queue.take()
    assert not queue.offer(said())
    queue.settle()
    assert len(queue) == 0
    assert queue.offer(said())
