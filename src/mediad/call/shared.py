"""What the pipelines of all calls share: services, speech that was made, the voice model."""

import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from mediad.ai.services.service import Services, make_services, reload_services
from mediad.ai.tts_cache import SpeechStore, TtsCache
from mediad.call.ears import VoiceModel
from mediad.call.pipeline_metrics import PipelineMetrics
from mediad.call.prompt import load_prompt
from mediad.config import Pipeline, Settings
from mediad.metrics import Metrics

__all__ = ["Shared", "make_shared", "reload_shared"]


@dataclass(frozen=True, slots=True)
class Shared:
    """Once in a process."""

    services: Services
    speech: TtsCache
    model: VoiceModel
    metrics: PipelineMetrics
    fallback_text: str
    """What the agent says when a service has failed; may be empty."""
    fallback_frame: bytes
    """What is played in its place when it cannot be spoken."""


def make_shared(
    settings: Settings, metrics: Metrics, tls: ssl.SSLContext, store: SpeechStore
) -> Shared:
    """Return what the settings ask for; the model is yet to be loaded.

    Raises:
        ConfigError: If the fallback is no WAV file of a rate that can be played.
    """
    return Shared(
        make_services(settings, metrics, tls),
        TtsCache(store, metrics),
        VoiceModel(),
        PipelineMetrics(metrics.registry),
        *_load_fallback(settings.pipeline),
    )


def reload_shared(shared: Shared, settings: Settings, tls: ssl.SSLContext) -> Shared:
    """Return what calls to come share under other settings; live calls keep what they have.

    Raises:
        ConfigError: As `make_shared`.
    """
    text, frame = _load_fallback(settings.pipeline)
    services = reload_services(shared.services, settings, tls)
    return replace(shared, services=services, fallback_text=text, fallback_frame=frame)


def _load_fallback(settings: Pipeline) -> tuple[str, bytes]:
    """Return the text and the frame of what is said when a service has failed."""
    prompt = settings.fallback_prompt
    is_file = prompt.endswith(".wav")
    frame = load_prompt(Path(prompt) if is_file else None, "[pipeline] fallback_prompt")
    return "" if is_file else prompt, frame
