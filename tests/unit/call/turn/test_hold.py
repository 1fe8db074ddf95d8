"""Why the playout is held."""

from mediad.call.turn.actions import PausePlayout, ResumePlayout
from mediad.call.turn.hold import Hold


def test_it_is_held_from_the_first_reason_to_the_last() -> None:
    hold = Hold()
    assert not hold
    assert hold.add("delay") == [PausePlayout()]
    assert hold.add("overlap") == []
    assert hold.add("overlap") == []
    assert hold.drop("delay", repeat=True) == []
    assert hold
    assert hold.drop("overlap", repeat=True) == [ResumePlayout(repeat=True)]
    assert hold.drop("overlap", repeat=True) == []
    assert not hold


def test_all_reasons_may_end_at_once() -> None:
    hold = Hold()
    assert hold.end() == []
    hold.add("delay")
    hold.add("overlap")
    assert hold.end() == [ResumePlayout(repeat=False)]
    assert not hold


def test_a_flush_ends_it_without_a_word() -> None:
    hold = Hold()
    hold.add("delay")
    hold.forget()
    assert hold.end() == []
    assert hold.add("delay") == [PausePlayout()]
