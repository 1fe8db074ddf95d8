"""Calls as tables: what happens when, and what the turn machine asked for."""

from mediad.call.turn.actions import (
    Action,
    AddWords,
    AskWords,
    CancelTurn,
    EndOfTurn,
    Generate,
    GiveUp,
    Overdue,
    ResumePlayout,
    Say,
    TurnEnded,
    WordsLost,
    WordsStand,
)
from mediad.call.turn.machine import Turns
from mediad.call.turn.options import TurnOptions

__all__ = ["LISTENER", "play", "tell"]

TICK_S = 0.010
LISTENER = TurnOptions(user_start_first=True, response_delay_s=0.0, grace_s=0.0)
"""The caller begins, and nothing waits."""


def tell(action: Action) -> str:
    """Return an action in a few words."""
    match action:
        case EndOfTurn(n, by):
            return f"end of turn {n} by {by}"
        case Generate(n, why, text):
            return f"generate {n} {why} {text}".strip()
        case Say(n, speech, nth):
            return f"say {n} {speech} {nth}"
        case TurnEnded(n, how):
            return f"turn {n} {how}"
        case CancelTurn(n):
            return f"cancel {n}"
        case AskWords(n):
            return f"ask {n}"
        case AddWords(text, instead_of):
            return f"add {text} for {instead_of}" if instead_of else f"add {text}"
        case WordsStand(text):
            return f"stand {text}"
        case ResumePlayout(repeat):
            return "resume, repeat" if repeat else "resume"
        case Overdue(n, awaits_words):
            return f"overdue {n} words" if awaits_words else f"overdue {n}"
        case WordsLost(n):
            return f"lost words {n}"
        case GiveUp(reason):
            return f"give up {reason}"
    names = {
        "CallerStarted": "caller",
        "CallerStopped": "quiet",
        "PausePlayout": "pause",
        "WasNoise": "noise",
    }
    return names[type(action).__name__]


def _do(turns: Turns, what: str, now: float) -> list[Action]:
    verb, _, rest = what.partition(" ")
    match verb:
        case "voice":
            return turns.on_voice_started(now)
        case "quiet":  # the gate closes 100 ms after the voice
            return turns.on_voice_stopped(now, 0.1)
        case "interim" | "final":
            return turns.on_words(rest, verb == "final", now)
        case "typed":
            return turns.on_typed(rest, now)
        case "done":
            return turns.on_stt_done(int(rest), now)
        case "stt-end":
            return turns.on_stt_end_of_turn(now)
        case "heard":
            return turns.on_agent_started(int(rest), now)
        case "finished":
            return turns.on_agent_finished(int(rest), now)
        case "last":
            turns.on_last_answer(int(rest))
            return []
        case "hung-up":
            return turns.on_hung_up()
        case "text":
            return turns.on_text_to_say(now)
        case "stt-failed":
            return turns.on_stt_failed(int(rest), now)
        case "stt-lost":
            turns.on_audio_lost(float(rest or now))
            return []
        case "failed":
            return turns.on_failed(int(rest), now)
    raise ValueError(what)


def play(options: TurnOptions, script: str, until: float, *, quietly: bool = True) -> list[str]:
    """Play a script of lines ``<seconds> <what>``; return lines of the same form.

    Quietly: without telling when the caller starts and stops, what is only asked for then, what was
    noise, and which words stand as they are.
    """
    turns = Turns(options, 0.0)
    steps = [line.split(maxsplit=1) for line in script.splitlines() if line.strip()]
    told = [(0.0, action) for action in turns.start(0.0)]
    at = 0
    for tick in range(round(until / TICK_S) + 1):
        now = tick * TICK_S
        while at < len(steps) and float(steps[at][0]) <= now + 1e-9:
            told += [(now, action) for action in _do(turns, steps[at][1], now)]
            at += 1
        told += [(now, action) for action in turns.tick(now + 1e-6)]
    assert at == len(steps), "the script is longer than its call"
    lines = [f"{now:.2f} {tell(action)}" for now, action in told]
    hidden = ("caller", "quiet", "ask", "noise", "stand") if quietly else ()
    return [line for line in lines if line.split()[1] not in hidden]
