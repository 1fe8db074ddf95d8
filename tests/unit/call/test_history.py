"""What a language model is told of the conversation."""

from mediad.call.history import MAX_CHARS, MAX_MESSAGES, History
from mediad.call.turn.actions import Why


def roles(history: History, why: Why = Why.ANSWER) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in history.messages(why)]


def test_the_prompt_comes_first() -> None:
    history = History("Be kind.")
    history.add_caller("Hello?")
    assert roles(history) == [("system", "Be kind."), ("user", "Hello?")]
    assert roles(History()) == []


def test_what_one_says_in_a_row_is_one_message() -> None:
    history = History()
    history.add_caller("I want")
    history.add_caller("to speak.")
    history.add_agent("Of course.")
    assert roles(history) == [("user", "I want to speak."), ("assistant", "Of course.")]


def test_the_task_comes_last_and_is_not_kept() -> None:
    history = History("Be kind.")
    role, content = roles(history, Why.OPEN)[-1]
    assert role == "system"
    assert "Begin the conversation" in content
    assert roles(history) == [("system", "Be kind.")]
    assert "Finish" in roles(history, Why.GO_ON)[-1][1]


def test_the_oldest_are_forgotten() -> None:
    history = History("Be kind.")
    for number in range(MAX_MESSAGES):
        history.add_caller(f"question {number}")
        history.add_agent(f"answer {number}")
    told = roles(history)
    assert len(told) == 1 + MAX_MESSAGES
    assert told[1] == ("user", f"question {MAX_MESSAGES // 2}")
    assert told[-1] == ("assistant", f"answer {MAX_MESSAGES - 1}")


def test_it_is_bounded_in_characters_and_the_newest_stays() -> None:
    history = History()
    for _ in range(5):
        history.add_caller("x" * MAX_CHARS)
        history.add_agent("y" * (MAX_CHARS // 2))
    assert roles(history) == [("assistant", "y" * (MAX_CHARS // 2))]
    history.add_agent("z" * MAX_CHARS)
    assert roles(history) == [("assistant", "z" * MAX_CHARS)]


def test_words_that_were_not_certain_are_replaced() -> None:
    history = History()
    history.add_caller("Hello.")
    history.add_caller("one")
    history.add_agent("One")
    history.add_caller("one two", instead_of="one")
    history.add_caller("and three")
    assert roles(history) == [
        ("user", "Hello. one two"),
        ("assistant", "One"),
        ("user", "and three"),
    ]
    history.add_caller("four", instead_of="that nobody said")
    assert roles(history)[-1] == ("user", "and three four")
