"""What the built-in agent answers."""

import pytest

from mediad.speech.dialogue import WORDS, Dialogue, Reply


@pytest.fixture
def dialogue() -> Dialogue:
    """A dialogue that has asked its first question."""
    dialogue = Dialogue()
    dialogue.greet()
    return dialogue


def question(reply: Reply) -> str:
    return reply.sentences[-1]


def test_greeting_names_the_words_and_asks() -> None:
    reply = Dialogue().greet()
    assert all(word in " ".join(reply.sentences) for word in WORDS)
    assert question(reply).endswith("?")
    assert not reply.ends


def test_yes_and_no_are_answered_differently() -> None:
    yes, no = Dialogue(), Dialogue()
    assert yes.hear("yes").sentences[0] != no.hear("no").sentences[0]


def test_answer_ends_with_the_next_question(dialogue: Dialogue) -> None:
    first = question(dialogue.greet())
    second = question(dialogue.hear("yes"))
    third = question(dialogue.hear("no"))
    assert len({first, second, third}) == 3


def test_goes_on_for_ever(dialogue: Dialogue) -> None:
    replies = [dialogue.hear("yes") for _ in range(10)]
    assert not any(reply.ends for reply in replies)
    assert replies[0] == replies[3]


def test_repeat_says_the_last_answer_again(dialogue: Dialogue) -> None:
    answer = dialogue.hear("yes")
    assert dialogue.hear("repeat") == answer
    assert dialogue.hear("repeat") == answer


def test_repeat_after_something_unknown_says_the_last_answer_again(dialogue: Dialogue) -> None:
    answer = dialogue.hear("yes")
    dialogue.hear("")
    assert dialogue.hear("repeat") == answer


def test_stop_into_a_silence_ends_with_a_goodbye(dialogue: Dialogue) -> None:
    reply = dialogue.hear("stop")
    assert "goodbye" in reply.sentences[0]
    assert reply.ends


def test_stop_over_the_agent_only_silences_it(dialogue: Dialogue) -> None:
    asked = question(dialogue.hear("yes"))
    reply = dialogue.hear("stop", over_agent=True)
    assert not reply.ends
    assert question(reply) == asked


def test_second_stop_in_a_row_ends_even_over_the_agent(dialogue: Dialogue) -> None:
    dialogue.hear("stop", over_agent=True)
    assert dialogue.hear("stop", over_agent=True).ends


def test_answer_after_a_stop_starts_over(dialogue: Dialogue) -> None:
    dialogue.hear("stop", over_agent=True)
    dialogue.hear("yes")
    assert not dialogue.hear("stop", over_agent=True).ends


@pytest.mark.parametrize("text", ["", "banana", "yes please"])
def test_unknown_words_make_it_say_which_it_knows(dialogue: Dialogue, text: str) -> None:
    reply = dialogue.hear(text)
    assert all(word in reply.sentences[-1] for word in WORDS)
    assert not reply.ends


def test_case_and_blanks_do_not_matter(dialogue: Dialogue) -> None:
    assert dialogue.hear(" Yes ") == Dialogue().hear("yes")


@pytest.mark.parametrize(("digit", "name"), [("0", "zero"), ("5", "five"), ("#", "hash")])
def test_digit_is_named_and_the_question_asked_again(
    dialogue: Dialogue, digit: str, name: str
) -> None:
    asked = question(dialogue.greet())
    assert dialogue.press(digit).sentences == (f"You pressed {name}.", asked)


def test_digit_without_a_name_is_spelt(dialogue: Dialogue) -> None:
    assert dialogue.press("A").sentences[0] == "You pressed A."
