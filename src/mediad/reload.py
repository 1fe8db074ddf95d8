"""Which settings a running mediad takes up again, on SIGHUP, and which need a restart."""

from typing import NamedTuple

from mediad.config import Ai, AudioSocket, Llm, Pipeline, Settings, Stt, Tts

__all__ = ["Reloaded", "reload"]

# What calls to come are begun with. All else was opened, bound or sized at the start.
_LIVE = {
    "audiosocket": AudioSocket.model_fields.keys() - {"host", "port", "playout_max_bytes"},
    "ai": Ai.model_fields.keys() - {"listen_host", "listen_port", "prompts"},
    "pipeline": Pipeline.model_fields.keys(),
    "stt": Stt.model_fields.keys(),
    "llm": Llm.model_fields.keys(),
    "tts": Tts.model_fields.keys(),
    "log": {"level"},
}


class Reloaded(NamedTuple):
    """What came of it; keys are written as ``table.key``."""

    settings: Settings
    """In force from now on."""
    taken: list[str]
    """What has changed."""
    left: list[str]
    """What would have changed, but only does at the next start."""


def reload(now: Settings, wanted: Settings) -> Reloaded:
    """Return the settings in force with those of the wanted ones that need no restart."""
    taken: list[str] = []
    left: list[str] = []
    tables = {}
    for table in Settings.model_fields:
        before, after = getattr(now, table), getattr(wanted, table)
        changed = {
            key for key in type(before).model_fields if getattr(before, key) != getattr(after, key)
        }
        live = changed & _live(table, now, wanted)
        tables[table] = before.model_copy(update={key: getattr(after, key) for key in live})
        taken += sorted(f"{table}.{key}" for key in live)
        left += sorted(f"{table}.{key}" for key in changed - live)
    return Reloaded(now.model_copy(update=tables), taken, left)


def _live(table: str, now: Settings, wanted: Settings) -> set[str]:
    keys = set(_LIVE.get(table, ()))
    if table == "ai" and bool(now.ai.agent_url) != bool(wanted.ai.agent_url):
        keys.discard("agent_url")  # a port for agents that dial in is opened at the start
    return keys
