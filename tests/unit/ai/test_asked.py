"""What a service was asked for: by when it must answer, what a cancelling does, what is lost."""

from mediad.ai.services.asked import CANCEL_S, MAX_REQUEST_S, Asked, Request

TIMEOUT_S = 2.0
BUDGET_S = 5.0


def make() -> Asked:
    return Asked(TIMEOUT_S, BUDGET_S, max_tries=3)


def ask(asked: Asked, n: int, now: float, *, is_sent: bool = True) -> Request:
    request = Request(n, b"", now)
    asked.ask(request, now)
    if is_sent:
        asked.sent(request, now)
    return request


def test_nothing_is_due_while_nothing_is_asked() -> None:
    asked = make()
    assert asked.due is None
    assert asked.overdue(1e9) is None
    assert asked.hear(1, 0.0) is None
    assert asked.finish(7, 0.0) == []


def test_what_waits_for_a_connection_has_its_budget() -> None:
    asked = make()
    ask(asked, 1, 10.0, is_sent=False)
    assert asked.due == 10.0 + BUDGET_S
    assert asked.overdue(14.9) is None
    assert asked.overdue(15.0) == "budget"


def test_first_output_is_awaited_since_it_was_sent() -> None:
    asked = make()
    ask(asked, 1, 10.0)
    assert asked.due == 10.0 + TIMEOUT_S
    assert asked.overdue(12.0) == "timeout"


def test_each_part_of_an_answer_gives_it_more_time() -> None:
    asked = make()
    request = ask(asked, 1, 10.0)
    assert asked.hear(3, 11.0) is request
    assert asked.hear(4, 12.5) is request
    assert (request.first_at, request.size) == (11.0, 7)
    assert asked.due == 12.5 + TIMEOUT_S


def test_answer_without_end_ends() -> None:
    asked = make()
    ask(asked, 1, 0.0)
    now = 0.0
    while asked.overdue(now) is None:
        asked.hear(1, now)
        now += 1.0
    assert now == MAX_REQUEST_S


def test_time_of_a_request_begins_with_the_end_of_the_one_before_it() -> None:
    asked = make()
    ask(asked, 1, 10.0)
    second = ask(asked, 2, 10.0)
    asked.hear(1, 11.5)
    assert second.head_at is None
    assert [request.n for request in asked.finish(1, 13.0)] == [1]
    assert second.head_at == 13.0
    assert asked.due == 13.0 + TIMEOUT_S


def test_done_ends_all_up_to_it() -> None:
    asked = make()
    for n in (1, 2, 5):
        ask(asked, n, 0.0)
    assert [request.n for request in asked.finish(2, 1.0)] == [1, 2]
    assert asked.finish(2, 1.0) == []
    ask(asked, 6, 0.5)
    ended = asked.finish(9, 2.0)
    assert [(request.n, request.head_at) for request in ended] == [(5, 1.0), (6, 2.0)]


def test_done_of_what_was_not_sent_ends_nothing() -> None:
    asked = make()
    ask(asked, 1, 0.0, is_sent=False)
    assert asked.finish(1, 0.0) == []
    assert len(asked) == 1


def test_cancelling_waits_for_its_done_and_no_longer_than_half_a_second() -> None:
    asked = make()
    ask(asked, 1, 0.0)
    ask(asked, 2, 0.0)
    dropped, must_tell = asked.cancel(2, 1.0)
    assert [request.n for request in dropped] == [1, 2]
    assert must_tell
    ask(asked, 3, 1.1)
    assert asked.cancelling == 2
    assert asked.finish(1, 1.2) == []  # what it had done before it heard of it
    assert asked.cancelling == 2
    assert asked.overdue(1.0 + CANCEL_S) == "cancel"
    assert asked.finish(2, 1.3) == []
    assert asked.cancelling is None
    assert asked.head is not None
    assert asked.head.n == 3


def test_cancelling_what_was_not_sent_tells_nobody() -> None:
    asked = make()
    ask(asked, 1, 0.0, is_sent=False)
    assert asked.cancel(1, 0.0)[1] is False
    assert asked.cancelling is None
    assert asked.cancel(9, 0.0) == ([], False)


def test_lost_connection_leaves_what_has_no_output() -> None:
    asked = make()
    half, later, waiting = ask(asked, 1, 0.0), ask(asked, 2, 0.0), ask(asked, 3, 0.0, is_sent=False)
    asked.hear(1, 1.0)
    assert asked.lose_connection(2.0) == [half]
    assert asked.unsent() == [later, waiting]
    assert later.head_at == 2.0
    assert [later.tries, waiting.tries] == [1, 0]


def test_nothing_is_asked_for_ever() -> None:
    asked = make()
    request = ask(asked, 1, 0.0)
    for _ in range(2):
        assert asked.lose_connection(1.0) == []
        asked.sent(request, 1.0)
    assert asked.lose_connection(1.0) == [request]
    assert len(asked) == 0


def test_lost_connection_ends_a_cancelling() -> None:
    asked = make()
    ask(asked, 1, 0.0)
    asked.cancel(1, 0.0)
    asked.lose_connection(0.1)
    assert asked.cancelling is None


def test_split_takes_what_was_sent_and_the_cancelling() -> None:
    asked = make()
    ask(asked, 1, 0.0)
    asked.cancel(1, 0.0)
    for n in (2, 3, 4):
        ask(asked, n, 0.0)
    other = asked.split(3)
    assert (other.cancelling, len(other), len(asked)) == (1, 2, 1)
    assert other.find(3) is not None
    assert asked.find(3) is None
    assert len(other.take_all()) == 2
    assert len(other) == 0
