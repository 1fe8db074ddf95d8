"""What the built-in agent says: a scripted dialogue. Pure: words in, sentences out, no clock.

Two states, of which each call has one of its own:

    state     yes, no                  repeat       stop              digits, unknown
    ASKING    answer, next question    last reply   see below         its reply
    STOPPED   answer, next question    last reply   goodbye, the end  its reply

``stop`` over a sentence only silences it (to STOPPED); into a silence it ends the call.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["WORDS", "Dialogue", "Reply"]

WORDS = ("yes", "no", "repeat", "stop")
"""What the dialogue understands."""


class Reply(NamedTuple):
    """What to say next."""

    sentences: tuple[str, ...]
    ends: bool = False
    """Whether the call ends when it has been said."""


class _Topic(NamedTuple):
    question: str
    yes: str
    no: str


# The answers take five seconds and more: time enough to talk over them.
_TOPICS = (
    _Topic(
        "Would you like to hear a story?",
        "Here is the story of an old captain, who bought a lighthouse because he wanted a home "
        "that nobody could miss, and who never slept again, because every ship that passed by "
        "in the night greeted him with its horn.",
        "No story then, which is a pity, because it has a captain, a lighthouse and a great many "
        "ships in it, and it would have taken us less than half a minute.",
    ),
    _Topic(
        "Would you like to know the weather?",
        "The weather inside this computer is warm and dry, with a light wind from the fan, and it "
        "is going to stay like that until somebody opens the window.",
        "Then I keep the weather to myself, and you will have to look out of the window to learn "
        "whether the sun is shining or the rain is falling.",
    ),
    _Topic(
        "Shall I count to ten for you?",
        "One, two, three, four, five, six, seven, eight, nine, ten, and there is not one number "
        "missing.",
        "I do not count then, although I have practised all the numbers from one to ten for the "
        "whole of the afternoon.",
    ),
)

_GREETING = ("Hello, this is the mediad agent.", "You can say yes, no, repeat or stop.")
_NOT_UNDERSTOOD = ("Sorry, I did not understand you.", "Please say yes, no, repeat or stop.")
_STOPPED = "All right, I am quiet."
_GOODBYE = "Thank you for calling, and goodbye."

_DIGIT_NAMES = {
    **dict(
        zip(
            "0123456789",
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            strict=True,
        )
    ),
    "*": "star",
    "#": "hash",
}


@dataclass(slots=True)
class Dialogue:
    """One call's dialogue. Start with `greet`; then pass on what the caller does."""

    _topic: int = 0
    _stopped: bool = False
    _last: Reply = field(default_factory=lambda: Reply(()))

    def greet(self) -> Reply:
        """Return the first thing to say."""
        return self._ask(*_GREETING)

    def hear(self, text: str, *, over_agent: bool = False) -> Reply:
        """Return what to answer.

        Args:
            text: What the caller said, as it was understood; anything but `WORDS` is not.
            over_agent: Whether the caller interrupted the agent with it.
        """
        match text.strip().lower():
            case "yes":
                return self._answer(_TOPICS[self._topic].yes)
            case "no":
                return self._answer(_TOPICS[self._topic].no)
            case "repeat":
                return self._last
            case "stop" if over_agent and not self._stopped:
                self._stopped = True
                return self._ask(_STOPPED)
            case "stop":
                return Reply((_GOODBYE,), ends=True)
            case _:
                return Reply(_NOT_UNDERSTOOD)

    def press(self, digits: str) -> Reply:
        """Return what to answer to DTMF digits."""
        names = ", ".join(_DIGIT_NAMES.get(digit, digit) for digit in digits)
        return Reply((f"You pressed {names}.", _TOPICS[self._topic].question))

    def _answer(self, sentence: str) -> Reply:
        self._stopped = False
        self._topic = (self._topic + 1) % len(_TOPICS)
        return self._ask(sentence)

    def _ask(self, *sentences: str) -> Reply:
        self._last = Reply((*sentences, _TOPICS[self._topic].question))
        return self._last
