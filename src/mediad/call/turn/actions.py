"""What the turn machine asks for. Whoever runs the call does them, in their order.

A turn has one number; numbers only rise, not always by one. It is opened by `EndOfTurn`,
`Generate` or `Say`, whichever names it first, and closed by one `TurnEnded`.
"""

from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "Action",
    "AddWords",
    "AskWords",
    "CallerStarted",
    "CallerStopped",
    "CancelTurn",
    "EndOfTurn",
    "Ended",
    "Generate",
    "GiveUp",
    "Overdue",
    "PausePlayout",
    "ResumePlayout",
    "Say",
    "Speech",
    "TurnEnded",
    "WasNoise",
    "Why",
    "WordsLost",
]


class Why(StrEnum):
    """What the language model is to do."""

    ANSWER = "answer"  # what the caller said
    OPEN = "open"  # begin the conversation: nobody has said anything
    GO_ON = "go_on"  # noise cut its answer short: finish it


class Speech(StrEnum):
    """What is said without the language model."""

    FIRST_MESSAGE = "first_message"
    NO_INPUT = "no_input"
    FALLBACK = "fallback"
    TEXT = "text"  # the next of the texts, or files, that `on_text_to_say` told of


class Ended(StrEnum):
    """How a turn ended."""

    FINISHED = "finished"  # it was said to its end
    EMPTY = "empty"  # the caller had said no word
    INTERRUPTED = "interrupted"  # the caller spoke over it
    CONTINUED = "continued"  # the caller spoke on before a word of it was heard
    FAILED = "failed"  # a service failed, or was silent for too long
    OVER = "over"  # the call ended


class CallerStarted(NamedTuple):
    """The caller has begun to speak: tell whoever watches."""


class CallerStopped(NamedTuple):
    """The caller has stopped speaking: tell whoever watches."""


class AskWords(NamedTuple):
    """The caller has spoken while the turn was the agent's. Ask the STT service for what it has
    (user-stopped-speaking {n}): some tell nothing before. Nothing waits for its mediad-done.
    """

    n: int


class EndOfTurn(NamedTuple):
    """The caller has finished. Ask the STT service for its finals (user-stopped-speaking {n})."""

    n: int
    by: str
    """``silence``, ``stt`` or ``length``."""


class Generate(NamedTuple):
    """Have the language model answer, and what it says spoken, sentence by sentence."""

    n: int
    why: Why
    text: str
    """What the caller said, for the history; empty unless it is an answer."""


class Say(NamedTuple):
    """Speak a text that is there already."""

    n: int
    speech: Speech
    nth: int
    """Which time in a row, from 1: the second prompt may say something else."""


class AddWords(NamedTuple):
    """Add words to the caller's side of the history; no answer is asked for."""

    text: str
    instead_of: str = ""
    """What they replace of it: words that were answered before they were certain."""


class WordsStand(NamedTuple):
    """The caller's words that were answered before they were certain are all there is of them."""

    text: str


class PausePlayout(NamedTuple):
    """Hold the playout: silence from the next frame on, nothing is dropped."""


class ResumePlayout(NamedTuple):
    """Let the playout go on."""

    repeat: bool
    """It stopped within a word: from the nearest quiet within the last 200 ms."""


class Overdue(NamedTuple):
    """A service has given turn ``n`` neither what it waits for nor word that it fails: that is its
    failure. `CancelTurn` follows.
    """

    n: int
    awaits_words: bool
    """The STT service's; else an answer, of the LLM or the TTS service."""


class WordsLost(NamedTuple):
    """The STT service was lost, and with it words of turn ``n``: that is its failure. `CancelTurn`
    follows.
    """

    n: int


class CancelTurn(NamedTuple):
    """Cancel LLM and TTS up to ``n``; cut the history at what was heard, then flush the playout,
    which ends a hold. Every frame of a turn up to ``n`` that still comes is dropped.
    """

    n: int
    how: Ended
    """How the turn ends by it: `TurnEnded` follows."""


class TurnEnded(NamedTuple):
    """Nothing more will be asked for this turn."""

    n: int
    how: Ended


class WasNoise(NamedTuple):
    """What the agent fell silent for, or was cut short by, was nobody who spoke."""


class GiveUp(NamedTuple):
    """End the call. Nothing follows but `WordsStand`, when it is over."""

    reason: str
    """``hang_up`` (the agent's own wish), ``no_input``, ``session_timeout`` or ``failures``."""


Action = (
    AddWords
    | AskWords
    | CallerStarted
    | CallerStopped
    | CancelTurn
    | EndOfTurn
    | Generate
    | GiveUp
    | Overdue
    | PausePlayout
    | ResumePlayout
    | Say
    | TurnEnded
    | WasNoise
    | WordsLost
    | WordsStand
)
