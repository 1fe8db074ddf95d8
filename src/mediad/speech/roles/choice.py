"""Which service ``mediad agent --role`` serves, from what was given on the command line."""

import os
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from mediad.config import Secret
from mediad.errors import ConfigError
from mediad.speech import espeak
from mediad.speech.roles.call import OpenHandler
from mediad.wire.service import Role

__all__ = ["Choice", "api_key_of", "make_service"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for; empty is the offline service with its own voice and model."""

    role: Role
    provider: str = ""
    url: str = ""
    model: str = ""
    voice: str = ""


def make_service(choice: Choice) -> OpenHandler:
    """Return the service.

    Raises:
        ConfigError: If there is no such service, or it lacks a key or a package.
        SpeechError: If espeak-ng is missing or has no such voice.
    """
    if choice.url:
        return _openai_api(choice)
    if choice.provider:
        key = api_key_of(choice.provider)
        from mediad.speech.pipecat_log import only_warnings

        only_warnings()
        from mediad.speech.roles.providers import provider_service  # imports Pipecat: seconds

        return provider_service(choice.role, choice.provider, key, choice.model, choice.voice)
    match choice.role:
        case "stt":
            from mediad.speech.roles.stt import pocketsphinx_service  # optional packages

            return pocketsphinx_service()
        case "llm":
            from mediad.speech.roles.llm import script_service

            return script_service()
        case "tts":
            from mediad.speech.roles.tts import espeak_service

            return espeak_service(choice.voice or espeak.DEFAULT_VOICE)


def _openai_api(choice: Choice) -> OpenHandler:
    from mediad.speech.roles.openai_llm import openai_service  # an optional package

    if choice.role != "llm":
        raise ConfigError("--url is for --role llm only")
    if not choice.model:
        raise ConfigError("--url needs --model, the name that the server there gives its model")
    return openai_service(choice.url, choice.model, api_key_of("openai", required=False))


def api_key_of(provider: str, *, required: bool = True) -> str:
    """Return the provider's key: the variable OPENAI_API_KEY, or the file that it names.

    Raises:
        ConfigError: If there is none although it is required, or the file cannot be read.
    """
    name = f"{provider.partition(':')[0].upper()}_API_KEY"
    value = os.environ.get(name, "")
    if not value:
        if required:
            raise ConfigError(f"{provider} needs its API key in the environment, as {name}")
        return ""
    try:
        return TypeAdapter[Secret](Secret).validate_python(value).get_secret_value()
    except ValidationError as exc:
        reason = exc.errors(include_input=False)[0]["msg"]
        raise ConfigError(f"{name}: {reason}") from exc
