"""An answer from text to ear."""

from mediad.call.turn.answer import Answer
from mediad.call.turn.heard import Heard


def test_it_starts_with_its_first_audio_and_finishes_with_its_last() -> None:
    answer = Answer()
    answer.add(4, "One two.")
    assert not answer.has_started(9.0)
    answer.on_audio(4, 10.0, 10.5)
    assert not answer.has_started(10.0)
    assert answer.has_started(10.02)
    answer.on_audio(4, 10.5, 11.0)
    answer.on_done(4)
    assert not answer.has_finished(11.0)
    answer.add(5, "Three.")
    answer.end()
    assert not answer.has_finished(11.0)
    answer.on_audio(5, 11.0, 12.0)
    assert not answer.has_finished(12.0)
    answer.on_done(5)
    assert not answer.has_finished(11.98)
    assert answer.has_finished(12.0)


def test_it_tells_what_was_heard() -> None:
    answer = Answer()
    answer.add(1, "One two.")
    answer.add(2, "Three four.")
    answer.on_audio(1, 0.0, 1.0)
    answer.on_word(1, "One", 0.0)
    answer.on_word(1, "two.", 0.5)
    answer.on_done(1)
    answer.on_audio(2, 1.0, 2.0)
    answer.on_done(2)
    assert answer.heard(0.4) == Heard("One", False)
    assert answer.heard(1.0) == Heard("One two.", False)
    assert answer.heard(1.6) == Heard("One two. Three", True)
    assert answer.heard(2.0) == Heard("One two. Three four.", False)


def test_a_sentence_without_audio_is_not_waited_for() -> None:
    answer = Answer()
    answer.add(1, "…1")
    answer.add(2, "Two.")
    answer.end()
    answer.on_done(1)
    answer.on_audio(2, 0.0, 1.0)
    answer.on_done(2)
    assert answer.has_finished(1.0)
    assert answer.heard(1.0) == Heard("Two.", False)


def test_an_answer_of_nothing_has_finished_and_never_started() -> None:
    answer = Answer()
    assert not answer.has_finished(0.0)
    answer.end()
    assert answer.has_finished(0.0)
    assert not answer.has_started(5.0)


def test_what_comes_of_others_is_nothing() -> None:
    answer = Answer()
    answer.on_audio(3, 0.0, 1.0)
    answer.on_word(3, "x", 0.0)
    answer.on_done(3)
    assert answer.heard(1.0) == Heard("", False)


def test_what_was_lost_was_not_heard() -> None:
    answer = Answer()
    answer.add(1, "One two three four.")
    answer.on_audio(1, 0.0, 1.0)
    answer.on_lost(1, 1.0)
    answer.on_lost(9, 1.0)  # of nothing
    answer.on_done(1)
    answer.add(2, "Five.")
    answer.on_audio(2, 1.0, 2.0)
    answer.on_done(2)
    assert answer.heard(1.0) == Heard("One two", True)
    assert answer.heard(2.0) == Heard("One two Five.", True)


def test_what_does_not_come_any_more_is_not_waited_for() -> None:
    answer = Answer()
    answer.add(1, "One two.")
    answer.on_audio(1, 0.0, 1.0)
    answer.on_done(1)
    answer.add(2, "Three four.")
    answer.on_word(2, "Three", 0.0)
    answer.on_word(2, "four.", 0.6)
    answer.on_audio(2, 1.0, 1.5)
    answer.add(3, "Five.")
    answer.give_up()
    assert not answer.has_finished(1.4)
    assert answer.has_finished(1.5)
    assert answer.heard(1.5) == Heard("One two. Three", False)
