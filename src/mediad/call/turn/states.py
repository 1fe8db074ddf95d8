"""The states of the turn machine, and the timers that move it on."""

from enum import StrEnum

__all__ = ["OF_A_TURN", "State", "Timer"]


class State(StrEnum):
    """Whose turn it is."""

    SILENT = "silent"
    SPEAKING = "speaking"
    THINKING = "thinking"
    AGENT = "agent"
    OVER = "over"


class Timer(StrEnum):
    """What is waited for; each has at most one moment."""

    SESSION = "session"
    GRACE = "grace"
    SILENCE = "silence"
    LENGTH = "length"
    PATIENCE = "patience"  # with words that may still change
    STALE = "stale"  # words up to then may belong to the turn before
    FINALS = "finals"  # the STT service should have failed by then
    ANSWER = "answer"  # the LLM or the TTS service should have
    DELAY = "delay"
    FINAL = "final"  # the overlap becomes a barge-in
    RESUME = "resume"  # the overlap was noise
    NO_INPUT = "no_input"


OF_A_TURN = (Timer.PATIENCE, Timer.FINALS, Timer.ANSWER, Timer.DELAY, Timer.FINAL, Timer.RESUME)
"""Those that end with the turn."""
