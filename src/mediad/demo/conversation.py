"""What the demo's caller does: waits for the agent, speaks, talks over it once, hangs up."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mediad.caller import CallEnded, Caller
from mediad.caller.voice import DIGIT_HOLE_S
from mediad.speech.espeak import Speech, speak

__all__ = ["SCRIPTS", "Step", "converse"]

CALLER_VOICE = "en-us+f1"
"""Another voice than the agent's, and one that it understands well."""

_GREETING_TIMEOUT_S = 15.0
_ANSWER_TIMEOUT_S = 6.0
_END_OF_TURN_S = 0.8  # longer than the agent's pauses between sentences
_TALK_OVER_AFTER_S = 1.2


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the caller does when the agent has finished, or with ``talks_over`` before."""

    says: str = ""
    presses: str = ""
    talks_over: bool = False


_STOPS = Step(says="stop", talks_over=True)
_PRESSES = Step(presses="5", talks_over=True)

SCRIPTS: dict[str, tuple[Step, ...]] = {
    "yes": (Step(says="yes"), _STOPS, Step(says="yes"), _PRESSES, Step(says="no")),
    "no": (Step(says="no"), _STOPS, Step(says="no"), _PRESSES, Step(says="yes")),
    "silent": (Step(),),
}
"""What the three callers of ``--say`` do."""


async def converse(
    caller: Caller, script: tuple[Step, ...], tell: Callable[[str], None]
) -> list[float]:
    """Play the script; return when the caller began to talk over the agent (monotonic seconds).

    It ends early when the agent does not answer, or hangs up: the report says what is missing.

    Args:
        tell: Is given what the caller does, as it happens.
    """
    talked_over: list[float] = []
    words = {step.says: await speak(step.says, CALLER_VOICE) for step in script if step.says}
    try:
        await caller.wait_for_speech(timeout_s=_GREETING_TIMEOUT_S)
        for step in script:
            if step.talks_over:
                await asyncio.sleep(_TALK_OVER_AFTER_S)
            else:
                await caller.wait_for_quiet(quiet_s=_END_OF_TURN_S)
            began_at = time.monotonic()
            await _act(caller, step, words, tell)
            spoken = caller.sent.span_after(began_at)
            if step.talks_over and spoken:
                talked_over.append(spoken.start)
            if step.presses:  # an answer at once leaves no pause by which to tell its beginning
                await caller.wait_for_speech(timeout_s=_ANSWER_TIMEOUT_S)
            else:
                since = spoken.end if spoken else began_at
                await caller.wait_for_answer(since, timeout_s=_ANSWER_TIMEOUT_S)
        await caller.wait_for_quiet(quiet_s=_END_OF_TURN_S)
    except (CallEnded, TimeoutError):
        pass
    return talked_over


async def _act(
    caller: Caller, step: Step, words: Mapping[str, Speech], tell: Callable[[str], None]
) -> None:
    over = ", over the agent" if step.talks_over else ""
    if step.says:
        tell(f"says: {step.says}{over}")
        speech = words[step.says]
        caller.say(speech.pcm, speech.rate_hz)
    if step.presses:
        tell(f"presses {step.presses}{over}")
        caller.press(step.presses, DIGIT_HOLE_S)
    await caller.said()
