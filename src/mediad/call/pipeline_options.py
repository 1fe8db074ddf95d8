"""What the agent of a pipeline's call is like: its own configuration before the settings. Pure."""

from collections.abc import Mapping
from math import inf
from typing import Any

from mediad.call.turn.options import EndBy, TurnOptions
from mediad.config import Pipeline, Tts
from mediad.wire.service import Voice

__all__ = ["agent_config", "turn_options", "voice_of"]


def agent_config(agent: Mapping[str, Any] | None, settings: Pipeline) -> dict[str, Any]:
    """Return an agent's configuration, with the settings where it says nothing."""
    ours = {name: getattr(settings, name) for name in ("prompt", "first_message", "language")}
    return {**ours, **(agent or {})}


def turn_options(config: Mapping[str, Any], settings: Pipeline) -> TurnOptions:
    """Return how turns are taken with the agent."""
    flow = config.get("flow") or {}
    interruption = flow.get("interruption") or {}
    return TurnOptions(
        user_start_first=flow.get("user_start_first", False),
        has_first_message=bool(config["first_message"]),
        interruption_allowed=interruption.get("allowed", True),
        response_delay_s=flow.get("response_delay_ms", 0) / 1000,
        session_timeout_s=float(config.get("session_timeout_s", inf)),
        end_by=EndBy(settings.end_of_turn),
        end_silence_s=settings.end_silence_s,
        no_input_s=settings.no_input_s,
    )


def voice_of(config: Mapping[str, Any], settings: Tts) -> Voice:
    """Return how the agent speaks."""
    chosen = config.get("voice") or {}
    name = str(chosen.get("voice_id") or settings.voice)
    return Voice(name, config["language"], settings.rate)
