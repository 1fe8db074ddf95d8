"""The dialogue as a language model: the conversation is all it knows."""

from mediad.speech.dialogue import Dialogue
from mediad.speech.roles.llm import reply_to

Message = dict[str, object]


def said(*turns: str) -> list[Message]:
    """Return a conversation; the assistant begins."""
    roles = ("assistant", "user")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def full(messages: list[Message]) -> str:
    return " ".join(reply_to(messages).sentences)


def test_it_greets_when_nothing_was_said() -> None:
    greeting = Dialogue().greet()
    assert reply_to([]) == greeting
    assert reply_to([{"role": "system", "content": "You are a pirate."}]) == greeting


def test_it_follows_the_conversation_as_the_dialogue_does() -> None:
    dialogue = Dialogue()
    turns = [" ".join(dialogue.greet().sentences)]
    for word in ("yes", "no", "repeat", "banana", "5*"):
        turns.append(word)
        reply = dialogue.press(word) if word == "5*" else dialogue.hear(word)
        assert reply_to(said(*turns)) == reply
        turns.append(" ".join(reply.sentences))


def test_who_did_not_hear_the_end_has_talked_over_it() -> None:
    answer = full(said("Hello.", "yes"))
    over = reply_to(said("Hello.", "yes", answer[:30], "stop"))
    after = reply_to(said("Hello.", "yes", answer, "stop"))
    assert (over.ends, after.ends) == (False, True)


def test_another_greeting_is_not_taken_for_one_that_was_cut() -> None:
    assert reply_to(said("Welcome to the lighthouse!", "stop")).ends


def test_what_is_no_text_is_passed_over() -> None:
    parts: list[Message] = [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "user"}]
    assert reply_to(parts) == Dialogue().greet()
