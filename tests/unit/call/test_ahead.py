"""How much speech is asked for ahead."""

import pytest

from mediad.call.ahead import MAX_COMING, Ahead, Coming

TEXT = "x" * 42
LENGTH_S = 3.3
"""At 14 characters a second, with a pause."""


def coming(ahead: Ahead, count: int) -> list[Coming]:
    """Return texts of which nothing has come yet."""
    return [Coming(TEXT, ahead.length_s(TEXT)) for _ in range(count)]


def test_no_more_is_asked_than_fits_when_all_of_it_has_come() -> None:
    ahead = Ahead(20.0, 1.0)  # of which it counts on 15 s
    assert ahead.length_s(TEXT) == pytest.approx(LENGTH_S)
    assert ahead.has_room(TEXT, 0.0, coming(ahead, 3))
    assert not ahead.has_room(TEXT, 0.0, coming(ahead, 4))
    assert ahead.has_room(TEXT, 15.0 - LENGTH_S - 0.1, [])
    assert not ahead.has_room(TEXT, 15.0 - LENGTH_S + 0.1, [])


def test_what_has_come_is_counted_once() -> None:
    ahead = Ahead(20.0, 1.0)
    texts = coming(ahead, 4)
    for text in texts:
        text.came_s = LENGTH_S
    assert not ahead.has_room(TEXT, 4 * LENGTH_S, texts)
    assert ahead.has_room(TEXT, 3 * LENGTH_S, texts)
    texts[0].came_s = 9.0
    assert texts[0].left_s == 0.0


def test_no_more_than_so_many_sentences_are_asked() -> None:
    ahead = Ahead(600.0, 1.0)
    assert ahead.has_room("x", 0.0, [Coming("x", 0.1)] * (MAX_COMING - 1))
    assert not ahead.has_room("x", 0.0, [Coming("x", 0.1)] * MAX_COMING)


def test_a_text_that_never_fits_is_asked_when_nothing_is_left_to_hear() -> None:
    ahead = Ahead(2.0, 1.0)
    assert not ahead.has_room(TEXT, 1.0, [])
    assert ahead.has_room(TEXT, 0.4, [])
    assert not ahead.has_room(TEXT, 0.0, [Coming("x", 0.1)])


def test_a_slow_voice_is_expected_to_stay_slow() -> None:
    ahead = Ahead(60.0, 1.0)
    assert Ahead(60.0, 0.5).length_s(TEXT) > 6.0
    ahead.learn(TEXT, 1.0)
    assert ahead.length_s(TEXT) == pytest.approx(LENGTH_S)  # a fast one may slow down
    ahead.learn(TEXT, 12.0)
    assert ahead.length_s(TEXT) > 6.0
