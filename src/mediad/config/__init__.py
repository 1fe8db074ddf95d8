"""Every setting of mediad: one frozen model per table of ``mediad.toml``. Validated once, at start.

Each setting can also come from the environment, which wins over the file: ``[audiosocket] port`` is
``MEDIAD_AUDIOSOCKET__PORT``. Lists and tables are written as JSON there, or a list as words with
commas between.

A secret may stand in a file of its own, as ``file:/run/secrets/name``: see `Secret`.
"""

from mediad.config.calls import Ai, AudioSocket, Llm, Pipeline, ServiceSettings, Stt, Tts
from mediad.config.checks import check_agent_url
from mediad.config.http import Http, Log, Webhooks
from mediad.config.settings import ENV_PREFIX, Settings, load_settings
from mediad.config.store import Cache, Database, Journal, Redis
from mediad.config.types import ENDPOINT_LIMITS, LimitedEndpoint, Secret

__all__ = [
    "ENDPOINT_LIMITS",
    "ENV_PREFIX",
    "Ai",
    "AudioSocket",
    "Cache",
    "Database",
    "Http",
    "Journal",
    "LimitedEndpoint",
    "Llm",
    "Log",
    "Pipeline",
    "Redis",
    "Secret",
    "ServiceSettings",
    "Settings",
    "Stt",
    "Tts",
    "Webhooks",
    "check_agent_url",
    "load_settings",
]
