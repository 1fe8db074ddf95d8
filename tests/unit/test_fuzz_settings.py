"""Whatever a settings file or the environment says, it is taken or refused with a reason."""

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediad.config import Settings, load_settings
from mediad.errors import ConfigError
from tests.data.corpus import samples

EXAMPLE = (Path(__file__).parents[2] / "config/mediad.toml").read_text(encoding="utf-8")
SOURCES = [
    re.sub(r"^#(\w+ =)", r"\1", EXAMPLE, flags=re.MULTILINE).encode(),
    *(sample.data for sample in samples("settings") if len(sample.data) < 1000),
]
NAMES = [
    (table, key)
    for table, field in Settings.model_fields.items()
    for key in getattr(field.annotation, "model_fields", {})
]
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
VALUES = st.one_of(
    WORDS,
    st.integers().map(str),
    st.floats().map(str),
    st.lists(WORDS, max_size=3).map(str),
    st.sampled_from(
        ("", "[", '["', "{}", '{"a": ', "null", "1e999", "9" * 5000, "file:/", "ws://[", "[" * 9000)
    ),
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away settings of whoever runs the tests."""
    for name in os.environ:
        if name.startswith("MEDIAD_") and name != "MEDIAD_CORE":
            monkeypatch.delenv(name)


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """A settings file with some bytes changed, doubled or gone."""
    data = bytearray(draw(st.sampled_from(SOURCES)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        start = draw(st.integers(0, len(data) - 1))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data[start:end] = draw(
            st.one_of(st.binary(max_size=4), st.just(bytes(data[start:end] * 2)))
        )
    return bytes(data)


@given(broken_files())
@settings(max_examples=400, deadline=None)
def test_a_broken_file_is_taken_or_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        check(Path(file.name))


@given(st.sampled_from(NAMES), VALUES)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_environment_is_taken_or_refused(
    monkeypatch: pytest.MonkeyPatch, name: tuple[str, str], value: str
) -> None:
    variable = "MEDIAD_{}__{}".format(*name).upper()
    with monkeypatch.context() as context:
        context.setenv(variable, value.replace("\0", ""))
        check(None, variable, f"[{name[0]}]")  # the table, when it is about two settings


def check(path: Path | None, *names: Any) -> None:
    """Load settings. What is refused names where it stands."""
    with contextlib.suppress(ConfigError):
        load_settings(path)
        return
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert any(str(name) in str(caught.value) for name in (path, *names) if name)
