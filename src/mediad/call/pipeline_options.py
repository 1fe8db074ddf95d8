"""What the agent of a pipeline's call is like: its own configuration before the settings. Pure."""

from collections.abc import Mapping
from math import inf
from typing import Any

from mediad.call.turn.options import EndBy, TurnOptions
from mediad.config import Pipeline, Settings, Tts
from mediad.wire.service import Voice

__all__ = ["agent_config", "turn_options", "voice_of"]

_ROOM_S = 1.0  # for what is no service's: the cache, the playout, a machine that stands still


def agent_config(agent: Mapping[str, Any] | None, settings: Pipeline) -> dict[str, Any]:
    """Return an agent's configuration, with the settings where it says nothing."""
    ours = {name: getattr(settings, name) for name in ("prompt", "first_message", "language")}
    return {**ours, **(agent or {})}


def turn_options(config: Mapping[str, Any], settings: Settings) -> TurnOptions:
    """Return how turns are taken with the agent."""
    flow = config.get("flow") or {}
    interruption = flow.get("interruption") or {}
    ours, stt, llm = settings.pipeline, settings.stt, settings.llm
    # Twice: another call may have begun to have the text spoken, and not come to its end.
    speech_timeout_s = 2 * settings.tts.budget_s + _ROOM_S
    return TurnOptions(
        user_start_first=flow.get("user_start_first", False),
        has_first_message=bool(config["first_message"]),
        interruption_allowed=interruption.get("allowed", True),
        response_delay_s=flow.get("response_delay_ms", 0) / 1000,
        session_timeout_s=float(config.get("session_timeout_s", inf)),
        end_by=EndBy(ours.end_of_turn),
        end_silence_s=ours.end_silence_s,
        finals_patience_s=stt.timeout_s / 2,
        finals_timeout_s=stt.budget_s + stt.timeout_s + _ROOM_S,
        answer_timeout_s=llm.budget_s + llm.timeout_s + speech_timeout_s,
        speech_timeout_s=speech_timeout_s,
        no_input_s=ours.no_input_s,
    )


def voice_of(config: Mapping[str, Any], settings: Tts) -> Voice:
    """Return how the agent speaks."""
    chosen = config.get("voice") or {}
    name = str(chosen.get("voice_id") or settings.voice)
    return Voice(name, config["language"], settings.rate)
