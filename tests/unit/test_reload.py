"""Settings that are taken up again, and those that need a restart."""

import re
from pathlib import Path

import pytest

from mediad.config import Settings
from mediad.reload import reload

EXAMPLE = Path(__file__).parents[2] / "config/mediad.toml"
MARK = "(at start)"


def changed(settings: Settings, table: str, **values: object) -> Settings:
    new = getattr(settings, table).model_copy(update=values)
    return settings.model_copy(update={table: new})


def test_nothing_has_changed() -> None:
    assert reload(Settings(), Settings()) == (Settings(), [], [])


def test_what_calls_begin_with_is_taken() -> None:
    wanted = changed(Settings(), "audiosocket", max_calls=7)
    wanted = changed(wanted, "ai", agent_url=("ws://other:1",), connect_timeout_s=3.0)
    wanted = changed(wanted, "log", level="debug")
    taken = ["ai.agent_url", "ai.connect_timeout_s", "audiosocket.max_calls", "log.level"]
    settings, *keys = reload(Settings(), wanted)
    assert (settings, [sorted(keys[0]), keys[1]]) == (wanted, [taken, []])


def test_what_was_opened_at_the_start_is_left() -> None:
    wanted = changed(Settings(), "audiosocket", port=1, max_calls=7)
    wanted = changed(wanted, "http", port=2)
    settings, taken, left = reload(Settings(), wanted)
    assert (taken, left) == (["audiosocket.max_calls"], ["audiosocket.port", "http.port"])
    assert settings == changed(Settings(), "audiosocket", max_calls=7)


def test_agents_that_dial_in_need_a_port_from_the_start() -> None:
    wanted = changed(Settings(), "ai", agent_url=())
    assert reload(Settings(), wanted) == (Settings(), [], ["ai.agent_url"])
    assert reload(wanted, Settings()) == (wanted, [], ["ai.agent_url"])


def marked(text: str, line: str) -> bool:
    """Tell whether the comment above a line has the mark."""
    (comment,) = re.findall(rf"((?:^# .*\n)+)^{re.escape(line)}", text, re.MULTILINE)
    return MARK in comment


@pytest.mark.parametrize("table", list(Settings.model_fields))
def test_example_marks_what_needs_a_restart(table: str) -> None:
    now = Settings()
    texts = EXAMPLE.read_text(encoding="utf-8").split("\n\n\n")[1:]
    (text,) = [text for text in texts if f"\n[{table}]\n" in text]
    for key in type(getattr(now, table)).model_fields:
        is_marked = marked(text, f"[{table}]") or marked(text, f"#{key} = ")
        wanted = changed(now, table, **{key: object()})
        _, taken, left = reload(now, wanted)
        assert (taken, left) == (
            ([], [f"{table}.{key}"]) if is_marked else ([f"{table}.{key}"], [])
        )
