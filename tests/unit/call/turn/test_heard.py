"""What of an answer was heard."""

import pytest

from mediad.call.turn.heard import MAX_WORDS, Heard, Spoken, heard

TEXT = "Your order, number 3, is on its way."
OFFSETS = [("Your", 0.0), ("order,", 0.3), ("number", 0.7), ("3,", 1.0), ("is", 1.5), ("on", 1.7)]


def first(words: list[tuple[str, float]] | None = None) -> Spoken:
    """Return a sentence of three seconds that began after ten."""
    sentence = Spoken(TEXT, 10.0, 13.0, is_complete=True)
    for text, offset_s in words or []:
        sentence.add_word(text, offset_s)
    return sentence


@pytest.mark.parametrize(
    ("played_s", "text"),
    [
        (10.0, ""),
        (10.02, "Your"),
        (10.28, "Your"),
        (10.32, "Your order,"),
        (11.2, "Your order, number 3,"),
        (12.9, "Your order, number 3, is on"),
        (13.0, TEXT),
        (20.0, TEXT),
    ],
)
def test_offsets_tell_the_last_word(played_s: float, text: str) -> None:
    assert heard([first(OFFSETS)], played_s) == Heard(text, False)


@pytest.mark.parametrize(
    ("played_s", "text"),
    [(10.1, ""), (10.5, "Your"), (11.0, "Your order,"), (12.0, "Your order, number 3, is")],
)
def test_without_offsets_the_share_is_rounded_down_to_a_word(played_s: float, text: str) -> None:
    assert heard([first()], played_s) == Heard(text, True)


def test_whole_sentences_are_no_estimate() -> None:
    second = Spoken("It will come soon.", 13.0, 14.5, is_complete=True)
    assert heard([first(), second], 13.0) == Heard(TEXT, False)
    assert heard([first(), second], 13.8) == Heard(f"{TEXT} It will", True)
    assert heard([first(), second], 15.0) == Heard(f"{TEXT} It will come soon.", False)


def test_words_said_in_another_way_are_taken_as_they_were_said() -> None:
    words = [("Your", 0.0), ("order", 0.3), ("number", 0.7), ("three", 1.0)]
    assert heard([first(words)], 11.5).text == "Your order number three"


def test_a_word_that_comes_twice_is_found_in_its_place() -> None:
    sentence = Spoken("no no no yes", 0.0, 2.0, is_complete=True)
    for index, word in enumerate(["no", "no", "no", "yes"]):
        sentence.add_word(word, index * 0.5)
    assert heard([sentence], 0.9).text == "no no"


def test_a_sentence_still_coming_is_taken_to_last_as_long_as_speech_does() -> None:
    text = "a b c d e f g h i j k l m n "  # 28 characters: 2 s
    assert heard([Spoken(text, 0.0, 0.5)], 0.5) == Heard("a b c d", True)
    assert heard([Spoken(text, 0.0, 4.0)], 2.0) == Heard("a b c d e f g", True)


def test_text_without_spaces_is_cut_at_a_character() -> None:
    assert heard([Spoken("今天天气很好", 0.0, 3.0, True)], 1.6).text == "今天天"


def test_nothing_queued_nothing_heard() -> None:
    assert heard([], 5.0) == Heard("", False)
    assert heard([Spoken("Never.", 5.0, 5.0)], 5.0) == Heard("", False)
    assert heard([Spoken("", 1.0, 1.0)], 5.0) == Heard("", True)


def test_words_are_bounded() -> None:
    sentence = first([("a", 0.0)] * (MAX_WORDS + 1))
    assert len(sentence.words) == MAX_WORDS


def test_a_sentence_without_room_for_its_end_is_heard_in_part() -> None:
    sentence = first(OFFSETS)
    sentence.lost_s = 1.0
    sentence.end_s = 11.2
    assert heard([sentence], 20.0) == Heard("Your order, number 3,", False)
    none = Spoken("Never.", 11.2, 11.2, is_complete=True, lost_s=2.0)
    assert heard([none], 20.0).text == ""
