"""How turns are taken, for one call."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["EndBy", "TurnOptions"]


class EndBy(StrEnum):
    """Who decides that the caller has finished."""

    SILENCE = "silence"
    STT = "stt"
    """The STT service; silence of ``stt_patience_s`` in its place, should it forget."""
    BOTH = "both"
    """Whoever is first."""


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """The first five are the agent's own; the rest are mediad's. All in seconds."""

    user_start_first: bool = False
    """The agent says nothing before the caller has."""
    has_first_message: bool = False
    """There is a text to begin with; else the language model begins. If the caller starts first,
    it is the answer to the caller's first words.
    """
    interruption_allowed: bool = True
    """The caller may speak over the agent. If not, it is answered when the agent has finished."""
    response_delay_s: float = 0.5
    """From the end of the caller's turn to the agent's first sound, at least."""
    session_timeout_s: float = 300.0
    """Longest call."""

    end_by: EndBy = EndBy.SILENCE
    end_silence_s: float = 0.7
    """So much silence ends a caller's turn."""
    stt_patience_s: float = 3.0
    min_speech_s: float = 0.15
    """Less than this, with no word recognised, was nothing."""
    max_speech_s: float = 60.0
    """Longest turn of a caller; then it is answered whether it has ended or not."""
    grace_s: float = 0.5
    """At the start the line crackles and the gate learns: only words count."""

    final_after_s: float = 0.7
    """Speech over the agent of this length is a barge-in; a word makes it one at once."""
    resume_after_s: float = 0.25
    """After so much quiet the agent goes on."""

    # A service that fails says so itself, in its own time. These are longer, for one that does not;
    # their values here are those for the settings' defaults.
    finals_patience_s: float = 1.0
    """For the finals, where there are words that may still change; then those are answered."""
    finals_timeout_s: float = 8.0
    """For the first word of a turn, or the STT service's word that there is none."""
    answer_timeout_s: float = 25.0
    """From what is asked of the LLM to the first frame that is heard."""
    speech_timeout_s: float = 11.0
    """The same of a text that is there already."""
    max_failures: int = 3
    """Failed turns in a row; then the call ends."""

    no_input_s: float = 8.0
    """Silence of the caller until the agent asks whether anybody is there."""
    max_no_input: int = 2
    """How often it asks; then the call ends."""
