"""Pipecat's provider services by name: found, checked for their packages, made with a key."""

import dataclasses
import importlib
import inspect
import logging
from typing import Any

from mediad import blot
from mediad.errors import ConfigError
from mediad.speech.roles.call import OpenHandler
from mediad.speech.roles.pipeline_roles import pipeline_service, spoken_language
from mediad.wire.service import Role, Start

__all__ = ["find_class", "make_provider", "provider_service"]

logger = logging.getLogger(__name__)

_RATES = ("speed", "speaking_rate")  # 1.0 is the voice's own, as with us
_SUFFIXES: dict[Role, str] = {"stt": "STTService", "llm": "LLMService", "tts": "TTSService"}


def provider_service(
    role: Role, provider: str, api_key: str, model: str = "", voice: str = ""
) -> OpenHandler:
    """Return the service.

    Args:
        provider: As Pipecat's package is called (``deepgram``), perhaps with a class of it
            (``elevenlabs:ElevenLabsRealtimeSTTService``).
        model: Of the provider; empty means Pipecat's choice, as with ``voice``.

    Raises:
        ConfigError: If Pipecat has no such service, or it needs a package or more than a key.
    """
    cls = find_class(role, provider)
    must_warn = role == "tts" and _settings(cls).isdisjoint(_RATES)

    def make(start: Start) -> Any:
        nonlocal must_warn
        if must_warn and start.rate not in (0.0, 1.0):
            must_warn = False
            logger.warning("%s takes no pace: calls hear its voice's own", cls.__name__)
        return make_provider(
            cls, api_key, model, start.voice or voice, start.language, start.rate or 1.0
        )

    make_provider(cls, api_key, model, voice)  # what is wrong is found out now, not in a call
    return pipeline_service(role, make)


def find_class(role: Role, provider: str) -> type:
    """Return Pipecat's class, the first one for the role if none is named."""
    package, _, name = provider.partition(":")
    module_name = f"pipecat.services.{package}.{role}"
    if not package.isidentifier():
        raise ConfigError(f"{package!r} is no name of a provider")
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        missing = getattr(exc, "name", None) or ""
        if missing in (module_name, module_name.rpartition(".")[0]):
            raise ConfigError(f"Pipecat has no {role} service {package!r}") from exc
        raise ConfigError(
            f"{package} needs more packages; install them with: "
            f"pip install 'pipecat-ai[{package}]' ({exc})"
        ) from exc
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module_name
    ]
    for cls in own:
        if cls.__name__ == name or (not name and cls.__name__.endswith(_SUFFIXES[role])):
            return cls
    raise ConfigError(f"{module_name} has no {name or _SUFFIXES[role]}")


def make_provider(
    cls: Any, api_key: str, model: str, voice: str, language: str = "", rate: float = 1.0
) -> Any:
    """Make the service; Pipecat's providers share their names for key, model, voice and language.
    One that has none for language or pace speaks as it does.
    """
    takes = _settings(cls)
    chosen: dict[str, Any] = {"model": model, "voice": voice}
    chosen |= {"language": spoken_language(language)} if "language" in takes else {}
    chosen |= {name: rate for name in _RATES if name in takes and rate != 1.0}
    wanted: dict[str, Any] = {}
    if "api_key" in _parameters(cls):
        wanted["api_key"] = api_key
    if given := {name: value for name, value in chosen.items() if value}:
        wanted["settings"] = cls.Settings(**given)
    try:
        return cls(**wanted)
    except Exception as exc:  # whatever a provider's library raises
        raise ConfigError(
            f"{cls.__name__} cannot be made from a key, a model and a voice: {blot.blot(str(exc))}"
        ) from exc


def _settings(cls: Any) -> set[str]:
    """Return what it can be told of model, voice and speech."""
    fields = dataclasses.fields(cls.Settings) if hasattr(cls, "Settings") else ()
    return {field.name for field in fields}


def _parameters(cls: type) -> set[str]:
    """Return what may be given by name, here or to a class that it extends."""
    makers = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    return {name for maker in makers for name in inspect.signature(maker).parameters}
